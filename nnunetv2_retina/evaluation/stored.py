"""Pairs of label volumes in Zarr stores: opened and checked, read box by box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.pairs import is_close, shown
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.ome_zarr import StoredArray, is_zarr, open_volume, volume_stem
from nnunetv2_retina.images.spacing import Spacing

LEVEL = "::"
"""Between a store and the path of a level in it, as in ``retina_convert folder``."""
BLOCK = 2**24
"""Voxels of a block."""
_UNSTATED = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class StoredPair:
    """A prediction and a ground truth of one shape."""

    name: str
    prediction: StoredArray
    truth: StoredArray
    spacing: Spacing
    """Of the ground truth or, of an array without metadata, of the prediction; 1 along each axis if neither says it."""
    is_known: bool
    """Whether one says it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the lengths along z, y and x."""
        return self.truth.level.shape

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return prediction and ground truth (z, y, x) of a box.

        Raises:
            RetinaError: if it cannot be read.
        """
        return self.prediction.read(box), self.truth.read(box)

    def blocks(self, side: tuple[int, int, int] | None = None) -> Iterator[Box]:
        """Yield the boxes that make up the volume, in raster order; by default whole chunks, up to ``BLOCK`` voxels."""
        sides = side or _block(self.shape, self.truth.level.chunks)
        for corner in product(*(range(0, n, step) for n, step in zip(self.shape, sides, strict=True))):
            z, y, x = (slice(at, min(at + s, n)) for at, s, n in zip(corner, sides, self.shape, strict=True))
            yield z, y, x


def is_stored(path: str | Path) -> bool:
    """Tell whether a path names a Zarr store, or a level of one."""
    return is_zarr(str(path).partition(LEVEL)[0])


def open_pair(prediction: str | Path, truth: str | Path) -> StoredPair:
    """Open two label volumes.

    Args:
        prediction: an OME-Zarr image of labels or a Zarr array; the finest level, unless ``PATH::LEVEL`` names one.
        truth: the same.

    Raises:
        RetinaError: if one cannot be opened or holds no labels, they are one, or differ in shape or spacing.
    """
    for one, other in ((prediction, truth), (truth, prediction)):
        if not is_stored(one):
            raise RetinaError(
                f"{other} is a Zarr volume, {one} is not; expected two Zarr volumes, or two folders of label files. "
                "Give both alike"
            )
    (first, known), (second, has_own) = _open(prediction), _open(truth)
    if Path(first.path).resolve() == Path(second.path).resolve():
        raise RetinaError(
            f"prediction and ground truth are both {truth}: every score would be 1. Give two volumes, such as the "
            "output of retina_volume predict and its ground truth"
        )
    if first.level.shape != second.level.shape:
        raise RetinaError(
            f"the prediction has shape {first.level.shape}, the ground truth {second.level.shape} (z, y, x); expected "
            f"the same. Is {prediction} of this volume, neither cropped nor of another level? "
            f"PATH{LEVEL}LEVEL chooses one"
        )
    spacing = second.level.spacing if has_own or not known else first.level.spacing
    if known and has_own and not is_close("spacing", tuple(first.level.spacing), tuple(spacing), spacing):
        raise RetinaError(
            f"the prediction has spacing {shown(tuple(first.level.spacing))}, the ground truth {shown(tuple(spacing))} "
            f"(z, y, x); expected the same. Are {prediction} and {truth} of one image and level?"
        )
    name = volume_stem(Path(str(truth).partition(LEVEL)[0].rstrip("/")))
    return StoredPair(name, first, second, spacing, known or has_own)


def _open(path: str | Path) -> tuple[StoredArray, bool]:
    """Open a level; return it, and whether it has a spacing."""
    address, _, level = str(path).partition(LEVEL)
    volume = open_volume(address, unstated=_UNSTATED)
    stored = StoredArray(address, volume.level(level) if level else volume.levels[0])
    if np.dtype(stored.level.dtype).kind not in "biu":
        raise RetinaError(
            f"{path} holds {stored.level.dtype}; expected whole numbers (label values). Is it the image, or "
            "probabilities? Give the labels"
        )
    return stored, volume.version is not None


@lru_cache(maxsize=1)
def _block(shape: tuple[int, int, int], chunk: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return whole chunks of at most ``BLOCK`` voxels, at least one, as near to a cube as they get."""
    sides = list(chunk)
    while True:
        open_axes = [axis for axis in range(3) if sides[axis] < shape[axis]]
        if not open_axes:
            break
        axis = min(open_axes, key=lambda number: sides[number])
        larger = [side * 2 if number == axis else side for number, side in enumerate(sides)]
        if prod(larger) > BLOCK:
            break
        sides = larger
    return sides[0], sides[1], sides[2]
