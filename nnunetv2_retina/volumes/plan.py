"""Before a run: which level, how large the blocks are, how much memory, how many tiles, how long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch

from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.levels import Level, Volume
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.label_grid import label_type
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.tile_grid import TileGrid
from nnunetv2_retina.volumes.blocks import Block, Shape, candidates, describe, size
from nnunetv2_retina.volumes.source import hull

TOLERANCE = 0.01
"""Relative difference between a level's spacing and the model's that passes for none."""
BASE = 800 << 20
"""Bytes of a worker before its first block: interpreter, torch, nnU-Net and a batch of tiles on a processor, for
a network of a few MB of weights; add those of larger ones; measured by ``benchmarks/volumes.py gate``."""


def choose_level(volume: Volume, wanted: str, plan: Spacing | None) -> tuple[Level, str]:
    """Return the level to predict, and why.

    Args:
        volume: with its levels.
        wanted: a level's path, or ``auto``.
        plan: the model's spacing; None: not known.

    Raises:
        RetinaError: if there is no such level, or none at the model's spacing.
    """
    if wanted != "auto":
        return volume.level(wanted), "as asked for"
    if plan is None:
        return volume.levels[0], "the finest; the model states no spacing to compare with"
    for level in volume.levels:
        if fits(level.spacing, plan):
            return level, f"at the model's spacing, {plan.y:g} x {plan.x:g}"
    finest = " x ".join(f"{step:g}" for step in volume.levels[0].spacing)
    raise RetinaError(
        f"no level of {volume.address} is within 1 % of the model's spacing, {plan.y:g} x {plan.x:g} (y, x); the "
        f"finest is {finest} (z, y, x). Write one with retina_volume rescale, correct the metadata with "
        f"--spacing, or insist with --level {volume.levels[0].path or 0}"
    )


def fits(spacing: Spacing, plan: Spacing) -> bool:
    """Tell whether a level is at the model's spacing."""
    pairs = ((spacing.y, plan.y), (spacing.x, plan.x))
    return all(abs(own / expected - 1) <= TOLERANCE for own, expected in pairs)


@dataclass(frozen=True)
class Geometry:
    """What blocks, memory and tiles are computed from."""

    shape: Shape
    """Of the volume, or of its non-zero box where that is known."""
    chunks: Shape
    itemsize: int
    shard: Shape
    orthoplane: bool
    patch: tuple[int, int]
    step_size: float
    heads: int
    folds: int
    slab_bytes: int
    label_bytes: int

    @classmethod
    def of(cls, predictor: Predictor, level: Level, shape: Shape, shard: Shape) -> Geometry:
        """Return the geometry of a run."""
        window = predictor.window
        return cls(
            shape, level.chunks, np.dtype(level.dtype).itemsize, shard, predictor.mode == "orthoplane",
            window.patch_size, window.step_size, window.heads, len(window.models), window.slab_bytes,
            np.dtype(label_type(predictor.nnunet.label_manager)).itemsize,
        )  # fmt: skip

    def bytes_of(self, block: Shape) -> int:
        """Return what a worker holds for a block, at most, beside ``BASE``.

        That is the grey levels of some slices with the tiles around them, what they are decompressed through, one slab
        of logits, the labels and the shard that is written; orthoplane: the sums of the probabilities.
        """
        box = self._middle(block)
        lengths = size(box)
        raw = 0
        for axis in (0, 1, 2) if self.orthoplane else (0,):
            slices, rows, columns = (
                part.stop - part.start for part in hull(self.shape, box, self.patch, self.step_size, axis)
            )
            held = min(slices, 2 * self.chunks[axis])
            canvas = rows * columns
            # weights in float16 for each fold, and a slab of one slice where that is more than its share
            raw = max(raw, held * canvas * self.itemsize + 2 * canvas * self.folds)
        labels = 2 * prod(lengths) * self.label_bytes  # of the non-zero box, and of the block
        shard = 2 * prod(self.shard) * self.label_bytes
        sums = 4 * self.heads * prod(lengths) if self.orthoplane else 0
        decompressed = 16 * prod(self.chunks) * self.itemsize
        return raw + labels + shard + sums + decompressed + 2 * self.slab_bytes

    def _middle(self, block: Shape) -> Box:
        """Return a box of that size in the middle of the volume, where it has tiles on all sides."""
        parts = []
        for n, side in zip(self.shape, block, strict=True):
            length = min(n, side)
            first = (n - length) // 2
            parts.append(slice(first, first + length))
        return parts[0], parts[1], parts[2]

    def tiles(self, blocks: list[Block]) -> int:
        """Return how many tiles the blocks compute, mirrored ones and folds counted once."""
        return sum(self._tiles(block.box) for block in blocks)

    def _tiles(self, box: Box) -> int:
        total = 0
        for axis in (0, 1, 2) if self.orthoplane else (0,):
            rows, columns = (other for other in range(3) if other != axis)
            across = self._touching(rows, columns, 0, box[rows].start, box[rows].stop) * self._touching(
                rows, columns, 1, box[columns].start, box[columns].stop
            )
            total += across * (box[axis].stop - box[axis].start)
        return total

    def _touching(self, rows: int, columns: int, which: int, first: int, last: int) -> int:
        return _count(self.shape[rows], self.shape[columns], self.patch, self.step_size, which, first, last)

    def choose(self, budget: int) -> Shape:
        """Return the largest block that fits.

        Raises:
            RetinaError: if none does.
        """
        needed = 0
        for block in candidates(self.shape, self.shard, self.orthoplane):
            needed = BASE + self.bytes_of(block)
            if needed <= budget:
                return block
        raise RetinaError(
            f"--memory {format_bytes(budget)} a worker is too little: the smallest block, {describe(self.shard)}, "
            f"takes {format_bytes(needed)}. Give more, use fewer workers, or smaller shards with --shard"
        )


@lru_cache(maxsize=1 << 16)
def _count(rows: int, columns: int, patch: tuple[int, int], step: float, which: int, first: int, last: int) -> int:
    grid = _grid(rows, columns, patch, step)
    offset, side = grid.offset[which], grid.patch[which]
    return sum(s < last + offset and s + side > first + offset for s in grid.starts[which])


@lru_cache(maxsize=8)
def _grid(rows: int, columns: int, patch: tuple[int, int], step: float) -> TileGrid:
    return TileGrid((rows, columns), patch, step)


def tiles_per_second(predictor: Predictor) -> float:
    """Return how many tiles, of all folds and mirrored as set, this machine predicts in a second; takes some."""
    window = predictor.window
    tiles = torch.zeros((window.batch_size, predictor.channels, *window.patch_size), device=window.device)
    for model in window.models:
        window.predict_tiles(model, tiles[:1])
    start = time.perf_counter()
    for model in window.models:
        window.predict_tiles(model, tiles)
    if window.device.type == "cuda":
        torch.cuda.synchronize()
    return len(tiles) / (time.perf_counter() - start)
