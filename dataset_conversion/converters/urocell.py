"""The UroCell benchmark: lysosomes and mitochondria, five labelled FIB-SEM volumes of the project's repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dataset_conversion.converters.converter import Contents
from dataset_conversion.readers.archives import SourceFile, find
from dataset_conversion.readers.checked import check_pair, read_source_image
from dataset_conversion.readers.pixels import check_values, first_position, format_position, integer_label
from dataset_conversion.readers.slabs import Array, whole
from dataset_conversion.spec import Case
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

TEST = "fib1-0-0-0"
VOLUMES = ("fib1-1-0-3", "fib1-3-2-1", "fib1-3-3-0", "fib1-4-3-0", TEST)
"""Those with labels of both organelles; the last one is the test volume (CEM500K's benchmark scripts)."""
FIRST_ROW = {TEST: 12, "fib1-1-0-3": 54}
"""In the rows before this one, along y, data are missing (CEM500K's benchmark scripts, axis 1 of SimpleITK)."""
SPACING = Spacing(16.0, 16.0, 16.0, NANOMETRES)
"""The voxels are about 15 x 16 x 16 nm (z, y, x) and the masks' headers are wrong. Written as cubes: nnU-Net slices
along the axis of the largest spacing, which would be y."""
ORIENTATIONS = {"xy": (0, 1, 2), "xz": (1, 0, 2), "yz": (2, 0, 1)}
"""Planes that become slices -> order of the axes z, y, x: the axis that is left over goes first."""
_AGAIN = "Is it the file of the original repository? Download it again."


def find_contents(source: Path, _: Sequence[str]) -> list[Contents]:
    """Find the five labelled volumes.

    Raises:
        RetinaError: for missing files.
    """
    names = {f"data/{volume}.nii.gz": [f"data/{volume}.nii.gz"] for volume in VOLUMES}
    for organelle in ("mito", "lyso"):
        for volume in VOLUMES:
            new, old = f"{organelle}/binary/{volume}.nii.gz", f"{organelle}/{volume}.nii.gz"
            names[new] = [new, old]
    files = find(source, names)
    remark = "voxel size: written as 16 x 16 x 16 nm (about 15 x 16 x 16); the masks' headers are wrong"
    return [Contents(lambda _: _cases(files), [remark])]


def _cases(files: dict[str, SourceFile]) -> Iterator[Case]:
    for volume in VOLUMES:
        source = str(files[f"data/{volume}.nii.gz"])
        image, label, remarks = cut_off(volume, *read_volume(volume, files))
        if volume == TEST:
            yield Case(volume, image, label, SPACING, "test", source=source, remarks=remarks)
            continue
        for planes, axes in ORIENTATIONS.items():
            turned, turned_label = (np.ascontiguousarray(array.transpose(axes)) for array in (image, label))
            name = f"{volume}_{planes}"
            yield Case(name, turned, turned_label, SPACING, group=volume, source=source, remarks=remarks)


def read_volume(volume: str, files: dict[str, SourceFile]) -> tuple[Array, Array]:
    """Read image and label of one whole volume.

    Args:
        volume: one of ``VOLUMES``.
        files: ``data/NAME``, ``mito/binary/NAME`` and ``lyso/binary/NAME`` -> file.

    Returns:
        (Z, Y, X) image, grey levels as stored; (Z, Y, X) uint8: 0 background, 1 lysosome, 2 mitochondrion.

    Raises:
        RetinaError: for damaged files, an image and masks that do not fit, or masks that overlap.
    """
    image_file = files[f"data/{volume}.nii.gz"]
    image = _smallest(read_source_image(image_file).array)
    lyso = _mask(files[f"lyso/binary/{volume}.nii.gz"], image, image_file)
    mito = _mask(files[f"mito/binary/{volume}.nii.gz"], image, image_file)
    both = lyso & mito
    if both.any():
        raise RetinaError(
            f"{volume}: {int(both.sum())} voxels are lysosome and mitochondrion at once, the first at "
            f"{format_position(first_position(both))}; expected none. {_AGAIN}"
        )
    return image, lyso.astype(np.uint8) + 2 * mito.astype(np.uint8)


def cut_off(volume: str, image: Array, label: Array) -> tuple[Array, Array, tuple[str, ...]]:
    """Return image and label, (Z, Y, X), without the rows where data are missing, and remarks on them.

    The published masks go on through these rows, so labelled voxels are lost with them, as in the published scores.

    Raises:
        RetinaError: for a volume that has no other rows.
    """
    row = FIRST_ROW.get(volume, 0)
    if row == 0:
        return image, label, ()
    if image.shape[1] <= row:
        raise RetinaError(f"data/{volume}.nii.gz has {image.shape[1]} rows along y; expected more than {row}. {_AGAIN}")
    grey, lost = image[:, :row], np.bincount(label[:, :row].ravel(), minlength=3)
    remark = (
        f"the volume's first {row} rows along y, where data are missing, were cut off as in CEM500K's benchmark "
        f"scripts (grey levels {grey.min():g} to {grey.max():g}; {lost[1]} lysosome and {lost[2]} mitochondrion voxels)"
    )
    return image[:, row:], label[:, row:], (remark,)


def _mask(file: SourceFile, image: Array, image_file: SourceFile) -> Array:
    """Read a mask as (Z, Y, X) bool."""
    mask = read_source_image(file, mask=True).array
    if image.ndim != 3:
        raise RetinaError(f"{image_file} has shape {image.shape}; expected a volume (z, y, x). {_AGAIN}")
    check_pair(image, mask, str(image_file), str(file), 1)
    label = whole(integer_label(mask, str(file)))
    check_values(label, (0, 1), str(file), _AGAIN)
    return np.asarray(label > 0)


def _smallest(image: Array) -> Array:
    """Return the image as uint8 if no value changes: the published files hold grey levels 0 to 255 as float."""
    if image.dtype.kind == "f" and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255:
        small = image.astype(np.uint8)
        return small if np.array_equal(small, image) else image
    return image
