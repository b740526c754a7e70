"""The surfaces of objects as the corners of voxels on them: what areas, lengths and distances are taken from.

A vertex is a corner between 8 voxels (2D: 4), not all of one object. Vertex (z, y, x) lies before voxel (z, y, x), so
that a volume of n voxels has n + 1 along each axis. A vertex of an object has a code: a number with a bit for each
voxel around it, set if that voxel is the object's. Sums over codes add up over blocks: each vertex is in one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi

Integers = NDArray[np.int64]
UNITS = 2**28
"""Areas are summed as whole numbers, in this part of the largest one a vertex can have: no order changes a sum."""
_AT_ONCE = 2**22
"""Vertices that are looked at together."""


@dataclass(frozen=True)
class Vertices:
    """Vertices on the surfaces of objects; one that several objects share occurs once for each."""

    ids: Integers
    codes: NDArray[np.uint8]
    """Bit j is set if the voxel at ``corners(axes)[j] - 1`` from the vertex is the object's."""
    points: NDArray[np.int32]
    """(n, 3): z, y, x."""


def corners(axes: int) -> list[tuple[int, ...]]:
    """Return the voxels around a vertex, in the order of the bits of a code; 0: before it, 1: after it."""
    return list(product((0, 1), repeat=axes))


def find_vertices(around: NDArray[Any], corner: tuple[int, int, int], flat: bool) -> Vertices:
    """Find the vertices of a block.

    Args:
        around: ids (z, y, x) of the voxels around the block's vertices: one more along each axis than there are
            vertices, with 0 beyond the volume. ``flat``: one slice, as many as there are along z.
        corner: of the first vertex in the volume.
        flat: whether the volume is one slice, of which vertices lie between 4 pixels.
    """
    parts = list(_slabs(around, corner, flat))
    if not parts:
        return Vertices(np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros((0, 3), np.int32))
    return Vertices(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.points for part in parts]),
    )


def _view(slab: NDArray[Any], offset: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    return slab[tuple(slice(first, first + n) for first, n in zip(offset, shape, strict=True))]


def _slabs(around: NDArray[Any], corner: tuple[int, int, int], flat: bool) -> Iterator[Vertices]:
    deep = 0 if flat else 1
    sides = [n - step for n, step in zip(around.shape, (deep, 1, 1), strict=True)]
    if min(sides) < 1:
        return
    depth = max(1, _AT_ONCE // (sides[1] * sides[2]))
    for start in range(0, sides[0], depth):
        stop = min(start + depth, sides[0])
        slab = around[start : stop + deep]
        offsets = [(0, *place) for place in corners(2)] if flat else corners(3)
        views = [_view(slab, offset, (stop - start, sides[1], sides[2])) for offset in offsets]
        mixed = np.zeros(views[0].shape, bool)
        for view in views[1:]:
            mixed |= view != views[0]
        places = np.argwhere(mixed)
        values = np.stack([view[mixed] for view in views], 1)
        for number in range(len(views)):
            own = values[:, number]
            new = own > 0
            for earlier in range(number):
                new &= values[:, earlier] != own
            same = values[new] == own[new, None]
            codes = (same << np.arange(len(views))).sum(1).astype(np.uint8)
            points = places[new] + np.array([start, 0, 0]) + np.array(corner)
            yield Vertices(own[new].astype(np.int64), codes, points.astype(np.int32))


@lru_cache(maxsize=8)
def crofton(steps: tuple[float, ...]) -> tuple[Integers, float]:
    """Return the area (2D: length) that each code stands for, by Crofton's formula.

    An area is twice the mean, over all directions, of how often lines of a direction cross the surface, times the area
    that each line stands for; a length is pi/2 times the mean in the plane. The directions are those between a voxel
    and its neighbours, weighted by their cells in the Voronoi diagram of the sphere (Legland, Kieu and Devaux 2007,
    "Computation of Minkowski measures on 2D and 3D binary images"; as in MorphoLibJ and, in 2D and isotropic, in
    scikit-image's ``perimeter_crofton``).

    Args:
        steps: side of a voxel along each axis: three, or two.

    Returns:
        For each code a whole number, and what 1 of it is worth.
    """
    sides, around = np.array(steps), corners(len(steps))
    numbers = np.arange(2 ** len(around))
    values = np.zeros(len(numbers))
    directions = [step for step in product((-1, 0, 1), repeat=len(steps)) if step > (0,) * len(steps)]
    for step, weight in zip(directions, _weights(np.array(directions) * sides), strict=True):
        share = weight * sides.prod() / np.linalg.norm(step * sides) / 2 ** step.count(0)
        for number, other in _lines(around, step):
            values += share * ((numbers >> number ^ numbers >> other) & 1)
    values *= 2 if len(steps) == 3 else np.pi / 2
    worth = float(values.max()) / UNITS
    return np.rint(values / worth).astype(np.int64), worth


def _lines(around: Sequence[tuple[int, ...]], step: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the positions of the pairs of voxels around a vertex that are a step apart."""
    for number, place in enumerate(around):
        other = tuple(a + b for a, b in zip(place, step, strict=True))
        if other in around:
            yield number, around.index(other)


def _weights(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of all directions that each of these, and its opposite, stands for."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if vectors.shape[1] == 3:
        areas = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()[: len(units)]
        return np.asarray(areas / areas.sum())
    angles = np.arctan2(units[:, 0], units[:, 1]) % np.pi
    order = np.argsort(angles)
    gaps = np.diff(np.append(angles[order], angles[order[0]] + np.pi))
    weights = np.empty(len(angles))
    weights[order] = (gaps + np.roll(gaps, 1)) / (2 * np.pi)
    return weights
