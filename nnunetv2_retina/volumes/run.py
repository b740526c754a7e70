"""Prediction of a volume, from the options to the finished output; the same call goes on where another ended."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_retina import __version__
from nnunetv2_retina.console import part_of
from nnunetv2_retina.console.engines import Engine
from nnunetv2_retina.console.machine import memory_bytes
from nnunetv2_retina.console.wording import duration, format_bytes
from nnunetv2_retina.files import locked
from nnunetv2_retina.images.box import parse_box
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.datasets import class_names
from nnunetv2_retina.prediction import orthoplane
from nnunetv2_retina.prediction.label_grid import label_type
from nnunetv2_retina.prediction.model import Model
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.volumes import blocks, grey_values, store
from nnunetv2_retina.volumes import moments as moments_of
from nnunetv2_retina.volumes.blocks import Block
from nnunetv2_retina.volumes.journal import Journal, digest
from nnunetv2_retina.volumes.model import check, plan_spacing
from nnunetv2_retina.volumes.moments import Moments
from nnunetv2_retina.volumes.plan import BASE, Geometry, choose_level, fits, tiles_per_second
from nnunetv2_retina.volumes.progress import watch
from nnunetv2_retina.volumes.pyramid import Shrinking
from nnunetv2_retina.volumes.settings import METHODS, VolumeSettings
from nnunetv2_retina.volumes.tasks import COUNT, PREDICT, Counting, Input, Predicting

Say = Callable[[str], None]
MOMENTS_JSON = "moments.json"


class VolumeRun:
    """One run over one volume.

    Args:
        address: of the OME-Zarr volume.
        output: folder to write.
        model: how it is predicted.
        settings: what of it, and by whom.
        say: takes lines for the user.

    Raises:
        RetinaError: for a volume, model or setting that does not fit; nothing is written then.
    """

    def __init__(self, address: str, output: Path, model: Model, settings: VolumeSettings, say: Say) -> None:
        self.output, self.model, self.settings, self.say = output, model, settings, say
        self.volume = open_volume(address, settings.steps)
        store.check_apart(address, output)
        self.predictor = model.load()
        check(self.predictor)
        self.stated = self._stated()
        self.plan = plan_spacing(self.predictor)
        level, self.why = choose_level(self.volume, settings.level, self.plan)
        box = blocks.whole(level.shape) if settings.box is None else parse_box(settings.box, level.shape)
        self.source = Input.of(self.volume, level, box)
        self.moments_box = None
        if settings.moments_box is not None:
            part = parse_box(settings.moments_box, level.shape, "--moments-box")
            self.moments_box = blocks.moved(part, blocks.starts(box), -1)
        if self.predictor.mode == "orthoplane":
            plane = self.plan or level.spacing
            spacing = Spacing(level.spacing.z, plane.y, plane.x)
            orthoplane.check_volume(self.source.shape, spacing, model.settings.force)
        self.shard = blocks.shard_shape(self.source.shape, settings.shards, settings.chunk)
        self.geometry = Geometry.of(self.predictor, level, self.source.shape, self.shard)
        self.journal = Journal(output)
        self.folder = str(output.absolute())  # a worker may have been started in another folder

    def _stated(self) -> tuple[float, ...] | None:
        """Return what a file for the moments states, as far as the labels depend on it; None: they are computed."""
        if self.settings.moments in METHODS:
            return None
        extremes = self.predictor.nnunet.configuration_manager.normalization_schemes[0] == moments_of.BY_EXTREMES
        values = moments_of.read_file(Path(self.settings.moments), extremes)
        return values if extremes else values[:2]

    def block_shape(self) -> blocks.Shape:
        """Return the size of blocks: as asked for, or the largest that fits into the memory.

        Raises:
            RetinaError: if none fits.
        """
        if self.settings.block_sides is not None:
            return blocks.check_block(self.settings.block_sides, self.shard)
        share = int(0.7 * memory_bytes()) // self.settings.processes
        return self.geometry.choose(self.settings.budget or share)

    def outline(self) -> list[str]:
        """Return what a run would do, in lines; measures a few tiles."""
        block = self.block_shape()
        cut = blocks.cut(self.source.shape, block)
        tiles = self.geometry.tiles(cut)
        rate = tiles_per_second(self.predictor)
        workers = self.settings.processes
        if self.settings.part is not None:
            workers = int(self.settings.part.partition("/")[2])
        level, window = self.source.level, self.predictor.window
        where = (
            f"on {window.device}, "
            if workers == 1
            else f"on {window.device}, by {workers} workers as fast as this one, "
        )
        return [
            *self.description(),
            f"{len(cut)} blocks of {blocks.describe(block)}, shards of {blocks.describe(self.shard)}",
            f"memory of a worker: {format_bytes(BASE + self.geometry.bytes_of(block))}",
            f"{tiles} tiles at {rate:.3g} a second ({len(window.models)} folds, "
            f"{'mirrored' if self.model.settings.mirroring else 'not mirrored'}): {where}"
            f"about {duration(tiles / rate / workers)}",
            f"read: {format_bytes(level.nbytes)} uncompressed, and again for the moments if they are exact",
        ]

    def description(self) -> list[str]:
        """Return what is predicted, in lines."""
        level = self.source.level
        unit = f" {level.spacing.unit}" if level.spacing.unit else ""
        steps = " x ".join(f"{step:g}" for step in level.spacing)
        remarks = []
        own = Protocol.from_dataset_json(self.predictor.nnunet.dataset_json).inference
        if self.predictor.mode == "orthoplane" and own == "stack":
            remarks.append("remark: the model's data set asks for stack; it may never have seen planes xz and yz")
        if self.plan is not None and not fits(level.spacing, self.plan):
            remarks.append(
                f"warning: the model was trained at {self.plan.y:g} x {self.plan.x:g} (y, x); this level is predicted "
                "as if it were that"
            )
        return [
            f"{self.volume.address}: level {level.path or 'of the array'} ({self.why}), {steps}{unit}, "
            f"{blocks.describe(self.source.shape)} voxels of {level.dtype}, {self.predictor.mode}",
            *remarks,
        ]

    def run(self) -> bool:
        """Predict what is not predicted yet.

        Returns:
            Whether the output is complete.

        Raises:
            RetinaError: for an output that belongs to something else, or a block that failed; those before it are done.
        """
        for line in self.description():
            self.say(line)
        wanted = self._plan()
        begun = self.journal.begin(self._settings(), wanted)
        settings, plan = begun["settings"], begun["plan"]
        if any(plan[name] != wanted[name] for name in ("block", "shard", "chunk")):
            self.say(
                f"blocks stay {blocks.describe(plan['block'])}, shards {blocks.describe(plan['shard'])}, chunks "
                f"{plan['chunk']}, as this output was begun"
            )
        part = self.settings.part
        name = ".lock" if part is None else f".lock-part-{part.replace('/', '-of-')}"
        busy = f"another run is writing to {self.output}. Wait until it has ended, or give another output"
        with locked(self.journal.folder, busy, name):
            sizes = self._levels(plan)
            names = class_names(self.predictor.nnunet.dataset_json)
            dtype = np.dtype(label_type(self.predictor.nnunet.label_manager)).name
            with self.journal.alone("begin"):  # parts begin together
                store.create(self.output, sizes, dtype, plan["chunk"], self.volume.name, names)
            with self.settings.engine(self.say) as engine:
                moments = self._moments(engine, digest(settings))
                return self._predict(engine, plan, sizes, moments, digest({**settings, "moments": moments.to_json()}))

    def _settings(self) -> dict[str, Any]:
        level = self.source.level
        chosen = self.settings.moments if self.stated is None else f"{self.stated}"
        return {
            "IN.zarr": self.volume.name,
            "metadata of IN.zarr": self.volume.digest,
            "--level": level.path,
            "--box": blocks.to_lists(self.source.box),
            "--moments": chosen,
            "--moments-box": None if self.moments_box is None else blocks.to_lists(self.moments_box),
            **self.model.identity(),
        }

    def _plan(self) -> dict[str, Any]:
        level = self.source.level
        return {
            "block": list(self.block_shape()),
            "shard": list(self.shard),
            "chunk": self.settings.chunk,
            "shape": list(self.source.shape),
            "spacing": list(level.spacing),
            "unit": level.spacing.unit,
            "input": self.volume.address,
            "path": level.path,
            "names": {str(value): name for value, name in class_names(self.predictor.nnunet.dataset_json).items()},
            "version": __version__,
        }

    def _levels(self, plan: dict[str, Any]) -> list[store.OutputLevel]:
        z, y, x = plan["shard"]
        spacing = self.source.level.spacing
        return store.levels(self.source.shape, spacing, (z, y, x), plan["chunk"], self.source.origin)

    def _moments(self, engine: Engine, key: str) -> Moments:
        """Return the moments as the journal has them, which every later run reads; computed if it has none yet."""
        stored = self.journal.read(MOMENTS_JSON)
        if stored is None:
            self.journal.write(MOMENTS_JSON, self._computed_moments(engine, key).to_json())
            stored = self.journal.read(MOMENTS_JSON)
        assert stored is not None, "written"
        return Moments.from_json(stored)

    def _computed_moments(self, engine: Engine, key: str) -> Moments:
        method, part = self.settings.moments, self.settings.moments_box
        contents, plans = self.predictor.nnunet.dataset_json, self.predictor.nnunet.plans_manager.plans
        if grey_values.needs_pass(method, part):
            todo = blocks.cut(self.source.shape, grey_values.counting_blocks(self.source))
            self._stage(engine, COUNT, Counting(self.folder, self.source, key), todo, key, share=True)
            markers = [self.journal.marker(COUNT, block, key) for block in todo]
            moments = moments_of.merge(marker["part"] for marker in markers if marker is not None)
            how = f"exact, from {len(todo)} blocks"
        else:
            moments, how = grey_values.without_pass(self.source, method, self.moments_box, contents)
        self.say(f"grey levels: {moments.mean:.6g} +- {moments.sd:.6g} (mean, sd), {how}")
        for line in grey_values.remarks(moments, self.source, contents, plans):
            self.say(line)
        return moments

    def _predict(
        self, engine: Engine, plan: dict[str, Any], sizes: list[store.OutputLevel], moments: Moments, key: str
    ) -> bool:
        z, y, x = plan["block"]
        todo = blocks.cut(self.source.shape, (z, y, x))
        task = Predicting(self.folder, self.source, self.model, moments, key, self.settings.threads)
        if not self._stage(engine, PREDICT, task, todo, key):
            left = self.journal.left(PREDICT, todo, key)
            self.say(f"{len(left)} of {len(todo)} blocks are left to the other parts")
            return False
        for before, level in pairwise(sizes):
            shrinking = Shrinking(self.folder, "", before.name, level, key)
            self._stage(engine, shrinking.stage, shrinking, shrinking.blocks(), key, share=True)
        return True

    def _stage(self, engine: Engine, stage: str, task: Any, whole: list[Block], key: str, share: bool = False) -> bool:
        """Do a stage's blocks that are not done: this part's, then, with ``share``, those that nobody has done.

        Returns:
            Whether all are done.
        """
        for mine in [part_of(whole, self.settings.part), *([whole] if share and self.settings.part else [])]:
            todo = self.journal.left(stage, mine, key)
            if len(todo) < len(mine) and stage == PREDICT:
                self.say(f"{len(mine) - len(todo)} of {len(mine)} blocks are done already")
            watch(engine.run(task, todo), todo, stage, self.say)
        return not self.journal.left(stage, whole, key)
