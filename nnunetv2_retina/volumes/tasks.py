"""What a worker does with a block. Each task is pure: any process may do it, at any time, again, with one result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.console.machine import use_threads
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.levels import Level, Point, Volume, shifted
from nnunetv2_retina.images.ome_zarr import StoredArray
from nnunetv2_retina.volumes import moments as moments_of
from nnunetv2_retina.volumes.blocks import Block, Shape, common, moved, size, starts, whole
from nnunetv2_retina.volumes.journal import Journal
from nnunetv2_retina.volumes.moments import Moments
from nnunetv2_retina.volumes.store import LevelWriter

COUNT, PREDICT, RESCALE = "moments", "predict", "rescale"


@dataclass(frozen=True)
class Input:
    """The part of a stored volume that is predicted."""

    address: str
    """The same in every process: a worker may have been started in another folder."""
    level: Level
    box: Box
    """In the voxels of the level."""

    @classmethod
    def of(cls, volume: Volume, level: Level, box: Box | None = None) -> Input:
        """Return a part of a level; None: all of it."""
        address = volume.address
        return cls(address if "://" in address else str(Path(address).absolute()), level, box or whole(level.shape))

    @property
    def shape(self) -> Shape:
        """Return its lengths."""
        return size(self.box)

    @property
    def origin(self) -> Point:
        """Return where the middle of its first voxel is, in the unit of the level's spacing."""
        return shifted(self.level.origin, self.level.spacing, starts(self.box))

    def read(self, box: Box) -> NDArray[Any]:
        """Return (z, y, x) of a box of the part."""
        return _opened(self.address, self.level).read(moved(box, starts(self.box)))


@lru_cache(maxsize=4)
def _opened(address: str, level: Level) -> StoredArray:
    return StoredArray(address, level)


def once(output: str, stage: str, key: str, block: Block, work: Callable[[], dict[str, Any]]) -> float:
    """Do a block's work unless its marker says that it is done; mark it.

    Returns:
        Seconds that it took; 0 if it was done.

    Raises:
        Exception: whatever ``work`` raises, which is noted in the journal.
    """
    journal = Journal(Path(output))
    with journal.alone(f"{stage}-{block.name}"):
        if journal.marker(stage, block, key) is not None:
            return 0.0
        start = time.perf_counter()
        journal.forget(stage, block)
        try:
            contents = work()
            seconds = time.perf_counter() - start
            journal.mark(stage, block, key, seconds, contents)
        except Exception as error:
            journal.fail(stage, block, error)
            raise
        return seconds


@dataclass(frozen=True)
class Counting:
    """The pass for the moments."""

    output: str
    source: Input
    key: str

    def __call__(self, block: Block) -> float:
        """Count the grey levels of a block into its marker."""

        def work() -> dict[str, Any]:
            return {"part": moments_of.count(self.source.read(block.box), starts(block.box))}

        return once(self.output, COUNT, self.key, block, work)


@dataclass(frozen=True)
class Predicting:
    """The prediction of blocks."""

    output: str
    source: Input
    model: Any
    """A ``prediction.model.Model``; not imported here, so that a pass for moments alone needs no torch."""
    moments: Moments
    key: str
    threads: int | None

    def __call__(self, block: Block) -> float:
        """Predict a block and write its shards."""
        return once(self.output, PREDICT, self.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        writer = LevelWriter(Path(self.output), "0")
        writer.clear(block.box)
        labels = np.zeros(size(block.box), writer.dtype)
        inside = common(block.box, self.moments.box)
        if inside is not None:
            place = moved(inside, starts(block.box), -1)
            labels[place] = self._labels(moved(inside, starts(self.moments.box), -1))
        return {"files": writer.write(block.box, labels), "device": str(self.model.load().window.device)}

    def _labels(self, region: Box) -> NDArray[Any]:
        from nnunetv2_retina.volumes.source import BlockSource, normaliser

        use_threads(self.threads)
        predictor = self.model.load()
        nnunet, crop = predictor.nnunet, self.moments.box
        scheme = nnunet.configuration_manager.normalization_schemes[0]
        properties = nnunet.plans_manager.foreground_intensity_properties_per_channel["0"]
        z, y, x = (a + b for a, b in zip(starts(crop), starts(self.source.box), strict=True))
        source = BlockSource(
            lambda box: self.source.read(moved(box, starts(crop))),
            normaliser(scheme, properties, self.moments),
            size(crop),
            region,
            predictor.window.patch_size,
            predictor.window.step_size,
            self.source.level.chunks,
            (z, y, x),
        )
        labels: NDArray[Any] = predictor.predict_region(source, region)
        return labels
