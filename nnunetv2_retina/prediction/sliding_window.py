"""nnU-Net's sliding window over the slices of a volume, with many tiles in one forward pass and a bounded accumulator.

Positions of the tiles, Gaussian weights, order of the sums and their type (float16) are those of nnU-Net 2.8.1's
``predict_from_raw_data.py``, so that the logits are the same. What differs: tiles of several slices make one batch, and
logits are handed on slab by slab, so that their memory depends on neither the volume's size nor the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.prediction.settings import SLAB_BYTES

Model = Callable[[Tensor], Tensor]
"""Normalised tiles (n, channels, rows, columns) float32 -> logits (n, heads, rows, columns)."""

CPU_BATCH = 4
"""Tiles at once on a processor: more is not faster there (``benchmarks/inference.py batches``)."""
CUDA_BATCH = 64
"""Tiles at once tried first on a GPU; halved for as long as they do not fit."""


@dataclass(frozen=True)
class Part:
    """Finished logits of some rows of some consecutive slices."""

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

    def parts(self, data: Tensor, whole_slices: bool = False, bytes_per_voxel: int = 8) -> Iterator[Part]:
        """Predict a volume, slice by slice along its first spatial axis, and yield it slab by slab in order.

        Args:
            data: (channels, slices, rows, columns) float32, normalised; may be a view with any strides.
            whole_slices: every part has all rows; otherwise a slice larger than the slab's memory comes in bands.
            bytes_per_voxel: what the caller will need for a voxel of a part (8: an int64 label).
        """
        folds = [_Fold(self, model, data, whole_slices, bytes_per_voxel).parts() for model in self.models]
        for parts in zip(*folds, strict=True):
            part = Part(parts[0].slices, parts[0].rows, _mean([part.logits for part in parts]))
            del parts
            yield part
            del part  # before the next slab is made

    def slab_shape(
        self, data: Tensor, starts: Sequence[int], whole_slices: bool, bytes_per_voxel: int
    ) -> tuple[int, int]:
        """Return how many slices, and how many rows of tiles, make a slab."""
        rows, columns = (max(pair) for pair in zip(data.shape[2:], self.patch_size, strict=True))
        per_voxel = len(self.models) * (2 * self.heads + 4 * data.shape[0]) + bytes_per_voxel
        slices = self.slab_bytes // (per_voxel * rows * columns)
        if slices >= 1 or whole_slices:
            return max(1, min(slices, data.shape[1])), len(starts)
        bands = [
            count
            for count in range(1, len(starts) + 1)
            if (starts[count - 1] + self.patch_size[0]) * columns * per_voxel <= self.slab_bytes
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
    """One model's pass over one volume."""

    def __init__(
        self, window: SlidingWindow, model: Model, data: Tensor, whole_slices: bool, bytes_per_voxel: int
    ) -> None:
        self.window = window
        self.model = model
        self.data = data
        size = tuple(max(pair) for pair in zip(data.shape[2:], window.patch_size, strict=True))
        self.starts = compute_steps_for_sliding_window(size, window.patch_size, window.step_size)
        self.gaussian: Tensor | int = 1
        if window.use_gaussian:
            self.gaussian = compute_gaussian(window.patch_size, 1.0 / 8, 10, device=window.device)
        self.weight = self._total_weight(size)
        self.slices, self.bands = window.slab_shape(data, self.starts[0], whole_slices, bytes_per_voxel)

    @torch.inference_mode()
    def _total_weight(self, size: tuple[int, ...]) -> Tensor:
        """Return the sum of the weights of each pixel's tiles, (rows, columns), the same in every slice."""
        weight = torch.zeros(size, dtype=torch.half, device=self.window.device)
        height, width = self.window.patch_size
        for y in self.starts[0]:
            for x in self.starts[1]:
                weight[y : y + height, x : x + width] += self.gaussian
        return weight

    def parts(self) -> Iterator[Part]:
        """Yield the volume slab by slab; see ``SlidingWindow.parts``."""
        count, rows = self.data.shape[1:3]
        for first in range(0, count, self.slices):
            slices = slice(first, min(first + self.slices, count))
            slab, unpad = self._padded(slices)
            offset, columns = unpad[2].start, unpad[3]
            carry, top = None, 0
            for group in range(0, len(self.starts[0]), self.bands):
                band, bottom = self._band(slab, group, carry, top)
                carry = band[:, :, bottom - top :].clone() if bottom - top < band.shape[2] else None
                begin, end = max(top, offset), min(bottom, offset + rows)
                logits = self._divided(band[:, :, begin - top : end - top], begin, end)
                top = bottom
                part = Part(slices, slice(begin - offset, end - offset), logits[..., columns])
                del band, logits
                yield part
                del part

    @torch.inference_mode()
    def _padded(self, slices: slice) -> tuple[Tensor, tuple[slice, ...]]:
        """Return a slab on the device, at least as large as a tile, and the slices that undo the padding."""
        slab = self.data[:, slices].to(self.window.device, torch.float32)
        padded, unpad = pad_nd_image(slab, self.window.patch_size, "constant", {"value": 0}, True, None)
        return padded, unpad

    @torch.inference_mode()
    def _band(self, slab: Tensor, group: int, carry: Tensor | None, top: int) -> tuple[Tensor, int]:
        """Sum up weighted logits of one group of rows of tiles.

        Args:
            slab: (channels, slices, rows, columns), padded.
            group: first of the group's rows of tiles.
            carry: sums that the group above left for the rows from ``top`` on.
            top: first row of the band.

        Returns:
            Sums (heads, slices, rows of the band, columns), and the row at which they stop being complete.
        """
        window, (height, width) = self.window, self.window.patch_size
        starts = self.starts[0][group : group + self.bands]
        rest = self.starts[0][group + self.bands :]
        sums = torch.zeros(
            (window.heads, slab.shape[1], starts[-1] + height - top, slab.shape[3]),
            dtype=torch.half,
            device=window.device,
        )
        if carry is not None:
            sums[:, :, : carry.shape[2]] = carry
        corners = [(z, y, x) for z in range(slab.shape[1]) for y in starts for x in self.starts[1]]
        done = 0
        while done < len(corners):
            left = len(corners) - done
            size = -(-left // -(-left // window.batch_size))  # batches of nearly equal size
            batch = corners[done : done + size]
            tiles = torch.stack([slab[:, z, y : y + height, x : x + width] for z, y, x in batch])
            logits = window.predict_tiles(self.model, tiles)
            logits *= self.gaussian
            for (z, y, x), tile in zip(batch, logits, strict=True):
                sums[:, z, y - top : y - top + height, x : x + width] += tile
            done += size
        return sums, rest[0] if rest else starts[-1] + height

    @torch.inference_mode()
    def _divided(self, sums: Tensor, begin: int, end: int) -> Tensor:
        logits = torch.div(sums, self.weight[begin:end], out=sums)
        if not all(torch.isfinite(value) for value in torch.aminmax(logits)):
            raise RetinaError(
                "the network's output is no number, or too large for nnU-Net's 16-bit sums. Its training has diverged: "
                "look at progress.png in the model folder and train again"
            )
        return logits


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
