"""Files of an evaluation: ``dataset.json``, pairs of label files, and reading them with nnU-Net's own readers.

Reading refuses what would make a score meaningless: other shapes or geometry, fractions, values the data set lacks.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.rule import Rule

DATASET_JSON = "dataset.json"
ROOTS = ("nnUNet_raw", "nnUNet_preprocessed")
_SEVERAL_READERS = (".tif",)
"""Endings of which nnU-Net has a 2D and a 3D reader, and chooses by trying."""
INSTANCES = "_instances"
"""What ``retina_predict --instances`` puts after a case's name in the file of its objects, beside its prediction."""


@dataclass(frozen=True)
class Pair:
    """Two label files of one case."""

    name: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class Labels:
    """A label file's contents."""

    array: NDArray[Any]
    """uint8 or uint16, (Z, Y, X); Z is 1 for an image."""
    spacing: tuple[float, ...]
    """Along z, y, x, in the file's unit: nm in data sets that ``retina_convert`` wrote."""
    geometry: Mapping[str, tuple[float, ...]]
    """Spacing, and origin and direction where the format has them."""


def find_dataset_json(dataset: str | int | Path) -> Path:
    """The ``dataset.json`` of a data set.

    Args:
        dataset: the file, a folder with it, or the data set's ID (``801``) or name (``Dataset801_CREMI``), which is
            looked for in ``$nnUNet_raw``, then in ``$nnUNet_preprocessed``.

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
        return _search(given)
    raise RetinaError(f"{path}: no such file or folder. Expected the path of a {DATASET_JSON}, or an ID or name")


def dataset_folders(root: str | Path, dataset: str) -> list[Path]:
    """The data sets of an ID (``801``) or a name in one of nnU-Net's folders, sorted."""
    pattern = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else glob.escape(dataset)
    return sorted(path for path in Path(root).glob(pattern) if path.is_dir())


def _search(dataset: str) -> Path:
    """``dataset.json`` of an ID or a name, in nnU-Net's folders."""
    for variable in ROOTS:
        root = os.environ.get(variable)
        folders = dataset_folders(root, dataset) if root else []
        found = [folder / DATASET_JSON for folder in folders if (folder / DATASET_JSON).is_file()]
        if len(found) > 1:
            raise RetinaError(
                f"data set {dataset} is ambiguous in {root}: {shorten(file.parent.name for file in found)}. "
                "Give the whole name"
            )
        if found:
            return found[0]
    searched = " and ".join(f"${variable} ({os.environ.get(variable, 'not set')})" for variable in ROOTS)
    raise RetinaError(
        f"data set {dataset} not found in {searched}; expected an ID such as 801, a name such as Dataset801_CREMI, "
        f"or the path of a {DATASET_JSON}"
    )


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Load it; ``labels`` and ``file_ending`` must be there.

    Raises:
        RetinaError: if it cannot be read or lacks one.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RetinaError(f"{path}: cannot be read as JSON ({error}). Expected nnU-Net's {DATASET_JSON}") from error
    return check_dataset_json(contents, str(path))


def check_dataset_json(contents: object, source: str) -> dict[str, Any]:
    """The same, if ``labels`` and ``file_ending`` are there.

    Raises:
        RetinaError: naming ``source`` and what it lacks.
    """
    table = dict(contents) if isinstance(contents, Mapping) else {}
    missing = [key for key in ("labels", "file_ending") if key not in table]
    if missing:
        raise RetinaError(f"{source}: no {' and '.join(missing)}. Expected nnU-Net's {DATASET_JSON}")
    return table


def pair_files(predictions: Path, truths: Path, ending: str) -> tuple[list[Pair], list[str]]:
    """Pair label files by their names.

    Args:
        predictions: folder of predictions; files with other endings are passed over.
        truths: folder of ground truths.
        ending: such as ``.nii.gz``.

    Returns:
        The pairs by name, and the names of predictions without a ground truth. CASE_instances beside CASE is none.

    Raises:
        RetinaError: for a folder that is missing or holds none, or ground truths without a prediction.
    """
    predicted, actual = list_labels(predictions, ending, "prediction"), list_labels(truths, ending, "ground truth")
    missing = sorted(set(actual) - set(predicted))
    if missing:
        raise RetinaError(
            f"no prediction for {len(missing)} of {len(actual)} cases of {truths}: {shorten(missing)}. Expected "
            f"{predictions / (missing[0] + ending)}. Predict them, or take their ground truth out of that folder"
        )
    pairs = [Pair(name, predicted[name], actual[name]) for name in sorted(actual)]
    extra = set(predicted) - set(actual)
    objects = {name for name in extra if name.endswith(INSTANCES) and name.removesuffix(INSTANCES) in predicted}
    return pairs, sorted(extra - objects)


