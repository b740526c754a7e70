"""nnU-Net's data sets on disk: what their folders and files are called, where they are, and what dataset.json says.

Imports neither torch nor nnU-Net. The environment variables are read at each call, as nnU-Net does.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import read_json

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
"""Names of nnU-Net's environment variables, and of its folders where nothing else is said."""
DATASET_JSON, SPLITS_JSON = "dataset.json", "splits_final.json"
IMAGES_TR, LABELS_TR, IMAGES_TS, LABELS_TS = "imagesTr", "labelsTr", "imagesTs", "labelsTs"
TRUTHS = "gt_segmentations"
"""The training labels in a preprocessed data set."""
_SPLITS = {"train": (IMAGES_TR, LABELS_TR), "test": (IMAGES_TS, LABELS_TS)}


def nnunet_folder(variable: str) -> Path | None:
    """Return the folder that one of nnU-Net's variables names; None if it is not set."""
    root = os.environ.get(variable)
    return Path(root) if root else None


def datasets_in(root: str | Path, dataset: str) -> list[Path]:
    """Return the folders of the data sets of an ID (``801``) or a name in one of nnU-Net's folders, sorted."""
    pattern = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else glob.escape(dataset)
    return sorted(path for path in Path(root).glob(pattern) if path.is_dir())


def find_dataset(dataset: str | int, *variables: str) -> Path:
    """Find a data set's folder.

    Args:
        dataset: its ID (``801``) or name (``Dataset801_CREMI``).
        variables: of ``RAW``, ``PREPROCESSED`` and ``RESULTS``, those to look in; the first that has it counts.

    Raises:
        RetinaError: if it is in none of them, or the ID belongs to several data sets.
    """
    for variable in variables:
        root = nnunet_folder(variable)
        folders = datasets_in(root, str(dataset)) if root else []
        if len(folders) > 1:
            raise RetinaError(
                f"data set {dataset} is ambiguous in ${variable} ({root}): {shorten(path.name for path in folders)}. "
                "Give the whole name"
            )
        if folders:
            return folders[0]
    hint = f", then run: nnUNetv2_plan_and_preprocess -d {dataset}" if PREPROCESSED in variables else ""
    raise RetinaError(
        f"data set {dataset} not found in {' or '.join(map(_contents, variables))}; expected an ID such as 801, or a "
        f"name such as Dataset801_CREMI. Set the variable to nnU-Net's folder, or convert the data set{hint}"
    )


def find_dataset_json(dataset: str | int | Path) -> Path:
    """Find the ``dataset.json`` of a data set.

    Args:
        dataset: the file, a folder with it, or the data set's ID or name, which is looked for in ``$nnUNet_raw``, then
            in ``$nnUNet_preprocessed``.

    Raises:
        RetinaError: if it is not found, or the ID belongs to several data sets.
    """
    given = str(dataset)
    path = Path(given).expanduser()
    if path.is_file() or (path / DATASET_JSON).is_file():
        return path if path.is_file() else path / DATASET_JSON
    if path.is_dir() and not given.isdecimal():
        raise RetinaError(f"{path} holds no {DATASET_JSON}; expected a data set's folder, or the file itself")
    if given.isdecimal() or given == path.name:
        return find_dataset(given, RAW, PREPROCESSED) / DATASET_JSON
    raise RetinaError(f"{path}: no such file or folder. Expected the path of a {DATASET_JSON}, or an ID or name")


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read a ``dataset.json``, or that of a folder.

    Raises:
        RetinaError: if it cannot be read, or lacks ``labels`` or ``file_ending``.
    """
    file = path / DATASET_JSON if path.is_dir() else path
    return check_dataset_json(read_json(file, f"Expected nnU-Net's {DATASET_JSON}"), str(file))


def check_dataset_json(contents: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the contents of a ``dataset.json`` as they are, if ``labels`` and ``file_ending`` are among them.

    Raises:
        RetinaError: naming ``source`` and what it lacks, or holds of another type.
    """
    missing = [key for key in ("labels", "file_ending") if key not in contents]
    if missing:
        raise RetinaError(f"{source}: no {' and '.join(missing)}. Expected nnU-Net's {DATASET_JSON}")
    for key, kind, expected in (("labels", dict, "an object of name: value"), ("file_ending", str, "a text")):
        if not isinstance(contents[key], kind):
            raise RetinaError(f"{source}: {key} is {contents[key]!r}; expected {expected}. Correct it there")
    return dict(contents)


def channel_count(dataset_json: Mapping[str, Any]) -> int:
    """Return the number of channels of a data set's images; ``modality`` is what nnU-Net's first version calls them.

    Raises:
        RetinaError: if it has neither.
    """
    names = dataset_json.get("channel_names") or dataset_json.get("modality")
    if not isinstance(names, Mapping):
        raise RetinaError(f'{DATASET_JSON}: no channel_names; expected, for one channel, {{"0": "EM"}}. Add it there')
    return len(names)


def class_names(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each label of dataset.json; with regions, of the region that is written as that label."""
    labels = {name: value for name, value in dataset_json["labels"].items() if name not in ("background", "ignore")}
    order = dataset_json.get("regions_class_order")
    if order:
        return {int(value): name for value, name in zip(order, labels, strict=False)}
    return {int(value): name for name, value in labels.items() if not isinstance(value, (list, tuple))}


def ignored_value(dataset_json: Mapping[str, Any]) -> int | None:
    """Return the label value of what nobody annotated; None if dataset.json has none."""
    value = dataset_json["labels"].get("ignore")
    return None if value is None else int(value)


def split_folders(folder: Path, split: str) -> tuple[Path, Path]:
    """Return the folders of the images and of the labels of a raw data set's ``train`` or ``test`` cases."""
    images, labels = _SPLITS[split]
    return folder / images, folder / labels


def _contents(variable: str) -> str:
    """Say which data sets the folder of a variable holds."""
    root = nnunet_folder(variable)
    if root is None:
        return f"${variable} (not set)"
    names = sorted(path.name for path in root.glob("Dataset*"))
    return f"${variable} ({root}, which holds {shorten(names) or 'no data set'})"
