"""Folders of numbered slices, one image file each, that are one volume."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from dataset_conversion.command import SLICES
from dataset_conversion.readers.hdf5 import HDF5_SUFFIXES
from dataset_conversion.readers.images import SUPPORTED, ImageFile, composed, file_stem, file_suffix, read_image
from dataset_conversion.readers.palettes import note_colours
from dataset_conversion.readers.slabs import Array, Slabs, Volume, is_large, plane_ranges
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import check_links

_KINDS = tuple(suffix for suffix in SUPPORTED if suffix not in HDF5_SUFFIXES)


def find_volumes(folder: Path, name: str, remarks: list[str]) -> dict[str, tuple[Path, ...]]:
    """Find the slices of a folder, or of each folder in it, in the order of their numbers.

    Args:
        folder: with images, or with folders of images.
        name: of the volume, if the images lie in the folder itself.
        remarks: gets the names of what is not read.

    Returns:
        Name of a volume -> its slices.

    Raises:
        RetinaError: if there is no image, or the names of a volume's slices do not number them without gap.
    """
    entries = _entries(folder)
    files = _images(entries)
    folders = [] if files else [path for path in entries if path.is_dir()]
    volumes = {name: files} if files else {}
    read = {*files}
    for path in folders:
        inside = _entries(path)
        if found := _images(inside):
            if composed(path.name) in volumes:
                raise RetinaError(f"two folders in {folder} are both {composed(path.name)}; expected one. Rename one")
            volumes[composed(path.name)] = found
            read.add(path)
            say_unread(path, [entry.name for entry in inside if entry not in found], remarks)
    if not volumes:
        raise RetinaError(
            f"{folder} holds no slices; expected numbered images ({', '.join(_KINDS)}), or a folder of them a volume"
        )
    say_unread(folder, [path.name for path in entries if path not in read], remarks)
    return {name: _in_order(found) for name, found in volumes.items()}


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def say_unread(folder: Path, names: Sequence[str], remarks: list[str]) -> None:
    """Add what of a folder is not read to the remarks."""
    if names:
        remarks.append(f"not read in {folder}: {shorten(names)}")


def open_slices(paths: Sequence[Path], mask: bool = False) -> ImageFile[Volume]:
    """Read slices as one volume (Z, Y, X), or leave those of a large one in their files once each has been looked at.

    Its spacing is unknown, since no slice tells how far the next one is.

    Raises:
        RetinaError: for a slice that cannot be read, is no 2D image, or has another shape or type than the first.
    """
    first = _read_slice(paths[0], mask)
    shape, dtype = (len(paths), *first.array.shape), first.array.dtype
    large, planes = is_large(shape, dtype), [first.array]
    said = dict.fromkeys(first.remarks)
    colours: dict[int, tuple[str, str]] = {}
    note_colours(colours, first.colours, str(paths[0]))
    for path in paths[1:]:
        plane = _read_slice(path, mask)
        if (plane.array.shape, plane.array.dtype) != (shape[1:], dtype):
            raise RetinaError(
                f"{path} is {_shown(plane.array)}, and {paths[0]} {_shown(first.array)}; slices of one volume must be "
                "alike. Crop or convert them, or move what does not belong to it elsewhere"
            )
        note_colours(colours, plane.colours, str(path))
        said |= dict.fromkeys(plane.remarks)
        if not large:
            planes.append(plane.array)

    def blocks() -> Iterator[Array]:
        for part in plane_ranges(shape, dtype):
            yield np.stack([_read_slice(path, mask).array for path in paths[part.start : part.stop]])

    remarks = list(said)
    if not mask and first.spacing is not None:
        remarks.append(
            f"the slices state {first.spacing.y:g} x {first.spacing.x:g} nm in their plane, not their distance: give "
            "--spacing z y x"
        )
    remarks.append(f"{len(paths)} slices, {paths[0].name} to {paths[-1].name}, are one volume")
    array = Slabs(shape, dtype, blocks) if large else np.stack(planes)
    return ImageFile(array, None, tuple(remarks), colours={value: shown for value, (shown, _) in colours.items()})


def _read_slice(path: Path, mask: bool) -> ImageFile[Array]:
    image = read_image(path, mask=mask)
    if image.array.ndim != 2:
        raise RetinaError(f"{path} has shape {image.array.shape}; expected one slice (Y, X) a file with {SLICES}")
    return image


def check_numbers(images: Sequence[Path], masks: Sequence[Path]) -> None:
    """Check that the slices of a mask have the numbers of the image's.

    Raises:
        RetinaError: if they have not.
    """
    one, other = (_numbers(paths) for paths in (images, masks))
    if one != other:
        raise RetinaError(
            f"the slices in {images[0].parent} are numbered {one[0]} to {one[-1]}, those in {masks[0].parent} "
            f"{other[0]} to {other[-1]}; expected a mask slice of each number. Rename them, or add what is missing"
        )


def _images(entries: Sequence[Path]) -> list[Path]:
    check_links(entries)
    return [path for path in entries if path.is_file() and file_suffix(path) in _KINDS]


def _in_order(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Sort slices by number, ``z9`` before ``z10``.

    Raises:
        RetinaError: for names that differ in more than one number, a number given twice, or a gap.
    """
    numbered = sorted(zip(_numbers(paths), paths, strict=True))
    for (number, path), (following, other) in pairwise(numbered):
        if number == following:
            raise RetinaError(f"{path} and {other} are both slice {number}; expected one of each. Remove one")
        if following != number + 1:
            missing = f"{number + 1}" if following == number + 2 else f"{number + 1} to {following - 1}"
            raise RetinaError(
                f"{path.parent} has no slice {missing}, between {path.name} and {other.name}; expected numbers without "
                "gap. Add what is missing (a copy of its neighbour if it was lost), or make two volumes of it"
            )
    return tuple(path for _, path in numbered)


def _numbers(paths: Sequence[Path]) -> list[int]:
    """Return each slice's number: the one number in which all names differ."""
    parts = [re.split(r"(\d+)", file_stem(path)) for path in paths]
    folder, first = paths[0].parent, parts[0]
    for path, other in zip(paths, parts, strict=True):
        if len(other) < 3:
            raise RetinaError(f"{path} has no number in its name; expected a slice number, as in z_0001.png. Rename it")
        if other[::2] != first[::2]:
            raise RetinaError(
                f"{paths[0].name} and {path.name} in {folder} differ in more than a number, so they are not taken for "
                "slices of one volume. Put the slices of each volume into a folder of their own"
            )
    differing = [place for place in range(1, len(first), 2) if len({int(other[place]) for other in parts}) > 1]
    if len(differing) > 1:
        raise RetinaError(
            f"the names in {folder}, from {paths[0].name} to {paths[-1].name}, differ in {len(differing)} numbers; "
            "expected one, the slice's. Put the slices of each volume into a folder of their own"
        )
    place = differing[0] if differing else len(first) - 2
    return [int(other[place]) for other in parts]


def _shown(plane: Array) -> str:
    return f"{' x '.join(map(str, plane.shape))} {plane.dtype}"
