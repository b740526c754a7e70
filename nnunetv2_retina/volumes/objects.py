"""The last stage of instances in blocks: nearest neighbours; and what the stages before it measured.

See ``prediction.objects``, which measures blocks and volumes alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nnunetv2_retina.prediction.objects.measures import Measures
from nnunetv2_retina.prediction.objects.neighbours import Nearest, Parts, Surfaces, nearest
from nnunetv2_retina.volumes.blocks import Block
from nnunetv2_retina.volumes.merging import IMAGE, Work
from nnunetv2_retina.volumes.store import LevelWriter
from nnunetv2_retina.volumes.tasks import once

NEIGHBOURS = "neighbours"


def measures_of(work: Work) -> list[Measures]:
    """Return what was measured of each block, in their order."""
    return [Measures(**work.load(f"measures-{block.name}")) for block in work.blocks()]


@lru_cache(maxsize=1)
def parts_of(work: Work, key: str) -> tuple[Parts, Surfaces]:
    """Return the parts of all objects and their surfaces, the same at every call in a process."""
    read = LevelWriter(Path(work.output), f"{IMAGE}0").read
    boxes = [block.box for block in work.blocks()]
    return Parts(measures_of(work), tuple(work.spacing)), Surfaces(read, boxes, work.shape)


@dataclass(frozen=True)
class Neighbouring:
    """Fourth stage: the nearest neighbours of the objects of each block."""

    work: Work

    def __call__(self, block: Block) -> float:
        """Find the neighbours of a block's objects."""
        return once(self.work.output, NEIGHBOURS, self.work.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        parts, surfaces = parts_of(self.work, self.work.key)
        neighbours = nearest(parts, surfaces, [self.work.blocks().index(block)])
        return {"files": self.work.save(f"neighbours-{block.name}", vars(neighbours))}


def nearest_of(work: Work, block: Block) -> Nearest:
    """Return what ``Neighbouring`` found for a block."""
    return Nearest(**work.load(f"neighbours-{block.name}"))
