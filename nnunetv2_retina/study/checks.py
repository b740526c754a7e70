"""Looks at everything that a study names, before anything runs: data sets, test labels, trainers, weights."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.pairs import DATASET_JSON, dataset_folders, read_dataset_json
from nnunetv2_retina.prediction.outputs import list_cases
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.study.definition import Study, StudyDataset, StudySystem
from nnunetv2_retina.study.runs import Resolved, read_json
from nnunetv2_retina.weights import checkpoint


def resolve(study: Study) -> Resolved:
    """Find what a study names, and see that it can be used.

    Raises:
        RetinaError: with everything that was found wrong.
    """
    problems: list[str] = []
    datasets: dict[str, str] = {}
    training: dict[str, dict[str, Any]] = {}
    fingerprints: dict[str, str] = {}
    for entry in study.datasets:
        try:
            folder = find_dataset(entry.dataset, "nnUNet_preprocessed")
            contents = read_dataset_json(folder / DATASET_JSON)
            Protocol.from_dataset_json(contents)
            if entry.scored == "test":
                _check_test_set(entry, len(contents["channel_names"]), str(contents["file_ending"]))
            datasets[entry.dataset], training[folder.name] = folder.name, dict(contents.get(BLOCK, {}))
        except RetinaError as error:
            problems.append(f"data set {entry.dataset}: {error}")
    for name, file in study.weights.items():
        try:
            fingerprints[name] = checkpoint.load(Path(file)).fingerprint
        except RetinaError as error:
            problems.append(f"weights {name}: {error}")
    for system in study.systems:
        problems += [f"system {system.name}: {problem}" for problem in _system_problems(study, system, datasets)]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise RetinaError(f"study {study.name!r} cannot be run as it is; nothing was started:\n{listed}")
    return Resolved(datasets, training, fingerprints)


def find_dataset(dataset: str, variable: str) -> Path:
    """A data set's folder in one of nnU-Net's, by number or name.

    Raises:
        RetinaError: if the variable is not set, or there is none or more than one.
    """
    root = os.environ.get(variable)
    if not root:
        raise RetinaError(f"${variable} is not set. Set it to nnU-Net's folder of that name")
    found = dataset_folders(root, dataset)
    if len(found) != 1:
        there = sorted(path.name for path in Path(root).glob("Dataset*"))
        what = f"{len(found) or 'no'} data sets"
        todo = "Give the whole name" if found else f"Convert it, then run: nnUNetv2_plan_and_preprocess -d {dataset}"
        raise RetinaError(
            f"{what} of ID or name {dataset} in ${variable} ({root}), which holds {shorten(there) or 'none'}. {todo}"
        )
    return found[0]


def scored_folders(dataset: str, scored: str) -> tuple[Path, Path]:
    """Folders of the images and labels of a data set among which are those that its runs are scored on."""
    raw = find_dataset(dataset, "nnUNet_raw")
    part = "Ts" if scored == "test" else "Tr"
    return raw / f"images{part}", raw / f"labels{part}"


def _check_test_set(entry: StudyDataset, channels: int, ending: str) -> None:
    images, labels = scored_folders(entry.dataset, entry.scored)
    cases = list_cases(images, ending, channels)
    lacking = [case.name for case in cases if not (labels / f"{case.name}{ending}").is_file()]
    if lacking:
        raise RetinaError(
            f"{len(lacking)} of {len(cases)} test images have no label in {labels}: {shorten(lacking)}. A study scores "
            "its runs: put them there, or give a fold by its number and scored: validation"
        )


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
    """The trainer of this name as ``nnUNetv2_train`` finds it; None if it does not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of every place where it looks
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return None


def _unknown_trainer(name: str) -> str:
    from nnunetv2_retina.training import baselines, trainers

    known = [*trainers.__all__, *baselines.__all__, "nnUNetTrainer"]
    guess = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {guess[0]}?" if guess else f"Known here are {', '.join(known)}, and those of nnU-Net"
    return f"nnU-Net finds no trainer {name!r}. {hint}"


def _configuration_problems(entry: StudyDataset, name: str, configuration: str) -> Iterator[str]:
    folder = find_dataset(name, "nnUNet_preprocessed")
    command = f"nnUNetv2_plan_and_preprocess -d {entry.dataset} -c {configuration}"
    plans = folder / f"{entry.plans}.json"
    if not plans.is_file():
        yield f"{plans} is missing. Run: {command}"
        return
    contents = read_json(plans)
    if configuration not in contents["configurations"]:
        there = ", ".join(contents["configurations"])
        yield f"{name} has no configuration {configuration} in {plans.name}; it has {there}. Choose one of them"
        return
    data = folder / PlansManager(contents).get_configuration(configuration).data_identifier
    if not data.is_dir():
        yield f"{name} is not preprocessed for {configuration} ({data} is missing). Run: {command}"
