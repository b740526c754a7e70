"""The table of a volume's objects: made from their measurements, and written."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import replacing, write_json
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.levels import ORIGIN, Point
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.objects.columns import COLUMNS, NAMES, UNKNOWN, dictionary
from nnunetv2_retina.prediction.objects.measures import (
    PAIRS,
    Totals,
    flat,
    groups,
    longest,
    measure,
    read_around,
    sides,
    total,
)
from nnunetv2_retina.prediction.objects.neighbours import Nearest, Parts, Surfaces, combine, nearest
from nnunetv2_retina.prediction.objects.vertices import Integers, crofton

Row = dict[str, str | int | float | None]
"""Column -> value; None where it does not apply."""
DICTIONARY = "objects.columns.json"
_AT_ONCE = 2**22
"""Voxels of a slab."""


@dataclass(frozen=True)
class Frame:
    """The image that the objects are in."""

    shape: tuple[int, int, int]
    spacing: Spacing
    unit: str
    """See the column ``unit``."""
    origin: Point = ORIGIN
    """Where the middle of the first voxel is, in the unit of the spacing."""

    @classmethod
    def of(cls, shape: Sequence[int], spacing: Spacing, unit: str | None = None) -> Frame:
        """Return the frame of an array (z, y, x) or (y, x); ``unit`` None: the spacing's own."""
        z, y, x = (1, *shape) if len(shape) == 2 else shape
        whole = Spacing(spacing.z or 1.0, spacing.y, spacing.x, spacing.unit)
        return cls((z, y, x), whole, unit or spacing.unit or UNKNOWN)


def describe(ids: NDArray[np.integer], labels: Sequence[int], names: Mapping[int, str], frame: Frame) -> list[Row]:
    """Measure the objects of a volume in memory; little more is needed than the volume itself.

    Args:
        ids: (z, y, x) or (y, x): 0 is background, ids go from 1 to the number of objects, each occurs.
        labels: class of each id.
        names: label -> name.
        frame: of the volume.

    Returns:
        A row for each id, in their order.
    """
    volume = ids[None] if ids.ndim == 2 else ids
    z, y, x = frame.shape
    depth = max(1, _AT_ONCE // (y * x))
    blocks: list[Box] = [(slice(at, min(at + depth, z)), slice(0, y), slice(0, x)) for at in range(0, z, depth)]

    def read(box: Box) -> NDArray[np.integer]:
        return volume[box]

    steps = tuple(frame.spacing)
    measured = [measure(read_around(read, box, frame.shape), box, frame.shape, steps) for box in blocks]
    parts, surfaces = Parts(measured, steps), Surfaces(read, blocks, frame.shape)
    neighbours = combine([nearest(parts, surfaces, range(len(blocks)))], len(labels))
    return rows(total(measured, len(labels)), neighbours, labels, names, frame)


def rows(
    totals: Totals, neighbours: Nearest, labels: Sequence[int] | Integers, names: Mapping[int, str], frame: Frame
) -> list[Row]:
    """Return the table, a row for each id.

    Args:
        totals: of all objects.
        neighbours: the same.
        labels: class of each id.
        names: label -> name.
        frame: of the volume.
    """
    steps = np.array(list(frame.spacing))
    lengths = {owner: longest(points, steps) for owner, points in groups(totals.hull_ids, totals.hull)}
    return [_row(index, totals, neighbours, int(label), names, frame, lengths) for index, label in enumerate(labels)]


def _row(
    index: int,
    totals: Totals,
    neighbours: Nearest,
    label: int,
    names: Mapping[int, str],
    frame: Frame,
    lengths: Mapping[int, float],
) -> Row:
    two = flat(frame.shape)
    voxels, box = int(totals.voxels[index]), totals.box[index]
    centre = box[:3] + totals.sums[index] / voxels
    place = frame.origin + centre * np.array(list(frame.spacing))
    edge = sides(tuple(frame.spacing), frame.shape)
    size, border = voxels * math.prod(edge), int(totals.area[index]) * crofton(edge)[1]
    first = 1 if two else 0
    ends = [(int(box[axis]), int(box[axis + 3])) for axis in range(3)]
    touches = any(ends[axis][0] == 0 or ends[axis][1] == frame.shape[axis] for axis in range(first, 3))
    other = int(neighbours.other[index])
    return {
        "id": index + 1,
        "label": label,
        "class": names.get(label, ""),
        "voxels": voxels,
        "unit": frame.unit,
        "volume": None if two else size,
        "surface": None if two else border,
        "area": size if two else None,
        "perimeter": border if two else None,
        "diameter": 2 * math.sqrt(size / math.pi) if two else (6 * size / math.pi) ** (1 / 3),
        "length": lengths[index + 1],
        "sphericity": 4 * math.pi * size / border**2 if two else math.pi ** (1 / 3) * (6 * size) ** (2 / 3) / border,
        "elongation": _elongation(voxels, totals.sums[index], totals.squares[index], edge),
        **dict(zip("zyx", map(float, centre), strict=True)),
        "centre_z": None if two else float(place[0]),
        "centre_y": float(place[1]),
        "centre_x": float(place[2]),
        **{f"{axis}{end}": ends[number][end] for number, axis in enumerate("zyx") for end in (0, 1)},
        "neighbour": other or None,
        "neighbour_distance": float(neighbours.distance[index]) if other else None,
        "touches_border": int(touches),
    }


def _elongation(voxels: int, sums: Integers, squares: Integers, edge: Sequence[float]) -> float:
    """Return the square root of the ratio of the largest and smallest second moment; a voxel has its own."""
    moments = np.zeros((3, 3))
    for (a, b), square in zip(PAIRS, squares, strict=True):
        whole = int(square) * voxels - int(sums[a]) * int(sums[b])  # Python's integers: no digit is lost
        moments[a, b] = moments[b, a] = whole / voxels**2
    kept = moments[3 - len(edge) :, 3 - len(edge) :] + np.eye(len(edge)) / 12
    values = np.linalg.eigvalsh(kept * np.outer(edge, edge))
    return float(np.sqrt(values[-1] / values[0]))


def write(path: Path, table: Sequence[Row]) -> None:
    """Write a table: a CSV with the columns ``COLUMNS``, whole or not at all; without objects, the header alone."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        for row in table:
            writer.writerow([_text(row[column.name], column.decimals) for column in COLUMNS])


def write_dictionary(folder: Path) -> None:
    """Write what the columns mean, for the tables of a folder."""
    write_json(folder / DICTIONARY, dictionary())


def _text(value: str | float | None, decimals: int | None) -> str:
    if value is None:
        return ""
    if decimals is None:
        return str(value)
    return f"{value:.{-decimals}g}" if decimals < 0 else f"{value:.{decimals}f}"


def read(path: Path, wanted: Sequence[str] = NAMES) -> dict[str, list[str]]:
    """Return columns of a table that ``write`` wrote, as they are spelled there.

    Raises:
        RetinaError: if it cannot be read or has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = tuple(next(reader, ()))
            if header == NAMES:
                places = [NAMES.index(name) for name in wanted]
                kept = [[row[place] for place in places] for row in reader]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise RetinaError(f"{path} cannot be read ({error}). Write it anew with --instances") from error
    if header != NAMES:
        raise RetinaError(
            f"{path} has not the columns of a table of objects (docs/objects.md); an earlier version has fewer. Write "
            "it anew with --instances"
        )
    return {name: [row[number] for row in kept] for number, name in enumerate(wanted)}
