"""Whole numbers about the objects of a block, which add up over blocks to those of the volume, whatever the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from nnunetv2_retina.images.box import Box
from nnunetv2_retina.prediction.objects.vertices import Integers, crofton, find_vertices

PAIRS = tuple(combinations_with_replacement(range(3), 2))
"""Axes of the second moments, in their order."""
_FEW = 128
"""Up to so many points are kept without a search for the corners of their hull."""
_SLAB = 2**22
"""Voxels whose coordinates are made at once."""


@dataclass(frozen=True)
class Measures:
    """The objects of a block; a row for each id that has a voxel or vertex there."""

    corner: Integers
    """(3,): where the block begins."""
    ids: Integers
    voxels: Integers
    sums: Integers
    """(n, 3): of z, y and x over the voxels, from the corner."""
    squares: Integers
    """(n, 6): of their products, in the order of ``PAIRS``."""
    box: Integers
    """(n, 6): first z, y, x, then one past the last, in the volume."""
    area: Integers
    """Of the surface, in parts of ``crofton``."""
    surface: Integers
    """(n, 6): first and last vertex, along z, y and x; the last before the first where there is none."""
    hull_ids: Integers
    hull: Integers
    """(m, 3): vertices that are corners of the hull of the block's vertices of an id, and maybe others."""

    def arrays(self) -> dict[str, Integers]:
        """Return the columns, to be saved."""
        return dict(vars(self))


def flat(shape: Sequence[int]) -> bool:
    """Tell whether a volume is one slice, whose objects have areas and perimeters."""
    return shape[0] == 1


def sides(spacing: Sequence[float], shape: Sequence[int]) -> tuple[float, ...]:
    """Return the sides of a voxel that count: of one slice, those of its pixels."""
    return tuple(spacing[-2:] if flat(shape) else spacing)


def read_around(read: Callable[[Box], NDArray[Any]], box: Box, shape: Sequence[int]) -> NDArray[Any]:
    """Return the ids of a block and of the voxels that its vertices need: one more on each side, 0 beyond the volume.

    Args:
        read: returns the ids (z, y, x) of a box.
        box: the block.
        shape: of the volume.
    """
    parts, pads = [], []
    for axis, (part, n) in enumerate(zip(box, shape, strict=True)):
        deep = not (axis == 0 and flat(shape))
        parts.append(slice(max(0, part.start - 1) if deep else part.start, part.stop))
        pads.append((int(deep and part.start == 0), int(deep and part.stop == n)))
    return np.pad(read((parts[0], parts[1], parts[2])), pads)


def inside(around: NDArray[Any], box: Box, shape: Sequence[int]) -> NDArray[Any]:
    """Return the block alone, from what ``read_around`` returned."""
    first = 0 if flat(shape) else 1
    z, y, x = (part.stop - part.start for part in box)
    return around[first : first + z, 1 : 1 + y, 1 : 1 + x]


def measure(around: NDArray[Any], box: Box, shape: Sequence[int], spacing: Sequence[float]) -> Measures:
    """Measure the objects of a block.

    Args:
        around: what ``read_around`` returned.
        box: the block.
        shape: of the volume.
        spacing: along z, y and x.
    """
    corner = (box[0].start, box[1].start, box[2].start)
    vertices = find_vertices(around, corner, flat(shape))
    ids = inside(around, box, shape)
    known = np.zeros(int(around.max(initial=0)) + 1, bool)
    known[ids] = True
    known[vertices.ids] = True
    known[0] = False
    used, rows = np.flatnonzero(known), np.cumsum(known) - 1
    n = len(used)
    voxels, sums, squares = _moments(ids, rows, n)
    of_vertex = rows[vertices.ids]
    area = np.zeros(n, np.int64)
    np.add.at(area, of_vertex, crofton(sides(spacing, shape))[0][vertices.codes])
    surface, hull_rows, hull = _extents(of_vertex, vertices.points, n)
    boxes = _boxes(ids, rows, n, corner)
    begin = np.array(corner, np.int64)
    return Measures(begin, used, voxels, sums, squares, boxes, area, surface, used[hull_rows], hull)


def _extents(of_vertex: Integers, points: NDArray[np.int32], n: int) -> tuple[Integers, Integers, Integers]:
    """Return first and last vertex of each of n rows, and the corners of their hulls: row and vertex of each."""
    surface, corners = no_boxes(n), [np.zeros((0, 3), np.int64)]
    surface[:, 3:] = -1
    rows = [np.zeros(0, np.int64)]
    for row, of_row in groups(of_vertex, points):
        surface[row] = [*of_row.min(0), *of_row.max(0)]
        corners.append(extremes(of_row))
        rows.append(np.full(len(corners[-1]), row))
    return surface, np.concatenate(rows), np.concatenate(corners)


