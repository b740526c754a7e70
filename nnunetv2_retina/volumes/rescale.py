"""A level at another spacing, written block by block once: cubic, slice by slice, as nnU-Net resamples 2d images.

nnU-Net calls scikit-image's ``resize`` of order 3 with mode ``edge``, which is SciPy's ``zoom`` in grid mode: voxel o
of n is at (o + 0.5) * old / n - 0.5. The spline's filter decays by 0.268 a voxel, so that a margin of 24 voxels leaves
2e-14 of what lies beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunetv2_retina.console.engines import Engine
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import locked
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.levels import Level, Volume, shifted
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.volumes import store
from nnunetv2_retina.volumes.blocks import Block, Shape, cut, shard_shape
from nnunetv2_retina.volumes.journal import Journal, digest
from nnunetv2_retina.volumes.progress import watch
from nnunetv2_retina.volumes.settings import CHUNK, SHARD
from nnunetv2_retina.volumes.tasks import RESCALE, Input, once

MARGIN = 24
_BORDER = 12
"""Voxels that SciPy repeats beyond an image's border before the filter."""


@dataclass(frozen=True)
class Rescaling:
    """Writes blocks of the new level."""

    output: str
    source: Input
    shape: Shape
    key: str

    def __call__(self, block: Block) -> float:
        """Write one block."""
        return once(self.output, RESCALE, self.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        writer = store.LevelWriter(Path(self.output), "0")
        writer.clear(block.box)
        return {"files": writer.write(block.box, self.resampled(block.box))}

    def resampled(self, box: Box) -> NDArray[Any]:
        """Return (z, y, x) of a part of the new level, in the type of the old one."""
        reads, coordinates = zip(*(self._reach(axis, box[axis]) for axis in (1, 2)), strict=True)
        values = self.source.read((box[0], reads[0][0], reads[1][0]))
        dtype = np.dtype(self.source.level.dtype)
        result = np.empty([part.stop - part.start for part in box], dtype)
        for target, plane in zip(result, values, strict=True):
            padded = np.pad(plane.astype(np.float64), [read[1] for read in reads], "edge")
            filtered = ndimage.spline_filter(padded, 3, mode="mirror")
            fine = ndimage.map_coordinates(
                filtered, np.meshgrid(*coordinates, indexing="ij"), order=3, mode="mirror", prefilter=False
            )
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                fine = np.clip(np.rint(fine), limits.min, limits.max)
            target[:] = fine > 0.5 if dtype.kind == "b" else fine
        return result

    def _reach(self, axis: int, part: slice) -> tuple[tuple[slice, tuple[int, int]], NDArray[np.float64]]:
        """Return what is read along an axis with its padding, and where the new voxels lie in that."""
        old, new = self.source.shape[axis], self.shape[axis]
        places = (np.arange(part.start, part.stop) + 0.5) * (old / new) - 0.5
        first, last = max(0, int(places[0]) - MARGIN), min(old, int(places[-1]) + 2 + MARGIN)
        padding = (_BORDER if first == 0 else 0, _BORDER if last == old else 0)
        return (slice(first, last), padding), places - first + padding[0]


def rescale(
    volume: Volume, level: Level, output: Path, steps: tuple[float, float], engine: Engine, say: Callable[[str], None]
) -> None:
    """Write a level at another spacing along y and x as an image of its own.

    Args:
        volume: with the level.
        level: to start from.
        output: folder of the new image.
        steps: spacing along y and x, in the unit of the level.
        engine: who does it.
        say: takes lines for the user.

    Raises:
        RetinaError: for a spacing that leaves nothing, or an output that belongs to something else.
    """
    z, y, x = level.shape
    old = level.spacing
    sides = [max(0, round(n * own / new)) for n, own, new in zip((y, x), (old.y, old.x), steps, strict=True)]
    if min(sides) < 1:
        raise RetinaError(
            f"--spacing {steps[0]:g},{steps[1]:g} leaves {sides[0]} x {sides[1]} pixels; expected a smaller one"
        )
    shape: Shape = (z, sides[0], sides[1])
    spacing = Spacing(old.z, old.y * y / sides[0], old.x * x / sides[1], old.unit)
    journal = Journal(output)
    settings = {
        "IN.zarr": volume.name,
        "metadata of IN.zarr": volume.digest,
        "--level": level.path,
        "shape": list(shape),
    }
    shard = shard_shape(shape, SHARD, CHUNK)
    plan = {"block": list(shard), "shape": list(shape), "input": volume.address, "path": level.path}
    key = digest(journal.begin(settings, plan)["settings"])
    with locked(journal.folder, f"another run is writing to {output}. Wait until it has ended", ".lock"):
        middle = [0.5 * (new / own - 1) for new, own in zip(spacing, old, strict=True)]
        sizes = store.levels(shape, spacing, shard, CHUNK, shifted(level.origin, old, middle))[:1]
        store.create(output, sizes, level.dtype, CHUNK, volume.name, None, is_labels=False)
        task = Rescaling(str(output.absolute()), Input.of(volume, level), shape, key)
        todo = journal.left(RESCALE, cut(shape, shard), key)
        watch(engine.run(task, todo), todo, RESCALE, say)
