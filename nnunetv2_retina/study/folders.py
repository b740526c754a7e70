"""nnU-Net's folders as one run of a study sees them: the user's preprocessed data under the study's settings.

The preprocessed files are linked, not copied; ``dataset.json`` is the run's own, and so are splits, where the study
changes them. nnU-Net is started with its variables set to these folders.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import link, write_json, write_text
from nnunetv2_retina.nnunet.datasets import (
    DATASET_JSON,
    PREPROCESSED,
    RESULTS,
    SPLITS_JSON,
    TRUTHS,
    find_dataset,
    read_dataset_json,
)
from nnunetv2_retina.nnunet.inputs import list_cases
from nnunetv2_retina.nnunet.labels import list_labels
from nnunetv2_retina.protocol import BLOCK
from nnunetv2_retina.protocol.folds import find_splits
from nnunetv2_retina.study.checks import scored_folders
from nnunetv2_retina.study.runs import Run, has_own_splits, splitting

_SCORED = "scored"
_NO_LINKS = "Give an output folder on a file system with symbolic links; on Windows they need the developer mode"


def results(folder: Path) -> Path:
    """Return the run's ``nnUNet_results``."""
    return folder / RESULTS


def make(folder: Path, run: Run) -> dict[str, str]:
    """Make the folders of a run.

    Returns:
        nnU-Net's variables for its process.

    Raises:
        RetinaError: if the data set is not there any more, lacks the fold, or cannot be linked.
    """
    source = find_dataset(run.dataset, PREPROCESSED).resolve()
    view = folder / PREPROCESSED / run.dataset
    view.mkdir(parents=True, exist_ok=True)
    own_splits = has_own_splits(run.training)
    for path in source.iterdir():
        linked = view / path.name
        if path.name == DATASET_JSON or (path.name == SPLITS_JSON and own_splits) or linked.is_symlink():
            continue
        if not linked.exists():
            _link(path, linked)
    contents = read_dataset_json(source)
    write_json(view / DATASET_JSON, {**contents, BLOCK: dict(run.training)})
    if own_splits and run.fold != "all":  # for trainers that do not read the settings, too
        cases = list(list_labels(source / TRUTHS, str(contents["file_ending"]), "ground truth"))
        splits = find_splits(None, cases, splitting(run.training), run.fold)
        write_text(view / SPLITS_JSON, json.dumps(splits, indent=2), _NO_LINKS)
    results(folder).mkdir(exist_ok=True)
    return {
        PREPROCESSED: str((folder / PREPROCESSED).resolve()),
        RESULTS: str(results(folder).resolve()),
    }


def scored_files(folder: Path, run: Run) -> tuple[Path, Path]:
    """Return the folders of the images that a run is scored on and of their labels. Called in the run's process.

    Raises:
        RetinaError: if the validation cases are not among the data set's training images, or cannot be linked.
    """
    images, labels = (path.resolve() for path in scored_folders(run.dataset, run.scored))
    if run.scored == "test" and not run.rehearsal:
        return images, labels
    dataset_json = read_dataset_json(images.parent)
    ending, cases = dataset_json["file_ending"], list_cases(images, dataset_json)
    if run.scored == "validation":
        wanted = _validation_cases(run)
        cases = [case for case in cases if case.name in wanted]
        if len(cases) != len(wanted):
            raise RetinaError(f"{images} lacks some of the validation cases {', '.join(wanted)}. Convert the data anew")
    if run.rehearsal:
        cases = cases[:1]
    target = folder / _SCORED
    shutil.rmtree(target, ignore_errors=True)
    for case in cases:
        for file in case.files:
            _link(file, target / "images" / file.name)
        _link(labels / f"{case.name}{ending}", target / "labels" / f"{case.name}{ending}")
    return target / "images", target / "labels"


def remove(folder: Path) -> None:
    """Delete the links; what they lead to stays."""
    for name in (PREPROCESSED, _SCORED):
        shutil.rmtree(folder / name, ignore_errors=True)


def _validation_cases(run: Run) -> list[str]:
    path = find_dataset(run.dataset, PREPROCESSED) / SPLITS_JSON
    return list(json.loads(path.read_text(encoding="utf-8"))[int(run.fold)]["val"])


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    link(target, source, _NO_LINKS)
