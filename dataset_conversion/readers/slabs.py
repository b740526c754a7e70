"""Volumes in slabs: one way through arrays, and through files that are too large to be read whole.

A slab is some consecutive planes (n, Y, X). Whatever looks at a volume, converts or writes it does so with

    for z, slab in slabs(volume): ...

so that no array of the whole volume's size comes about beside the volume, and none at all for ``Slabs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WHOLE = 1 << 27
"""Bytes of a decoded volume up to which a file is read whole."""
SLAB = 1 << 25
"""Bytes of a slab, unless one plane, or the depth of the file's chunks, needs more."""


@dataclass(frozen=True)
class Slabs:
    """A volume that stays in its file: it is read, from the first plane to the last, each time it is gone through."""

    shape: tuple[int, ...]
    """(Z, Y, X), and (Z, Y, X, C) for colours."""
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]
    """Open the file and yield its planes in order, some at a time, (n, Y, X) or (n, Y, X, C)."""

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Return the number of voxels."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes that it would take as an array."""
        return self.size * self.dtype.itemsize


Volume: TypeAlias = Array | Slabs
"""(Y, X) or (Z, Y, X); ``Slabs`` have three axes, and four with colours."""


def slabs(volume: Volume) -> Iterator[tuple[int, Array]]:
    """Yield the first plane's number and the planes of each slab, which are not to be changed; a 2D image is one plane.

    Raises:
        RetinaError: for a file that cannot be read.
    """
    z = 0
    for block in volume.blocks() if isinstance(volume, Slabs) else (volume if volume.ndim > 2 else volume[None],):
        step = max(1, SLAB * len(block) // max(1, block.nbytes))
        for first in range(0, len(block), step):
            yield z + first, block[first : first + step]
        z += len(block)


def planes(volume: Volume) -> Iterator[Array]:
    """Yield the planes (Y, X) one by one."""
    for _, slab in slabs(volume):
        yield from slab


def mapped(
    volume: Volume, function: Callable[[int, Array], Array], dtype: npt.DTypeLike, colours: bool = False
) -> Volume:
    """Return a volume with a function applied to it, of ``Slabs`` whenever they are read.

    Args:
        volume: any.
        function: takes the first plane's number and the planes of a slab; returns planes of the same shape.
        dtype: of what it returns.
        colours: whether it drops the last axis.
    """
    shape = volume.shape[:-1] if colours else volume.shape
    if isinstance(volume, Slabs):
        return Slabs(shape, np.dtype(dtype), lambda: (function(z, slab) for z, slab in slabs(volume)))
    result = np.empty(shape, dtype)
    stack = result if volume.ndim > 2 else result[None]
    for z, slab in slabs(volume):
        stack[z : z + len(slab)] = function(z, slab)
    return result


def whole(volume: Volume) -> Array:
    """Return a volume as an array."""
    if not isinstance(volume, Slabs):
        return volume
    result = np.empty(volume.shape, volume.dtype)
    for z, slab in slabs(volume):
        result[z : z + len(slab)] = slab
    return result


def is_large(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bool:
    """Tell whether a volume of several planes is too large to be read whole."""
    return len(shape) > 2 and shape[0] > 1 and prod(shape) * np.dtype(dtype).itemsize > WHOLE


def plane_ranges(shape: tuple[int, ...], dtype: npt.DTypeLike, depth: int = 1, first: int = 0) -> Iterator[range]:
    """Yield the planes of each slab of a volume.

    Args:
        shape: (Z, ...).
        dtype: of a voxel.
        depth: planes that a file unpacks at once; a slab ends between such.
        first: number of the first plane in the file.
    """
    planes_at_once = SLAB // max(1, prod(shape[1:]) * np.dtype(dtype).itemsize)
    step = max(depth, planes_at_once // depth * depth)
    start = 0
    while start < shape[0]:
        stop = min(shape[0], (start + first) // depth * depth + step - first)
        yield range(start, stop)
        start = stop
