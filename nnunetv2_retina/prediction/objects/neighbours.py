"""The nearest neighbour of each object: from surface to surface, exact, with the surfaces of a few blocks in memory.

The distance of two voxels is that of their nearest corners, so that of two objects is that of their nearest vertices
(``objects.vertices``). An object's vertices in one block are a part; pairs of parts are looked at in the order of the
distance of their boxes, until no nearer one can come. The result does not depend on the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunetv2_retina.images.box import Box
from nnunetv2_retina.prediction.objects.measures import Measures, flat, groups, read_around
from nnunetv2_retina.prediction.objects.vertices import Integers, find_vertices

HELD = 8
"""Blocks whose vertices are held at once."""
_DIGITS = 9
"""Significant digits to which distances are compared."""
_NEAR = 8
"""Parts whose boxes are compared with each part's for a first bound."""


@dataclass(frozen=True)
class Nearest:
    """The nearest neighbours; a row for each id that was asked for."""

    ids: Integers
    other: Integers
    """Id of the nearest other object; 0 if there is none."""
    distance: NDArray[np.float64]
    """NaN if there is none."""


class Parts:
    """The parts of all objects.

    Args:
        measures: of every block.
        steps: side of a voxel along z, y and x.
    """

    def __init__(self, measures: Sequence[Measures], steps: Sequence[float]) -> None:
        rows = [np.flatnonzero(part.surface[:, 3] >= 0) for part in measures]
        self.steps = np.array(steps, np.float64)
        self.owner = np.concatenate(
            [np.zeros(0, np.int64), *(p.ids[row] for p, row in zip(measures, rows, strict=True))]
        )
        self.block = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        boxes = np.concatenate(
            [np.zeros((0, 6), np.int64), *(part.surface[row] for part, row in zip(measures, rows, strict=True))]
        )
        self._low, self._high = boxes[:, :3] * self.steps, boxes[:, 3:] * self.steps
        self._centre = (self._low + self._high) / 2
        self._radius = np.linalg.norm(self._high - self._low, axis=1) / 2
        self._trees = self._by_size()
        self.bound = self._bounds()

    def _by_size(self) -> list[tuple[float, Integers, Any]]:
        """Return the largest radius, the rows and a tree of the centres, of parts of similar sizes."""
        sizes = np.frexp(self._radius)[1]
        rows = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
        return [(float(self._radius[row].max()), row, cKDTree(self._centre[row])) for row in rows]

    def _bounds(self) -> NDArray[np.float64]:
        """Return an upper bound of the distance from each object, by its id, to its neighbour."""
        bound = np.full(int(self.owner.max(initial=0)) + 1, np.inf)
        if len(np.unique(self.owner)) < 2:
            return bound
        _, near = cKDTree(self._centre).query(self._centre, k=min(_NEAR, len(self.owner)))
        for part, rows in enumerate(near):
            others = rows[self.owner[rows] != self.owner[part]]
            if len(others):
                bound[self.owner[part]] = min(bound[self.owner[part]], float(self._furthest(part, others).min()))
        for owner in np.flatnonzero(np.isinf(bound)):
            mine = np.flatnonzero(self.owner == owner)
            if len(mine):
                others = np.flatnonzero(self.owner != owner)
                bound[owner] = self._furthest(int(mine[0]), others).min()
        return bound

    def _furthest(self, part: int, others: Integers) -> NDArray[np.float64]:
        away = np.maximum(self._high[others] - self._low[part], self._high[part] - self._low[others])
        return np.asarray(np.linalg.norm(away, axis=1))

    def gaps(self, part: int, others: Integers) -> NDArray[np.float64]:
        """Return the distances between the box of a part and those of others."""
        apart = np.maximum(self._low[others] - self._high[part], self._low[part] - self._high[others])
        return np.asarray(np.linalg.norm(np.maximum(apart, 0), axis=1))

    def within(self, part: int, reach: float) -> tuple[Integers, NDArray[np.float64]]:
        """Return the parts of other objects whose boxes are no further than ``reach``, the nearest first, and how far
        they are."""
        candidates = [
            row[tree.query_ball_point(self._centre[part], _above(reach + self._radius[part] + most))]
            for most, row, tree in self._trees
        ]
        rows = np.concatenate(candidates).astype(np.int64)
        rows = rows[self.owner[rows] != self.owner[part]]
        gaps = self.gaps(part, rows)
        near = gaps <= _above(reach)
        rows, gaps = rows[near], gaps[near]
        order = np.lexsort((self.owner[rows], gaps))
        return rows[order], gaps[order]