def _moments(ids: NDArray[Any], rows: Integers, n: int) -> tuple[Integers, Integers, Integers]:
    voxels, sums, squares = np.zeros(n, np.int64), np.zeros((n, 3), np.int64), np.zeros((n, len(PAIRS)), np.int64)
    depth = max(1, _SLAB // max(1, ids[0].size))
    for start in range(0, len(ids), depth):
        slab = ids[start : start + depth]
        places = np.nonzero(slab)
        of_voxel = rows[slab[places]]
        coordinates = [axis.astype(np.float64) for axis in places]
        coordinates[0] += start
        voxels += np.bincount(of_voxel, minlength=n)
        for axis in range(3):  # sums of whole numbers below 2^53 are exact
            sums[:, axis] += np.bincount(of_voxel, coordinates[axis], n).astype(np.int64)
        for number, (one, other) in enumerate(PAIRS):
            products = coordinates[one] * coordinates[other]
            squares[:, number] += np.bincount(of_voxel, products, n).astype(np.int64)
    return voxels, sums, squares


def no_boxes(count: int) -> Integers:
    """Return (count, 6) empty boxes, which every voxel extends."""
    return np.tile(np.array([np.iinfo(np.int64).max] * 3 + [0] * 3, np.int64), (count, 1))


def _boxes(ids: NDArray[Any], rows: Integers, n: int, corner: Sequence[int]) -> Integers:
    boxes = no_boxes(n)
    numbers = np.append(0, rows[1:] + 1).astype(np.int32)  # of ids that do not occur, whatever
    for row, box in enumerate(ndimage.find_objects(numbers[ids], n)):
        if box is not None:
            boxes[row] = [*(part.start for part in box), *(part.stop for part in box)]
            boxes[row] += np.array([*corner, *corner])
    return boxes


def groups(keys: Integers, values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each key, in ascending order, with its values in theirs."""
    order = np.argsort(keys, kind="stable")
    unique, first = np.unique(keys[order], return_index=True)
    for key, part in zip(unique, np.split(order, first[1:]), strict=bool(len(unique))):
        yield int(key), values[part]


def extremes(points: NDArray[Any]) -> Integers:
    """Return the points (n, 3) that may be corners of the convex hull of all, and perhaps others."""
    points = np.asarray(points, np.int64)
    if len(points) <= _FEW:
        return points
    order = np.lexsort(points.T[::-1])
    points = points[order]
    new = np.any(np.diff(points[:, :2], axis=0) != 0, axis=1)
    points = points[np.append(True, new) | np.append(new, True)]  # first and last of each line along x
    wide = np.ptp(points, axis=0) > 0
    if len(points) <= _FEW or wide.sum() < 2:
        return points
    try:
        corners: Integers = np.sort(ConvexHull(points[:, wide]).vertices)
        return points[corners]
    except QhullError:  # all in an oblique plane
        return points


def longest(points: Integers, steps: NDArray[np.float64]) -> float:
    """Return the largest distance between two points (n, 3)."""
    places = extremes(points) * steps
    most = 0.0
    for first in range(0, len(places), 256):
        apart = places[first : first + 256, None] - places[None]
        most = max(most, float(np.einsum("ijk,ijk->ij", apart, apart).max()))
    return float(np.sqrt(most))


@dataclass(frozen=True)
class Totals:
    """The objects of the volume; row 0 is id 1."""

    voxels: Integers
    box: Integers
    """(n, 6), as in ``Measures``."""
    sums: Integers
    """(n, 3): from the box's first voxel."""
    squares: Integers
    """(n, 6): the same."""
    area: Integers
    hull_ids: Integers
    hull: Integers


def total(parts: Sequence[Measures], most: int) -> Totals:
    """Add up what blocks measured, for the ids from 1 to ``most``. Exact while extent^2 times voxels is below 2^63."""
    box = no_boxes(most + 1)
    for part in parts:  # an id occurs once in each
        box[part.ids, :3] = np.minimum(box[part.ids, :3], part.box[:, :3])
        box[part.ids, 3:] = np.maximum(box[part.ids, 3:], part.box[:, 3:])
    voxels, area = np.zeros(most + 1, np.int64), np.zeros(most + 1, np.int64)
    sums, squares = np.zeros((most + 1, 3), np.int64), np.zeros((most + 1, len(PAIRS)), np.int64)
    for part in parts:
        by = np.where(part.voxels[:, None] > 0, part.corner - box[part.ids, :3], 0)
        voxels[part.ids] += part.voxels
        area[part.ids] += part.area
        sums[part.ids] += part.sums + part.voxels[:, None] * by
        for number, (a, b) in enumerate(PAIRS):
            moved = by[:, a] * part.sums[:, b] + by[:, b] * part.sums[:, a] + part.voxels * by[:, a] * by[:, b]
            squares[part.ids, number] += part.squares[:, number] + moved
    hull_ids = np.concatenate([np.zeros(0, np.int64), *(part.hull_ids for part in parts)])
    hull = np.concatenate([np.zeros((0, 3), np.int64), *(part.hull for part in parts)])
    return Totals(voxels[1:], box[1:], sums[1:], squares[1:], area[1:], hull_ids, hull)
