"""What is known of a stored volume before a voxel is read: its levels, their voxels and where they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

Point = tuple[float, float, float]
"""A place along z, y and x."""
ORIGIN: Point = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Level:
    """One resolution of a volume."""

    path: str
    """Inside the store; empty where the store is the array."""
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int]
    """What is decompressed at once."""
    dtype: str
    """Of the grey levels, as NumPy names it."""
    spacing: Spacing
    """nm where the metadata state a unit."""
    leading: int
    """Axes of one entry before z."""
    origin: Point = field(default=ORIGIN, repr=False)
    """Where the middle of the first voxel is, in the unit of the spacing. Digests of outputs are made without it."""

    @property
    def nbytes(self) -> int:
        """Return the uncompressed size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Volume:
    """A stored volume: its levels, finest first."""

    address: str
    version: str | None
    """Of OME-Zarr, or N5; None: an array without metadata on the size of its voxels."""
    levels: tuple[Level, ...]
    digest: str
    """Of the metadata: two volumes of equal size seldom share it."""

    @property
    def name(self) -> str:
        """Return the last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    def level(self, path: str) -> Level:
        """Return a level by its path; an array, which is the only one and has none, is level 0 too, and ``.``.

        Raises:
            RetinaError: if there is none of that path.
        """
        for level in self.levels:
            if path == level.path or (not level.path and path in ("0", ".")):
                return level
        raise RetinaError(
            f"{self.address} has no level {path}; it has {shorten(level.path or 0 for level in self.levels)}"
        )


def shifted(origin: Point, spacing: Spacing, voxels: Sequence[float]) -> Point:
    """Return the place so many voxels from an origin along z, y and x."""
    z, y, x = (at + step * n for at, step, n in zip(origin, spacing, voxels, strict=True))
    return z, y, x


def checked(address: str, path: str, array: Any, spacing: Spacing, origin: Point, axes: int | None = None) -> Level:
    """Return the level that an array is.

    Args:
        address: of the volume.
        path: of the array in it.
        array: with shape, dtype and chunks, as zarr has them.
        spacing: of its voxels.
        origin: of its first one.
        axes: that its metadata name; None: as many as it has.

    Raises:
        RetinaError: for an array that holds no grey levels along z, y and x.
    """
    shape, dtype = tuple(int(n) for n in array.shape), np.dtype(array.dtype)
    leading = (len(shape) if axes is None else axes) - 3
    if len(shape) != leading + 3 or leading < 0:
        raise RetinaError(f"{address}/{path} has the shape {shape}; expected (z, y, x), as its metadata say")
    if prod(shape[:leading]) != 1:
        raise RetinaError(
            f"{address}/{path} has the shape {shape}, so {prod(shape[:leading])} times or channels; expected one. Save "
            "each as a volume of its own"
        )
    if dtype.kind not in "iufb" or prod(shape) == 0:
        raise RetinaError(f"{address}/{path} holds {dtype} of shape {shape}; expected grey levels along z, y and x")
    z, y, x = shape[leading:]
    a, b, c = (min(int(n), side) for n, side in zip(array.chunks[leading:], (z, y, x), strict=True))
    return Level(path, (z, y, x), (a, b, c), dtype.newbyteorder("=").name, spacing, leading, origin)


def respaced(levels: tuple[Level, ...], spacing: Sequence[float]) -> tuple[Level, ...]:
    """Return levels of which the finest has this spacing in nm; the others, and all places, are scaled alike."""
    own = Spacing.of(spacing, NANOMETRES)
    factors = [new / old for new, old in zip(own, levels[0].spacing, strict=True)]

    def scaled(values: Sequence[float]) -> Point:
        z, y, x = (value * factor for value, factor in zip(values, factors, strict=True))
        return z, y, x

    return tuple(
        replace(
            level, spacing=Spacing.of(scaled(tuple(level.spacing)), NANOMETRES), origin=scaled(level.origin)
        )
        for level in levels
    )  # fmt: skip


def digest_of(attributes: Mapping[str, Any], levels: tuple[Level, ...]) -> str:
    """Return the digest of a volume's metadata."""
    text = json.dumps([dict(attributes), repr(levels)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
