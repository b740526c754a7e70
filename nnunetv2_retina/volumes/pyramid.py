"""Coarser levels of a label volume: each voxel is the label that most of those below it have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.images.box import Box
from nnunetv2_retina.volumes.blocks import Block, Shape, cut, moved, size, starts
from nnunetv2_retina.volumes.store import LevelWriter, OutputLevel
from nnunetv2_retina.volumes.tasks import once

_AT_ONCE: Shape = (64, 256, 256)
"""Voxels of the coarser level that are made at once, to bound the memory."""


def shrink(labels: NDArray[Any], factors: Shape) -> NDArray[Any]:
    """Return the most frequent label of each cell; of equally frequent ones, the smallest.

    Args:
        labels: (z, y, x); cells at its end that are cut off are filled up with their last voxels.
        factors: lengths of a cell along z, y and x.
    """
    missing = [(0, -n % factor) for n, factor in zip(labels.shape, factors, strict=True)]
    padded = np.pad(labels, missing, "edge")
    z, y, x = factors
    voxels = [padded[a::z, b::y, c::x] for a in range(z) for b in range(y) for c in range(x)]
    best, most = voxels[0].copy(), np.zeros(voxels[0].shape, np.uint8)
    if all(np.array_equal(voxels[0], other) for other in voxels[1:]):
        return best
    for own in voxels:
        votes = np.zeros(own.shape, np.uint8)
        for other in voxels:
            votes += own == other
        better = (votes > most) | ((votes == most) & (own < best))
        best[better], most[better] = own[better], votes[better]
    return best


@dataclass(frozen=True)
class Shrinking:
    """Makes one level of an image from the one before it."""

    output: str
    image: str
    """Path inside the output, with a slash at the end; empty: the output itself."""
    before: str
    level: OutputLevel
    key: str

    @property
    def stage(self) -> str:
        """Return the stage's name in the journal."""
        return f"level{self.image.replace('/', '-')}{self.level.name}"

    def blocks(self) -> list[Block]:
        """Return the shards of the level."""
        return cut(self.level.shape, self.level.shards)

    def __call__(self, block: Block) -> float:
        """Make one shard."""
        return once(self.output, self.stage, self.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        finer = LevelWriter(Path(self.output), f"{self.image}{self.before}")
        writer = LevelWriter(Path(self.output), f"{self.image}{self.level.name}")
        writer.clear(block.box)
        labels = np.zeros(size(block.box), writer.dtype)
        for part in cut(size(block.box), _AT_ONCE):
            below = self._below(moved(part.box, starts(block.box)), finer.shape)
            values = finer.read(below)
            if values.any():
                labels[part.box] = shrink(values, self.level.factors)
        return {"files": writer.write(block.box, labels)}

    def _below(self, box: Box, shape: Shape) -> Box:
        z, y, x = (
            slice(part.start * factor, min(part.stop * factor, n))
            for part, factor, n in zip(box, self.level.factors, shape, strict=True)
        )
        return z, y, x
