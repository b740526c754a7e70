"""What a block reads: a region of a stored volume with the tiles around it, normalised as nnU-Net does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.prediction.tile_grid import TileGrid
from nnunetv2_retina.volumes.blocks import Shape
from nnunetv2_retina.volumes.moments import BY_EXTREMES, Moments

Normalise = Callable[[NDArray[Any]], NDArray[np.float32]]
_NOTHING = np.zeros((0, 0, 0), np.uint8)


def z_score(moments: Moments) -> Normalise:
    """Return nnU-Net's ``ZScoreNormalization`` with given moments: float32, in the same two steps."""
    return _linear(np.float32(moments.mean), np.float32(max(np.float32(moments.sd), np.float32(1e-8))))


def rescale(moments: Moments) -> Normalise:
    """Return nnU-Net's ``RescaleTo01Normalization`` with the extremes of the whole volume."""
    least = np.float32(moments.least)
    return _linear(least, np.clip(np.float32(moments.most) - least, 1e-8, None))


def _linear(shift: np.float32, scale: np.float32) -> Normalise:
    def normalise(values: NDArray[Any]) -> NDArray[np.float32]:
        image = _as_float(values)
        image -= shift
        image /= scale
        return image

    return normalise


def _as_float(values: NDArray[Any]) -> NDArray[np.float32]:
    image = values.astype(np.float32)  # a copy
    if values.dtype.kind == "f" and not np.isfinite(image.sum()):
        raise RetinaError(
            "the volume holds NaN or infinite values; expected numbers only. Replace them first, or leave them out "
            "with --box"
        )
    return image


def normaliser(scheme: str, properties: dict[str, Any], moments: Moments) -> Normalise:
    """Return a normalisation of nnU-Net's as a function of a part of the volume.

    Args:
        scheme: as plans.json names it.
        properties: ``foreground_intensity_properties_per_channel`` of the plans, of the channel.
        moments: of the volume.

    Raises:
        RetinaError: for a scheme that this cannot compute part by part.
    """
    if scheme == "ZScoreNormalization":
        return z_score(moments)
    if scheme == BY_EXTREMES:
        return rescale(moments)
    if scheme not in ("NoNormalization", "CTNormalization", "RGBTo01Normalization"):
        raise RetinaError(
            f"the model normalises by {scheme}, which needs the whole volume at once. Cut it into files that fit into "
            "memory, and predict those with retina_predict"
        )
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

    by_voxel = getattr(schemes, scheme)(use_mask_for_norm=False, intensityproperties=properties)
    return lambda values: np.asarray(by_voxel.run(_as_float(values)), np.float32)


class BlockSource:
    """A region of a stored volume for ``SlidingWindow``: read with what its tiles touch, held a few slices at a time.

    Args:
        read: returns grey levels (z, y, x) of a box of the cropped volume.
        normalise: grey levels -> float32.
        cropped: shape of the cropped volume.
        region: what is wanted of it.
        patch: rows and columns of a tile.
        step_size: of the tiles.
        chunks: what is decompressed at once, along z, y and x.
        first: where the cropped volume begins in the chunks' grid.
        axis: along which it is cut into slices.
    """

    def __init__(
        self,
        read: Callable[[Box], NDArray[Any]],
        normalise: Normalise,
        cropped: Shape,
        region: Box,
        patch: tuple[int, int],
        step_size: float,
        chunks: Shape,
        first: Shape,
        axis: int = 0,
    ) -> None:
        self._made_of = (read, normalise, cropped, region, patch, step_size, chunks, first)
        self._read, self._normalise, self._axis = read, normalise, axis
        order = [axis, *(other for other in range(3) if other != axis)]
        self._order = order
        self.shape = (1, *(cropped[other] for other in order))
        self._hull = hull(cropped, region, patch, step_size, axis)
        self._depth, self._offset = chunks[axis], first[axis] % chunks[axis]
        self._held: slice = slice(0, 0)
        self._values: NDArray[Any] = _NOTHING

    def turned(self, axis: int) -> BlockSource:
        """Return the same region, its slices along another axis; see ``sliding_window.Source``."""
        return BlockSource(*self._made_of, axis=axis)

    def read(self, slices: slice, rows: slice, columns: slice) -> Tensor:
        """Return (1, slices, rows, columns) float32; see ``sliding_window.Source``."""
        if not (self._held.start <= slices.start and slices.stop <= self._held.stop):
            self._load(slices)
        outer = (self._held, *self._hull[1:])
        place = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip((slices, rows, columns), outer, strict=True)
        )
        return torch.from_numpy(self._normalise(self._values[place]))[None]

    def _load(self, slices: slice) -> None:
        """Hold the slices of whole chunks, as far as they are wanted, so that no chunk is decompressed twice."""
        self._values = _NOTHING  # the memory is given back first
        first = (slices.start + self._offset) // self._depth * self._depth - self._offset
        last = -(-(slices.stop + self._offset) // self._depth) * self._depth - self._offset
        wanted = self._hull[0]
        self._held = slice(max(first, wanted.start), min(last, wanted.stop))
        parts = dict(zip(self._order, (self._held, *self._hull[1:]), strict=True))
        self._values = np.moveaxis(self._read((parts[0], parts[1], parts[2])), self._axis, 0)


def hull(cropped: Shape, region: Box, patch: tuple[int, int], step_size: float, axis: int) -> Sequence[slice]:
    """Return the slices, rows and columns that the tiles of a region cover, cut along ``axis``."""
    across = [other for other in range(3) if other != axis]
    grid = TileGrid((cropped[across[0]], cropped[across[1]]), patch, step_size)
    return [region[axis], *grid.reach(region[across[0]], region[across[1]])]
