"""nnU-Net's sliding window over the slices of a volume, with many tiles in one forward pass and a bounded accumulator.

Positions of the tiles, Gaussian weights, order of the sums and their type (float16) are those of nnU-Net 2.8.1's
``predict_from_raw_data.py``, so that the logits are the same. What differs: tiles of several slices make one batch, and
logits are handed on slab by slab, so that their memory depends on neither the volume's size nor the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.prediction.settings import SLAB_BYTES
from nnunetv2_retina.prediction.tile_grid import TileGrid, Touching

Model = Callable[[Tensor], Tensor]
"""Normalised tiles (n, channels, rows, columns) float32 -> logits (n, heads, rows, columns)."""

CPU_BATCH = 4
"""Tiles at once on a processor: more is not faster there (``benchmarks/inference.py batches``)."""
CUDA_BATCH = 64
"""Tiles at once tried first on a GPU; halved for as long as they do not fit."""


Region = tuple[slice, slice, slice]
"""Slices, rows and columns of a volume, with both ends."""


class Source(Protocol):
    """A normalised volume that is read part by part."""

    shape: tuple[int, ...]
    """(channels, slices, rows, columns)"""

    def read(self, slices: slice, rows: slice, columns: slice) -> Tensor:
        """Return (channels, slices, rows, columns) float32 of a part; slices have both ends."""

    def turned(self, axis: int) -> Source:
        """Return the same volume, its slices along another axis (0: as it is); the others keep their order."""


class TensorSource:
    """A volume in memory: (channels, slices, rows, columns), with any strides."""

    def __init__(self, data: Tensor) -> None:
        self.data = data
        self.shape = tuple(data.shape)

    def read(self, slices: slice, rows: slice, columns: slice) -> Tensor:
        """Return a view; see ``Source``."""
        return self.data[:, slices, rows, columns]

    def turned(self, axis: int) -> TensorSource:
        """Return a view; see ``Source``."""
        return TensorSource(self.data.movedim(1 + axis, 1))


@dataclass(frozen=True)
class Part:
    """Finished logits of some rows of some consecutive slices, in the columns of the region that was asked for."""

    slices: slice
    rows: slice
    logits: Tensor
    """(heads, slices, rows, columns) float16, on the device."""


class SlidingWindow:
    """Predicts the slices of volumes with one or several models, whose logits are averaged.

    Args:
        models: one for each fold.
        heads: channels of the logits.
        patch_size: rows and columns of a tile.
        step_size: distance of neighbouring tiles, as a share of the patch size; at most that, as in nnU-Net.
        device: where tiles are predicted and logits summed up.
        batch_size: tiles at once; None: what suits the device. Halved whenever memory runs out.
        slab_bytes: memory for one slab.
        use_gaussian: weight the middle of a tile more, as nnU-Net does by default.
    """

    def __init__(
        self,
        models: Sequence[Model],
        heads: int,
        patch_size: Sequence[int],
        step_size: float,
        device: torch.device,
        batch_size: int | None = None,
        slab_bytes: int = SLAB_BYTES,
        use_gaussian: bool = True,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise RetinaError(f"batch size is {batch_size}; expected at least 1 tile. Leave it out to have it chosen")
        if not 0 < step_size <= 1:
            raise RetinaError(f"step size is {step_size}; expected a share of the tile above 0, at most 1")
        self.models = models
        self.heads = heads
        self.patch_size = (int(patch_size[0]), int(patch_size[1]))
        self.step_size = step_size
        self.device = device
        self.batch_size = batch_size or (CUDA_BATCH if device.type == "cuda" else CPU_BATCH)
        self.slab_bytes = slab_bytes
        self.use_gaussian = use_gaussian

    def parts(
        self,
        data: Tensor | Source,
        whole_slices: bool = False,
        bytes_per_voxel: int = 8,
        region: Region | None = None,
    ) -> Iterator[Part]:
        """Predict a volume, slice by slice along its first spatial axis, and yield it slab by slab in order.

        Args:
            data: (channels, slices, rows, columns) float32, normalised; may be a view with any strides, or a source.
            whole_slices: every part has all rows; otherwise a slice larger than the slab's memory comes in bands.
            bytes_per_voxel: what the caller will need for a voxel of a part (8: an int64 label).
            region: what is wanted; the tiles are those of the whole volume. None: everything.
        """
        source = TensorSource(data) if isinstance(data, Tensor) else data
        region = region or (slice(0, source.shape[1]), slice(0, source.shape[2]), slice(0, source.shape[3]))
        folds = [_Fold(self, model, source, region, whole_slices, bytes_per_voxel).parts() for model in self.models]
        for parts in zip(*folds, strict=True):
            part = Part(parts[0].slices, parts[0].rows, _mean([part.logits for part in parts]))
            del parts
            yield part
            del part  # before the next slab is made

    def slab_shape(
        self, channels: int, depth: int, tiles: Touching, whole_slices: bool, bytes_per_voxel: int
    ) -> tuple[int, int]:
        """Return how many of ``depth`` slices, and how many rows of tiles, make a slab."""
        rows, columns = (part.stop - part.start for part in tiles.canvas)
        starts = tiles.starts[0]
        per_voxel = len(self.models) * (2 * self.heads + 4 * channels) + bytes_per_voxel
        slices = self.slab_bytes // (per_voxel * rows * columns)
        if slices >= 1 or whole_slices:
            return max(1, min(slices, depth)), len(starts)
        bands = [
            count
            for count in range(1, len(starts) + 1)
            if (starts[count - 1] - starts[0] + self.patch_size[0]) * columns * per_voxel <= self.slab_bytes
        ]
        return 1, max(bands, default=1)

    @torch.inference_mode()
    def predict_tiles(self, model: Model, tiles: Tensor) -> Tensor:
        """Return the logits of a batch of tiles; in smaller batches, from now on, if memory does not suffice.

        Raises:
            RetinaError: if it does not suffice for a single tile.
        """
        done: list[Tensor] = []
        start = 0
        while start < len(tiles):
            batch = tiles[start : start + self.batch_size]
            logits = self._attempt(model, batch)
            if logits is None:
                self.batch_size = len(batch) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            done.append(logits)
            start += len(batch)
        return done[0] if len(done) == 1 else torch.cat(done)

    def _attempt(self, model: Model, tiles: Tensor) -> Tensor | None:
        """Return the logits of the tiles, or None if they are several and memory does not suffice."""
        try:
            return model(tiles)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(tiles) == 1:
                raise RetinaError(
                    f"not enough memory on {self.device} for one tile of {self.patch_size[0]} x {self.patch_size[1]}. "
                    "See that no other program uses it, or add: -device cpu"
                ) from error
            return None


class _Fold:
    """One model's pass over one volume, or a region of it."""

    def __init__(
        self, window: SlidingWindow, model: Model, source: Source, region: Region, whole_slices: bool, extra: int
    ) -> None:
        self.window = window
        self.model = model
        self.source = source
        self.region = region
        rows, columns = source.shape[2:]
        self.grid = TileGrid((rows, columns), window.patch_size, window.step_size)
        self.tiles = self.grid.touching(*region[1:])
        self.gaussian: Tensor | int = 1
        if window.use_gaussian:
            self.gaussian = compute_gaussian(window.patch_size, 1.0 / 8, 10, device=window.device)
        self.weight = self._total_weight()
        self.alone = source.shape[1] * len(self.grid.starts[0]) * len(self.grid.starts[1]) == 1
        depth = region[0].stop - region[0].start
        self.slices, self.bands = window.slab_shape(source.shape[0], depth, self.tiles, whole_slices, extra)

    @torch.inference_mode()
    def _total_weight(self) -> Tensor:
        """Return the sum of the weights of each wanted pixel's tiles, (rows, columns), the same in every slice."""
        tiles, (height, width) = self.tiles, self.window.patch_size
        top, left = tiles.canvas[0].start, tiles.canvas[1].start
        shape = [part.stop - part.start for part in tiles.canvas]
        weight = torch.zeros(shape, dtype=torch.half, device=self.window.device)
        for y in tiles.starts[0]:
            for x in tiles.starts[1]:
                weight[y - top : y - top + height, x - left : x - left + width] += self.gaussian
        return weight[_shifted(tiles.rows, -top), _shifted(tiles.columns, -left)]

    def parts(self) -> Iterator[Part]:
        """Yield the region slab by slab; see ``SlidingWindow.parts``."""
        tiles, height = self.tiles, self.window.patch_size[0]
        left, offset = tiles.canvas[1].start, self.grid.offset[0]
        for first in range(self.region[0].start, self.region[0].stop, self.slices):
            slices = slice(first, min(first + self.slices, self.region[0].stop))
            carry = None
            for group in range(0, len(tiles.starts[0]), self.bands):
                starts, rest = tiles.starts[0][group : group + self.bands], tiles.starts[0][group + self.bands :]
                top, bottom = starts[0], rest[0] if rest else starts[-1] + height  # the sums stop being complete there
                sums = self._sums(slices, starts, carry)
                carry = sums[:, :, bottom - top :].clone() if bottom - top < sums.shape[2] else None
                wanted = slice(max(top, tiles.rows.start), min(bottom, tiles.rows.stop))
                if wanted.start >= wanted.stop:  # rows above the region
                    continue
                logits = self._divided(sums[:, :, _shifted(wanted, -top), _shifted(tiles.columns, -left)], wanted)
                part = Part(slices, _shifted(wanted, -offset), logits)
                del sums, logits
                yield part
                del part

    @torch.inference_mode()
    def _padded(self, slices: slice, starts: Sequence[int]) -> Tensor:
        """Return what some rows of tiles cover, on the device: (channels, slices, rows, columns) float32."""
        rows = slice(starts[0], starts[-1] + self.window.patch_size[0])
        slab = self.source.read(slices, *self.grid.unpadded(rows, self.tiles.canvas[1]))
        slab = slab.to(self.window.device, torch.float32)
        padded: Tensor = pad_nd_image(slab, self.window.patch_size, "constant", {"value": 0}, False, None)
        return padded

    @torch.inference_mode()
    def _sums(self, slices: slice, starts: Sequence[int], carry: Tensor | None) -> Tensor:
        """Sum up the weighted logits of some rows of tiles.

        Args:
            slices: of the volume.
            starts: first row of each row of tiles.
            carry: sums that the tiles above left in the first rows.

        Returns:
            (heads, slices, rows, columns) of what the tiles cover.
        """
        window, (height, width) = self.window, self.window.patch_size
        slab = self._padded(slices, starts)
        sums = torch.zeros((window.heads, *slab.shape[1:]), dtype=torch.half, device=window.device)
        if carry is not None:
            sums[:, :, : carry.shape[2]] = carry
        top, left = starts[0], self.tiles.canvas[1].start
        corners = [(z, y - top, x - left) for z in range(slab.shape[1]) for y in starts for x in self.tiles.starts[1]]
        done = 0
        while done < len(corners):
            left_over = len(corners) - done
            size = -(-left_over // -(-left_over // window.batch_size))  # batches of nearly equal size
            batch = corners[done : done + size]
            tiles = torch.stack([slab[:, z, y : y + height, x : x + width] for z, y, x in batch])
            if len(batch) == 1 < window.batch_size and not self.alone:
                # convolutions round otherwise for a single tile, and a small region has fewer tiles than the volume
                tiles = tiles.expand(2, -1, -1, -1)
            logits = window.predict_tiles(self.model, tiles)[: len(batch)]
            logits *= self.gaussian
            for (z, y, x), tile in zip(batch, logits, strict=True):
                sums[:, z, y : y + height, x : x + width] += tile
            done += size
        return sums

    @torch.inference_mode()
    def _divided(self, sums: Tensor, rows: slice) -> Tensor:
        logits = torch.div(sums, self.weight[_shifted(rows, -self.tiles.rows.start)], out=sums)
        if not all(torch.isfinite(value) for value in torch.aminmax(logits)):
            raise RetinaError(
                "the network's output is no number, or too large for nnU-Net's 16-bit sums. Its training has diverged: "
                "look at progress.png in the model folder and train again"
            )
        return logits


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


@torch.inference_mode()
def _mean(logits: list[Tensor]) -> Tensor:
    """Return the mean over the folds, in nnU-Net's order and type."""
    total = logits[0]
    for other in logits[1:]:
        total += other
    if len(logits) > 1:
        total /= len(logits)
    return total


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
