"""Connected components across blocks: the pieces of each block, the pairs that meet at its faces, their union.

Objects are numbered as ``prediction.instances`` numbers them in memory: class by class, then by first voxel in raster
order. Everything here is arrays in memory; ``volumes.instances`` reads and writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nnunetv2_retina.prediction.objects.measures import no_boxes
from nnunetv2_retina.volumes.blocks import Shape

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """The components of one block, or of several; a row each, number 1 first."""

    label: Integers
    first: Integers
    """Position of the first voxel in the volume, in raster order."""
    voxels: Integers
    box: Integers
    """(n, 6): first z, y, x, then one past the last."""

    def __len__(self) -> int:
        return len(self.label)

    def arrays(self) -> dict[str, Integers]:
        """Return the columns, to be saved."""
        return {"label": self.label, "first": self.first, "voxels": self.voxels, "box": self.box}


def find_pieces(labels: NDArray[Any], corner: Shape, shape: Shape) -> tuple[NDArray[np.uint32], Pieces]:
    """Number the components of a block, connected by faces, each of one class.

    Args:
        labels: (z, y, x); 0 is background.
        corner: where the block begins.
        shape: of the whole volume.

    Returns:
        Numbers from 1 on, (z, y, x), and what is known of each.
    """
    import cc3d

    components, count = cc3d.connected_components(np.ascontiguousarray(labels), connectivity=6, return_N=True)
    numbers: NDArray[np.uint32] = components.astype(np.uint32, copy=False)
    flat = numbers.ravel()
    used = np.flatnonzero(flat)
    first = np.zeros(count + 1, np.int64)
    first[flat[used[::-1]]] = used[::-1]  # the last one written is the first in the block
    first = first[1:]
    voxels = np.bincount(flat, minlength=count + 1)[1:].astype(np.int64)
    places = np.stack(np.unravel_index(first, labels.shape), 1).astype(np.int64) + corner
    boxes = _boxes(numbers.view(np.int32), count, corner)
    raster = (places[:, 0] * shape[1] + places[:, 1]) * shape[2] + places[:, 2]
    return numbers, Pieces(labels.ravel()[first].astype(np.int64), raster, voxels, boxes)


def _boxes(numbers: NDArray[np.int32], count: int, corner: Shape) -> Integers:
    """Return the boxes (count, 6) of the numbers from 1 on, each of which occurs, in the volume."""
    boxes = np.zeros((count, 6), np.int64)
    for row, box in enumerate(ndimage.find_objects(numbers)):
        boxes[row] = [*(part.start for part in box), *(part.stop for part in box)]
    boxes += np.array([*corner, *corner])
    return boxes


def meeting(
    before: NDArray[Any], after: NDArray[Any], labels_before: NDArray[Any], labels_after: NDArray[Any]
) -> NDArray[np.int64]:
    """Return the pairs of numbers (n, 2) of pieces of one class that touch across a face between two blocks.

    Args:
        before: numbers in the last plane before the face, 0 for background.
        after: numbers in the first plane behind it.
        labels_before: classes in the same plane.
        labels_after: classes in the same plane.
    """
    touch = (before > 0) & (labels_before == labels_after)
    return np.unique(np.stack([before[touch], after[touch]], 1).astype(np.int64), axis=0)


@dataclass(frozen=True)
class Objects:
    """The components of the volume, in the order in which they are numbered."""

    pieces: Pieces
    of_piece: Integers
    """Row of the object of each piece, by the number of the piece in the volume (0 for background: -1)."""


def unite(pieces: Pieces, pairs: NDArray[np.int64]) -> Objects:
    """Return the objects that pieces make.

    Args:
        pieces: of all blocks, one block after the other.
        pairs: (n, 2) of their numbers, from 1 on.
    """
    n = len(pieces)
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0] - 1, pairs[:, 1] - 1)), shape=(n, n))
    count, group = connected_components(graph, directed=False) if n else (0, np.zeros(0, np.int64))
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, group, pieces.first)
    label, voxels = np.zeros(count, np.int64), np.zeros(count, np.int64)
    label[group] = pieces.label
    np.add.at(voxels, group, pieces.voxels)
    box = no_boxes(count)
    np.minimum.at(box[:, :3], group, pieces.box[:, :3])
    np.maximum.at(box[:, 3:], group, pieces.box[:, 3:])
    order = np.lexsort((first, label))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    of_piece = np.full(n + 1, -1, np.int64)
    of_piece[1:] = rank[group]
    return Objects(Pieces(label[order], first[order], voxels[order], box[order]), of_piece)
