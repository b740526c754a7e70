"""Instances of a predicted volume, block by block: ``labels/instances`` of the output, and ``objects.csv``.

The ids are those of ``prediction.instances.find_instances`` for the whole volume: connected components across blocks,
the watershed cut of each by that module's own function in the component's bounding box, small ones left out, numbered
class by class by their first voxel. Components whose box is larger than ``LARGEST`` stay whole, and are named.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import locked, replacing
from nnunetv2_retina.prediction import instances as in_memory
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.spacing import Spacing
from nnunetv2_retina.volumes import components, store
from nnunetv2_retina.volumes.blocks import Block, Shape, cut
from nnunetv2_retina.volumes.components import Measures
from nnunetv2_retina.volumes.engines import Engine
from nnunetv2_retina.volumes.journal import Journal, digest
from nnunetv2_retina.volumes.merging import (
    CUT,
    IMAGE,
    PIECES,
    RELABEL,
    Cutting,
    Ids,
    Numbering,
    Relabelling,
    Work,
    cutting_blocks,
    ids_of,
    merged_of,
)  # fmt: skip
from nnunetv2_retina.volumes.progress import watch
from nnunetv2_retina.volumes.pyramid import Shrinking
from nnunetv2_retina.volumes.tasks import PREDICT

COLUMNS = (*in_memory.COLUMNS, "volume", "surface", "z0", "z1", "y0", "y1", "x0", "x1", "touches_border")


@dataclass
class InstanceRun:
    """Finds the instances of a finished prediction.

    Args:
        output: of ``retina_volume predict``.
        settings: what counts as one.
        say: takes lines for the user.

    Raises:
        RetinaError: if the prediction is not finished.
    """

    output: Path
    settings: InstanceSettings
    say: Callable[[str], None]
    work: Work = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.output)
        stored = self.journal.run()
        self.plan = stored["plan"]
        key = digest({**stored["settings"], "moments": self.journal.read("moments.json") or {}})
        z, y, x = self.plan["shape"]
        a, b, c = self.plan["block"]
        todo = cut((z, y, x), (a, b, c))
        left = self.journal.left(PREDICT, todo, key)
        if left:
            raise RetinaError(
                f"{len(left)} of {len(todo)} blocks of {self.output} are not predicted yet. Finish that first, with "
                "the same retina_volume predict command"
            )
        d, e, f = self.plan["shard"]
        spacing = Spacing.of(self.plan["spacing"], self.plan["unit"])
        self.work = Work(str(self.output), (z, y, x), (d, e, f), spacing, self.settings, key)

    def run(self, engine: Engine) -> int:
        """Write instances and objects.csv, as far as they are not there yet.

        Returns:
            How many instances there are.

        Raises:
            RetinaError: if another process does the same.
        """
        with locked(self.journal.folder, f"another run is writing to {self.output}. Wait until it has ended", ".lock"):
            merged_of.cache_clear()
            ids_of.cache_clear()
            work, chunk = self.work, self.plan["chunk"]
            numbers = store.levels(work.shape, work.spacing, work.shard, chunk)[:1]
            store.create_array(work.scratch / "numbers", numbers[0], "uint32", chunk)
            self._stage(engine, PIECES, Numbering(work), work.blocks(), work.labels_key)
            merged = merged_of(work)
            if large := merged.too_large():
                self.say(
                    f"{len(large)} components are too large to be cut and stay whole: {shorten(self._places(large))}"
                )
            self._stage(engine, CUT, Cutting(work), cutting_blocks(merged), work.key)
            sizes = store.levels(work.shape, work.spacing, work.shard, chunk, self._origin())
            folder = self.output / IMAGE
            store.create(folder, sizes, "uint32", chunk, "instances", None)
            store.add_labels(self.output, ["instances"])
            self._stage(engine, RELABEL, Relabelling(work), work.blocks(), work.key)
            for before, level in pairwise(sizes):
                shrinking = Shrinking(str(self.output), IMAGE, before.name, level, work.key)
                self._stage(engine, shrinking.stage, shrinking, shrinking.blocks(), work.key)
            return self._write_table(ids_of(work, work.key))

    def _origin(self) -> Shape:
        z, y, x = (int(first) for first, _ in self.plan["box"])
        return z, y, x

    def _places(self, rows: list[int]) -> Iterator[str]:
        pieces = merged_of(self.work).objects.pieces
        for row in rows:
            yield "-".join(str(int(place)) for place in pieces.box[row, :3])

    def _stage(self, engine: Engine, stage: str, task: Any, blocks: list[Block], key: str) -> None:
        todo = self.journal.left(stage, blocks, key)
        watch(engine.run(task, todo), todo, stage, self.say)

    def _write_table(self, ids: Ids) -> int:
        parts = [Measures(**self.work.load(f"measures-{block.name}")) for block in self.work.blocks()]
        measures = components.total(parts, len(ids.label))
        with (
            replacing(self.output / "objects.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            names = {int(value): name for value, name in self.plan["names"].items()}
            for row in range(len(ids.label)):
                writer.writerow(self._line(row, int(ids.label[row]), names, measures))
        return len(ids.label)

    def _line(self, row: int, label: int, names: Mapping[int, str], measures: Measures) -> list[object]:
        sides = np.array(list(self.work.spacing))
        voxels, box = int(measures.voxels[row]), measures.box[row]
        centre = [f"{value / voxels:.1f}" for value in measures.sums[row]]
        areas = np.array([sides[1] * sides[2], sides[0] * sides[2], sides[0] * sides[1]])
        surface = float(measures.faces[row] @ areas)
        border = bool((box[:3] == 0).any() or (box[3:] == self.work.shape).any())
        ends = [int(end) for axis in range(3) for end in (box[axis], box[axis + 3])]
        return [
            row + 1, label, names.get(label, ""), voxels, *centre, f"{voxels * sides.prod():g}", f"{surface:g}", *ends,
            int(border),
        ]  # fmt: skip
