"""What of an image is annotated: boxes, written as text or drawn in napari as rectangles."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_conversion.readers.images import composed
from dataset_conversion.readers.pixels import AXES
from dataset_conversion.readers.slabs import Array, Volume, mapped, plane_ranges
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.box import parse_part

ENDINGS = (".txt", ".csv")
_SHAPES = ("index", "shape-type", "vertex-index")
"""First columns of napari's file of a Shapes layer; the others are axis-0, axis-1 and so on."""

_TURNED = 0.5
"""Pixels that a corner may lie off the sides through the others."""


@dataclass(frozen=True)
class Rectangle:
    """A box that was drawn: what of it lies outside of the image is cut off."""

    source: str
    """For messages."""
    ends: tuple[tuple[int, int], ...]
    """First pixel, and the one after the last, along each axis."""


Annotated = str | Rectangle
"""A box: ``z0:z1,y0:y1,x0:x1``, for 2D images ``y0:y1,x0:x1``; or drawn."""


def read_boxes(items: Iterable[str]) -> tuple[Annotated, ...]:
    """Return boxes; an item is one, or a file of them.

    Raises:
        RetinaError: for a file that cannot be read or holds none.
    """
    found: list[Annotated] = []
    for item in items:
        path = Path(item)
        found += read_box_file(path) if path.suffix.lower() in ENDINGS else [item]
    return tuple(found)


def read_box_file(path: Path) -> list[Annotated]:
    """Read a text with a box on each line (``#`` begins a comment), or the file that napari saves a Shapes layer to.

    Raises:
        RetinaError: if it cannot be read, or holds no box, or other shapes than rectangles.
    """
    if not path.is_file():
        raise RetinaError(f"no file of boxes {path}. Check the path")
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise RetinaError(f"{path} is no text; expected a box on each line, or napari's file of rectangles") from error
    lines = [line for line in lines if line]
    if not lines:
        raise RetinaError(f"{path} holds no box; expected lines such as 0:8,0:128,64:192. To ignore all, leave it out")
    header = tuple(lines[0].split(","))
    return list(_rectangles(path, lines)) if header[: len(_SHAPES)] == _SHAPES else list(lines)


def _rectangles(path: Path, lines: list[str]) -> Iterable[Rectangle]:
    corners: dict[str, list[list[float]]] = {}
    for row in csv.DictReader(lines):
        if row["shape-type"] != "rectangle":
            raise RetinaError(
                f"{path}: shape {row['index']} is of the kind {row['shape-type']}; expected rectangles alone, whose "
                "every pixel is annotated. Draw it as a rectangle, and save the layer again"
            )
        try:
            corner = [float(value) for name, value in row.items() if name and name.startswith("axis-")]
        except (TypeError, ValueError) as error:
            raise RetinaError(f"{path}: shape {row['index']} has a corner that is no number. Save it again") from error
        corners.setdefault(row["index"], []).append(corner)
    for index, points in corners.items():
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        if np.minimum(np.abs(points - low), np.abs(points - high)).max() > _TURNED:
            raise RetinaError(
                f"{path}: rectangle {index} is turned; expected sides along the axes, for every pixel between its "
                "corners counts as annotated. Draw it anew, and save the layer again"
            )
        # A pixel's number is its middle: it is inside if that is; slices are whole numbers, up to rounding.
        ends = tuple(
            (math.ceil(first - 1e-3), math.floor(last + 1e-3) + 1) for first, last in zip(low, high, strict=True)
        )
        yield Rectangle(f"{path}: rectangle {index}", ends)


def parts(boxes: Sequence[Annotated], shape: Sequence[int]) -> list[tuple[slice, ...]]:
    """Return the boxes as slices of an image.

    Raises:
        RetinaError: for one that does not fit it.
    """
    return [parse_part(box, shape) if isinstance(box, str) else _clipped(box, shape) for box in boxes]


def _clipped(box: Rectangle, shape: Sequence[int]) -> tuple[slice, ...]:
    if len(box.ends) != len(shape):
        raise RetinaError(
            f"{box.source} has {len(box.ends)} axes; expected the image's: {', '.join(AXES[len(shape)])}. Draw it in a "
            "Shapes layer that was added while the image was open"
        )
    clipped = tuple(slice(max(0, first), min(n, last)) for (first, last), n in zip(box.ends, shape, strict=True))
    if any(side.start >= side.stop for side in clipped):
        raise RetinaError(f"{box.source} holds no pixel of the image of {' x '.join(map(str, shape))}. Remove it")
    return clipped


def box_text(part: Sequence[slice]) -> str:
    """Return a box as text."""
    return ",".join(f"{side.start}:{side.stop}" for side in part)


def ignore_outside(label: Volume, boxes: Sequence[Annotated], ignore: int) -> tuple[Volume, str]:
    """Return a label in which all that lies in no box has the value of what is not annotated, and a remark.

    Raises:
        RetinaError: for a box that does not fit.
    """
    chosen = parts(boxes, label.shape)
    stack = label.shape if label.ndim > 2 else (1, *label.shape)
    solid = [part if label.ndim > 2 else (slice(0, 1), *part) for part in chosen]
    inside = sum(int(np.count_nonzero(_inside(solid, z, stack[1:]))) for z in plane_ranges(stack, bool))

    def ignored(z: int, slab: Array) -> Array:
        return np.where(_inside(solid, range(z, z + len(slab)), stack[1:]), slab, label.dtype.type(ignore))

    number = f"{len(chosen)} boxes are" if len(chosen) > 1 else "1 box is"
    remark = f"{number} annotated, {inside / label.size:.1%} of the voxels; the rest is ignored"
    return mapped(label, ignored, label.dtype), remark


def _inside(boxes: Sequence[tuple[slice, ...]], planes: range, sides: tuple[int, ...]) -> Array:
    """Return (n, Y, X): whether voxels of some planes lie in any of the boxes (z, y, x)."""
    inside = np.zeros((len(planes), *sides), bool)
    for z, y, x in boxes:
        inside[max(0, z.start - planes.start) : max(0, z.stop - planes.start), y, x] = True
    return inside


def box_lists(folder: Path, cases: Sequence[str]) -> dict[str, tuple[Annotated, ...]]:
    """Return case -> its boxes, from a folder of files named after the cases; nothing if there is no folder.

    Raises:
        RetinaError: for a file of an unknown case, or two of one.
    """
    if not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    lists: dict[str, tuple[Annotated, ...]] = {}
    for path in files:
        case = composed(path.stem)
        if case not in cases:
            raise RetinaError(f"{path}: there is no image with a mask {case}, but {shorten(cases)}. Name it after one")
        if case in lists:
            raise RetinaError(f"two files of boxes for {case} in {folder}; expected one. Remove one")
        lists[case] = tuple(read_box_file(path))
    return lists
