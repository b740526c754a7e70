"""Looks at everything that a study names, before anything runs: data sets, test labels, trainers, weights."""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import read_json
from nnunetv2_retina.nnunet.datasets import PREPROCESSED, RAW, TRUTHS, find_dataset, read_dataset_json, split_folders
from nnunetv2_retina.nnunet.inputs import list_cases
from nnunetv2_retina.nnunet.labels import list_labels
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.protocol.folds import Split, find_splits
from nnunetv2_retina.study.definition import Study, StudyDataset, StudySystem
from nnunetv2_retina.study.runs import Resolved, has_own_splits, splitting
from nnunetv2_retina.training import preflight
from nnunetv2_retina.weights import checkpoint


def resolve(study: Study) -> Resolved:
    """Find what a study names, and check that it can be used.

    Raises:
        RetinaError: with everything that was found wrong.
    """
    problems: list[str] = []
    datasets: dict[str, str] = {}
    training: dict[str, dict[str, Any]] = {}
    folds: dict[str, Split] = {}
    fingerprints: dict[str, str] = {}
    seen: list[str] = []
    for entry in study.datasets:
        try:
            folder = find_dataset(entry.dataset, PREPROCESSED)
            contents = read_dataset_json(folder)
            Protocol.from_dataset_json(contents)
            if entry.scored == "test":
                _check_test_set(entry, contents)
            if entry.labelled or entry.fold != "all":
                folds[entry.dataset] = _fold(entry, folder, contents)
            datasets[entry.dataset], training[folder.name] = folder.name, dict(contents.get(BLOCK, {}))
        except RetinaError as error:
            problems.append(f"data set {entry.dataset}: {error}")
    problems += _same(datasets)
    for name, file in study.weights.items():
        try:
            stored = checkpoint.load(file)
            fingerprints[name] = stored.fingerprint
            seen += _seen(name, stored, datasets.values())
        except RetinaError as error:
            problems.append(f"weights {name}: {error}")
    for system in study.systems:
        problems += [f"system {system.name}: {problem}" for problem in _system_problems(study, system, datasets)]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise RetinaError(f"study {study.name!r} cannot be run as it is; nothing was started:\n{listed}")
    return Resolved(datasets, training, fingerprints, folds, seen)


def _same(datasets: Mapping[str, str]) -> Iterator[str]:
    names = list(datasets.values())
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            entries = [entry for entry, full in datasets.items() if full == name]
            yield f"data sets {' and '.join(entries)}: both are {name}; expected each data set once"


def _seen(weights: str, stored: checkpoint.Checkpoint, datasets: Iterable[str]) -> Iterator[str]:
    """Say of which data sets the pre-training of a weights file saw images that the study selects or tests with."""
    for dataset in datasets:
        if parts := preflight.seen_in_pretraining(stored, dataset):
            yield (
                f"The pre-training of the weights {weights} saw the {' and the '.join(parts)} of {dataset}: systems "
                "that start from them are compared on images that they alone have seen. To compare fairly, pre-train "
                "with --exclude, or without --dataset and --with-test"
            )


def scored_folders(dataset: str, scored: str) -> tuple[Path, Path]:
    """Return the folders of a data set's images and labels among which are those that its runs are scored on."""
    return split_folders(find_dataset(dataset, RAW), "test" if scored == "test" else "train")


def _check_test_set(entry: StudyDataset, dataset_json: Mapping[str, Any]) -> None:
    images, labels = scored_folders(entry.dataset, entry.scored)
    cases = list_cases(images, dataset_json)
    lacking = [case.name for case in cases if not (labels / f"{case.name}{dataset_json['file_ending']}").is_file()]
    if lacking:
        raise RetinaError(
            f"{len(lacking)} of {len(cases)} test images have no label in {labels}: {shorten(lacking)}. A study scores "
            "its runs: put them there, or give a fold by its number and scored: validation"
        )


def _fold(entry: StudyDataset, folder: Path, dataset_json: Mapping[str, Any]) -> Split:
    """Return the cases of a data set's fold, of which runs train on some; for fold ``all`` none are for validation.

    Raises:
        RetinaError: for a fold that is not there, which nnU-Net answers with a random split; or too few training cases.
    """
    cases = list(list_labels(folder / TRUTHS, str(dataset_json["file_ending"]), "ground truth"))
    training = {**dataset_json.get(BLOCK, {}), **entry.training}
    fold: Split = {"train": cases, "val": []}
    if entry.fold != "all":
        number = int(entry.fold)
        fold = find_splits(None if has_own_splits(training) else folder, cases, splitting(training), number)[number]
    if entry.labelled and entry.labelled[-1] > len(fold["train"]):
        raise RetinaError(
            f"labelled is {list(entry.labelled)}, and there are {len(fold['train'])} training cases. Give fewer"
        )
    return fold


def _system_problems(study: Study, system: StudySystem, datasets: dict[str, str]) -> Iterator[str]:
    trainer = find_trainer(system.trainer)
    if trainer is None:
        yield _unknown_trainer(system.trainer)
    elif system.weights is None and getattr(trainer, "transfer_scope", None) is not None:
        yield f"{system.trainer} starts from pre-trained weights, and none are given. Add weights: NAME"
    elif system.weights is not None and getattr(trainer, "transfer_scope", None) is None:
        yield f"{system.trainer} starts from random initialisation, but has weights {system.weights}. Leave them out"
    for entry in study.runs_on(system):
        if entry.dataset in datasets:
            yield from _configuration_problems(entry, datasets[entry.dataset], system.configuration)


def find_trainer(name: str) -> type[Any] | None:
    """Return the trainer of this name as ``nnUNetv2_train`` finds it; None if it does not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it lists every place where it looks
            trainer: type[Any] = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return None
    return trainer


def _unknown_trainer(name: str) -> str:
    from nnunetv2_retina.training import baselines, trainers

    known = [*trainers.__all__, *baselines.__all__, "nnUNetTrainer"]
    guess = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {guess[0]}?" if guess else f"Known here are {', '.join(known)}, and those of nnU-Net"
    return f"nnU-Net finds no trainer {name!r}. {hint}"


def _configuration_problems(entry: StudyDataset, name: str, configuration: str) -> Iterator[str]:
    folder = find_dataset(name, PREPROCESSED)
    command = f"nnUNetv2_plan_and_preprocess -d {entry.dataset} -c {configuration}"
    plans = folder / f"{entry.plans}.json"
    if not plans.is_file():
        yield f"{plans} is missing. Run: {command}"
        return
    contents = read_json(plans, f"Run: {command}")
    if configuration not in contents["configurations"]:
        known = ", ".join(contents["configurations"])
        yield f"{name} has no configuration {configuration} in {plans.name}; it has {known}. Choose one of them"
        return
    data = folder / PlansManager(contents).get_configuration(configuration).data_identifier
    if not data.is_dir():
        yield f"{name} is not preprocessed for {configuration} ({data} is missing). Run: {command}"