class Surfaces:
    """The vertices of objects, block by block, read again when they are needed.

    Args:
        read: returns the ids (z, y, x) of a box.
        blocks: all of the volume.
        shape: of the volume.
    """

    def __init__(self, read: Callable[[Box], NDArray[Any]], blocks: Sequence[Box], shape: Sequence[int]) -> None:
        self._read, self._blocks, self._shape = read, blocks, shape
        self._of_block = lru_cache(maxsize=HELD)(self._load)

    def points(self, block: int, owner: int) -> NDArray[np.int32]:
        """Return the vertices (n, 3) of an object in a block."""
        return self._of_block(block)[owner]

    def _load(self, block: int) -> dict[int, NDArray[np.int32]]:
        box = self._blocks[block]
        around = read_around(self._read, box, self._shape)
        vertices = find_vertices(around, (box[0].start, box[1].start, box[2].start), flat(self._shape))
        return dict(groups(vertices.ids, vertices.points))


def nearest(parts: Parts, surfaces: Surfaces, blocks: Iterable[int]) -> Nearest:
    """Find the nearest neighbours of the objects of some blocks, as far as their parts there tell.

    Over all blocks, the smallest distance of an object is its own: see ``combine``.
    """
    known: dict[int, tuple[float, int]] = {}
    for block in blocks:
        for part in np.flatnonzero(parts.block == block):
            owner = int(parts.owner[part])
            closest = _nearest_of(int(part), parts, surfaces, known.get(owner, (np.inf, 0)))
            known[owner] = min(known.get(owner, closest), closest)
    ids = np.array(sorted(known), np.int64)
    distances = np.array([known[int(number)][0] for number in ids])
    others = np.array([known[int(number)][1] for number in ids], np.int64)
    return Nearest(ids, others, np.where(others > 0, distances, np.nan))


def _nearest_of(part: int, parts: Parts, surfaces: Surfaces, best: tuple[float, int]) -> tuple[float, int]:
    """Return distance and id of the nearest neighbour of a part, if it is nearer than ``best``."""
    owner = int(parts.owner[part])
    rows, gaps = parts.within(part, min(best[0], float(parts.bound[owner])))
    if not len(rows) or not np.isfinite(parts.bound[owner]):
        return best
    own = surfaces.points(int(parts.block[part]), owner)
    tree = cKDTree(own * parts.steps)
    for row, gap in zip(rows, gaps, strict=True):
        other = int(parts.owner[row])
        if gap > _above(best[0]):
            break
        if gap >= best[0] and other >= best[1] > 0:  # as near at best, and not the lowest id
            continue
        points = surfaces.points(int(parts.block[row]), other)
        distance = _between(tree, own, points, parts.steps, min(best[0], float(parts.bound[owner])))
        best = min(best, (distance, other))
    return best


def _between(
    tree: Any, own: NDArray[np.int32], points: NDArray[np.int32], steps: NDArray[np.float64], reach: float
) -> float:
    """Return the distance between two sets of vertices; infinite if it exceeds ``reach``."""
    limit = _above(reach)
    places = points * steps
    near = np.all((places >= own.min(0) * steps - limit) & (places <= own.max(0) * steps + limit), axis=1)
    if not near.any():
        return float(np.inf)
    apart, index = tree.query(places[near], distance_upper_bound=limit)
    nearest = int(np.argmin(apart))
    if not np.isfinite(apart[nearest]):
        return float(np.inf)
    difference = (points[near][nearest].astype(np.int64) - own[index[nearest]]) * steps
    return float(f"{np.linalg.norm(difference):.{_DIGITS}g}")


def _above(distance: float) -> float:
    """Return a distance that is larger by more than rounding makes of it."""
    return distance * (1 + 1e-6) + 1e-9


def combine(parts: Sequence[Nearest], most: int) -> Nearest:
    """Return the nearest neighbours of the ids from 1 to ``most``, from those of the blocks."""
    distance, other = np.full(most + 1, np.nan), np.zeros(most + 1, np.int64)
    for part in parts:
        now, then = part.distance, distance[part.ids]
        nearer = (now < then) | (np.isnan(then) & ~np.isnan(now)) | ((now == then) & (part.other < other[part.ids]))
        distance[part.ids[nearer]], other[part.ids[nearer]] = now[nearer], part.other[nearer]
    return Nearest(np.arange(1, most + 1), other[1:], distance[1:])
