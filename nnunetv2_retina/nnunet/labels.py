"""Label files: which a folder holds, and reading them with nnU-Net's own readers.

Reading refuses what would make a score meaningless: fractions, several channels, values that are no labels.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, one_line, shorten
from nnunetv2_retina.files import check_links
from nnunetv2_retina.images.plain import check_plain
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.images.whole import check_whole
from nnunetv2_retina.nnunet.datasets import DATASET_JSON

INSTANCES = "_instances"
"""What ``retina_predict --instances`` puts after a case's name in the file of its objects, beside its prediction."""
_FLAT_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
"""Of files of images in two axes, of which nnU-Net reads no pixel size."""
_SEVERAL_READERS = (".tif",)
"""Endings of which nnU-Net has a 2D and a 3D reader, and chooses by trying."""


@dataclass(frozen=True)
class Labels:
    """A label file's contents."""

    array: NDArray[Any]
    """uint8 or uint16, (Z, Y, X); Z is 1 for an image."""
    spacing: Spacing
    """In the file's unit, which no file tells: nm in data sets that ``retina_convert`` wrote."""
    geometry: Mapping[str, tuple[float, ...]]
    """Spacing, and origin and direction where the format has them. Empty for a TIFF volume without nnU-Net's JSON file
    of its spacing, which is then said to be 1: nnU-Net copies none to ``gt_segmentations``."""


@contextlib.contextmanager
def reading(path: Path, plain: bool = False, labels: bool = False) -> Iterator[None]:
    """Silence nnU-Net's reader of a file that is whole, and turn what it raises into one message.

    Args:
        path: the file.
        plain: refuse a file that nnU-Net's reader takes for something else than it shows, or than a mask stores.
        labels: whether it is a mask.

    Raises:
        RetinaError: for a file that is cut off, damaged or not plain, and whatever error the body raises.
    """
    try:
        check_whole(path)
        if plain:
            check_plain(path, labels)
        with _quiet():
            yield
    except Exception as error:  # the decoders raise whatever their C libraries and parsers do
        raise RetinaError(
            f"{path}: cannot be read ({one_line(error)}). Is the file complete, and of the format its name says?"
        ) from error


def list_labels(folder: Path, ending: str, role: str) -> dict[str, Path]:
    """Return the label files of a folder by the names of their cases, in their order; no hidden ones, no folders.

    Args:
        folder: where they are; its subfolders are not searched.
        ending: such as ``.nii.gz``.
        role: what they are, for the message.

    Raises:
        RetinaError: for a folder that is missing or holds none; a link to nothing; an ending in other capitals.
    """
    if not folder.is_dir():
        raise RetinaError(f"{folder} is not a folder; expected the folder of {role} files. Check the path")
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    check_links(entries)
    files = {path.name[: -len(ending)]: path for path in entries if path.is_file() and path.name.endswith(ending)}
    others = [path for path in entries if path.is_file() and path.name.lower().endswith(ending.lower())]
    _check_capitals([path for path in others if not path.name.endswith(ending)], ending)
    if not files:
        held = shorten((path.name for path in entries), 3) or "nothing"
        raise RetinaError(
            f"{folder} holds no {role} (*{ending}, as {DATASET_JSON} says in file_ending); it holds {held}. "
            "Check the path and the data set"
        )
    return files


def _check_capitals(files: list[Path], ending: str) -> None:
    if files:
        raise RetinaError(
            f"{files[0]} ends in {files[0].name[-len(ending) :]}; expected {ending}, as {DATASET_JSON} says: nnU-Net "
            f"passes over {len(files)} such {'file' if len(files) == 1 else 'files'}. Rename them"
        )


def choose_reader(dataset_json: Mapping[str, Any], example: Path) -> type[Any]:
    """Return nnU-Net's reader class for the data set's files, so that the same rules hold as in training.

    Args:
        dataset_json: a loaded ``dataset.json``.
        example: an image or label file of the data set, to try where nnU-Net has several readers.

    Raises:
        RetinaError: if nnU-Net has none.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ending = str(dataset_json["file_ending"])
    tried = str(example) if ending.lower() in _SEVERAL_READERS else None
    with reading(example) if tried and example.is_file() else contextlib.nullcontext():
        pass  # a damaged file may keep the readers busy for ever
    with _quiet():  # a reader that does not fit prints its traceback
        try:
            reader: type[Any] = determine_reader_writer_from_dataset_json(dict(dataset_json), tried, verbose=False)
        except RuntimeError as error:
            raise RetinaError(
                f"{example}: nnU-Net has no reader that can open it (file_ending of {DATASET_JSON}: {ending}). "
                "Is the file complete, and of the format its name says?"
            ) from error
    return reader


def read_labels(path: Path, reader: type[Any]) -> Labels:
    """Read a label file.

    Raises:
        RetinaError: if it cannot be read, or does not hold one channel of whole numbers from 0 to 65535.
    """
    with reading(path, plain=True, labels=True):
        array, properties = reader().read_seg(str(path))
    if array.ndim != 4 or len(array) != 1 or array.size == 0:
        raise RetinaError(f"{path}: shape {array.shape} (channels, z, y, x); expected a label image of one channel")
    spacing = Spacing.of(properties["spacing"])
    known = reader.__name__ != "Tiff3DIO" or path.with_suffix(".json").is_file()
    return Labels(_whole_numbers(array[0], path), spacing, _geometry(properties, spacing) if known else {})


def known_spacing(name: str, planes: int, spacing: Spacing, pixel_size: tuple[float, float] | None) -> Spacing | None:
    """Return the size of an image's voxels: what its file says or, of formats that hold none, the data set's.

    Args:
        name: of the file; its ending counts.
        planes: of the image; 1 for an image of two axes.
        spacing: as nnU-Net's reader gave it.
        pixel_size: of the data set's block: nm along y and x.

    Returns:
        None if neither says it.
    """
    if not name.lower().endswith(_FLAT_ENDINGS) or planes > 1:
        return spacing
    return None if pixel_size is None else Spacing(spacing.z, *pixel_size, unit=NANOMETRES)


def _whole_numbers(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the same values as uint8 or uint16. Works plane by plane: a volume as nnU-Net reads it is float32."""
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


def _geometry(properties: Mapping[str, Any], spacing: Spacing) -> dict[str, tuple[float, ...]]:
    geometry = {"spacing": tuple(spacing)}
    header = properties.get("sitk_stuff", {})
    for name in ("direction", "origin"):
        if name in header:
            geometry[name] = tuple(float(number) for number in header[name])
    if "nibabel_stuff" in properties:
        affine = np.asarray(properties["nibabel_stuff"]["original_affine"], np.float64)
        geometry["affine"] = tuple(affine.ravel().tolist())
    return geometry


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what nnU-Net's readers print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