def choose_reader(dataset_json: Mapping[str, Any], example: Path) -> type[Any]:
    """nnU-Net's reader class for the data set's files, so that the same rules hold as in training.

    Raises:
        RetinaError: if nnU-Net has none.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ending = str(dataset_json["file_ending"])
    tried = str(example) if ending.lower() in _SEVERAL_READERS else None
    with _quiet():  # a reader that does not fit prints its traceback
        try:
            found: type[Any] = determine_reader_writer_from_dataset_json(dict(dataset_json), tried, verbose=False)
        except RuntimeError as error:
            raise RetinaError(
                f"{example}: nnU-Net has no reader that can open it (file_ending of {DATASET_JSON}: {ending}). "
                "Is the file complete, and of the format its name says?"
            ) from error
    return found


def read_pair(pair: Pair, reader: type[Any], rule: Rule) -> tuple[Labels, Labels]:
    """Prediction and ground truth of a case. The ignore value in a prediction is no class: it counts as background.

    Raises:
        RetinaError: if one cannot be read, they differ in shape or geometry, or hold values the data set lacks.
    """
    truth, prediction = read_labels(pair.truth, reader), read_labels(pair.prediction, reader)
    if truth.array.shape != prediction.array.shape:
        raise RetinaError(
            f"case {pair.name}: the prediction has shape {prediction.array.shape}, the ground truth "
            f"{truth.array.shape} (z, y, x); expected the same. Is {pair.prediction} of this case, and neither cropped "
            "nor scaled?"
        )
    for name, expected in truth.geometry.items():
        got = prediction.geometry.get(name)
        if got is None or not _close(name, got, expected, truth.spacing):
            raise RetinaError(
                f"case {pair.name}: the prediction has {name} {_shown(got)}, the ground truth {_shown(expected)}; "
                f"expected the same. Are {pair.prediction} and {pair.truth} of one image? If only the file's header is "
                "wrong, copy it from the image"
            )
    allowed = rule.values | ({rule.ignore} if rule.ignore is not None else set())
    for labels, path in ((truth, pair.truth), (prediction, pair.prediction)):
        unknown = sorted(_values(labels.array) - allowed)
        if unknown:
            raise RetinaError(
                f"{path} holds the values {shorten(unknown)}, which the data set lacks; its labels are "
                f"{shorten(sorted(allowed), 20)}. Is it of this data set? Masks of 0 and 255 must be saved as 0 and 1"
            )
    return prediction, truth


def read_labels(path: Path, reader: type[Any]) -> Labels:
    """Read a label file.

    Raises:
        RetinaError: if it cannot be read, or does not hold one channel of whole numbers from 0 to 65535.
    """
    with _quiet():
        try:
            array, properties = reader().read_seg(str(path))
        except Exception as error:  # the decoders raise whatever their C libraries and parsers do
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise RetinaError(
                f"{path}: cannot be read ({reason}). Is the file complete, and of the format its name says?"
            ) from error
    if array.ndim != 4 or len(array) != 1 or array.size == 0:
        raise RetinaError(f"{path}: shape {array.shape} (channels, z, y, x); expected a label image of one channel")
    spacing = tuple(float(step) for step in properties["spacing"])
    return Labels(_whole_numbers(array[0], path), spacing, _geometry(properties, spacing))


def list_labels(folder: Path, ending: str, role: str) -> dict[str, Path]:
    """The label files of a folder by the names of their cases, in their order; no hidden ones, no folders.

    Args:
        folder: where they are; its subfolders are not searched.
        ending: such as ``.nii.gz``.
        role: what they are, for the message.

    Raises:
        RetinaError: for a folder that is missing or holds none.
    """
    if not folder.is_dir():
        raise RetinaError(f"{folder} is not a folder; expected the folder of {role} files. Check the path")
    found = (path for path in sorted(folder.glob(f"*{ending}")) if path.is_file() and not path.name.startswith("."))
    files = {path.name[: -len(ending)]: path for path in found}
    if not files:
        others = shorten(sorted(path.name for path in folder.iterdir()), 3) or "nothing"
        raise RetinaError(
            f"{folder} holds no {role} (*{ending}, as {DATASET_JSON} says in file_ending); it holds {others}. "
            "Check the path and the data set"
        )
    return files


def _whole_numbers(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """uint8 or uint16 of the same values; plane by plane, for a volume as nnU-Net reads it is float32."""
    least, most = float(array.min()), float(array.max())
    if not (least >= 0 and most <= np.iinfo(np.uint16).max):
        raise RetinaError(f"{path} holds values from {least:g} to {most:g}; expected label values from 0 to 65535")
    whole = array.astype(np.uint8 if most <= np.iinfo(np.uint8).max else np.uint16)
    for plane, stored in zip(array, whole, strict=True):
        if not np.array_equal(plane, stored):
            wrong = plane[plane != stored]
            raise RetinaError(
                f"{path} holds {wrong[0]:g}; expected whole numbers (label values), no probabilities. Was it resampled?"
            )
    return whole


def _values(array: NDArray[Any]) -> set[int]:
    return {int(value) for plane in array for value in np.unique(plane)}


def _geometry(properties: Mapping[str, Any], spacing: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    geometry = {"spacing": spacing}
    header = properties.get("sitk_stuff", {})
    for name in ("direction", "origin"):
        if name in header:
            geometry[name] = tuple(float(number) for number in header[name])
    if "nibabel_stuff" in properties:
        affine = np.asarray(properties["nibabel_stuff"]["original_affine"], np.float64)
        geometry["affine"] = tuple(affine.ravel().tolist())
    return geometry


def _close(name: str, got: Sequence[float], expected: Sequence[float], spacing: Sequence[float]) -> bool:
    """Equal but for what headers lose to rounding: a tenth of a voxel where it is a place, else a thousandth."""
    relative, absolute = (1e-6, 0.1 * min(spacing)) if name in ("origin", "affine") else (1e-3, 1e-3 * min(spacing))
    if name == "direction":
        absolute = 1e-3
    return len(got) == len(expected) and bool(np.allclose(got, expected, rtol=relative, atol=absolute))


def _shown(numbers: Sequence[float] | None) -> str:
    return "none" if numbers is None else f"({', '.join(f'{number:g}' for number in numbers)})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what nnU-Net's readers print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
