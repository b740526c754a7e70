"""Instances of a predicted volume, block by block: ``labels/instances`` of the output, and ``objects.csv``.

The ids are those of ``prediction.instances.find_instances`` for the whole volume: connected components across blocks,
the watershed cut of each by that module's own function in the component's bounding box, small ones left out, numbered
class by class by their first voxel. Components whose box is larger than ``LARGEST`` stay whole, and are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnunetv2_retina.console.engines import Engine
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import locked
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.objects import neighbours, table
from nnunetv2_retina.prediction.objects.columns import UNKNOWN
from nnunetv2_retina.prediction.objects.measures import total
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.volumes import store
from nnunetv2_retina.volumes.blocks import Block, cut
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
from nnunetv2_retina.volumes.objects import NEIGHBOURS, Neighbouring, measures_of, nearest_of, parts_of
from nnunetv2_retina.volumes.progress import watch
from nnunetv2_retina.volumes.pyramid import Shrinking
from nnunetv2_retina.volumes.tasks import PREDICT

TABLE = "objects.csv"


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
        self.origin = open_volume(self.output).levels[0].origin  # of the labels: instances lie on them
        folder = str(self.output.absolute())  # a worker may have been started in another folder
        self.work = Work(folder, (z, y, x), (d, e, f), spacing, self.settings, key)

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
            parts_of.cache_clear()
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
            sizes = store.levels(work.shape, work.spacing, work.shard, chunk, self.origin)
            folder = self.output / IMAGE
            store.create(folder, sizes, "uint32", chunk, "instances", None)
            store.add_labels(self.output, ["instances"])
            self._stage(engine, RELABEL, Relabelling(work), work.blocks(), work.key)
            for before, level in pairwise(sizes):
                shrinking = Shrinking(work.output, IMAGE, before.name, level, work.key)
                self._stage(engine, shrinking.stage, shrinking, shrinking.blocks(), work.key)
            self._stage(engine, NEIGHBOURS, Neighbouring(work), work.blocks(), work.key)
            return self._write_table(ids_of(work, work.key))

    def _places(self, rows: list[int]) -> Iterator[str]:
        pieces = merged_of(self.work).objects.pieces
        for row in rows:
            yield "-".join(str(int(place)) for place in pieces.box[row, :3])

    def _stage(self, engine: Engine, stage: str, task: Any, blocks: list[Block], key: str) -> None:
        todo = self.journal.left(stage, blocks, key)
        watch(engine.run(task, todo), todo, stage, self.say)

    def _write_table(self, ids: Ids) -> int:
        measures, most = measures_of(self.work), len(ids.label)
        nearest = neighbours.combine([nearest_of(self.work, block) for block in self.work.blocks()], most)
        names = {int(value): name for value, name in self.plan["names"].items()}
        spacing = self.work.spacing
        frame = table.Frame(self.work.shape, spacing, spacing.unit or UNKNOWN, self.origin)
        table.write(self.output / TABLE, table.rows(total(measures, most), nearest, ids.label, names, frame))
        table.write_dictionary(self.output)
        return most
