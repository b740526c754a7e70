"""The stages that lead from predicted labels to instances: pieces, components, their cut, ids.

See ``volumes.instances``, which runs them. Between the stages, pieces and tables are files in the journal's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.files import replacing
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction import instances as in_memory
from nnunetv2_retina.prediction.objects.measures import inside, measure, read_around
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.volumes import components
from nnunetv2_retina.volumes.blocks import Block, Shape, common, cut, moved, size, starts
from nnunetv2_retina.volumes.components import Integers, Objects, Pieces
from nnunetv2_retina.volumes.journal import Journal, digest
from nnunetv2_retina.volumes.store import LevelWriter
from nnunetv2_retina.volumes.tasks import once

LARGEST = 2**28
"""Voxels of the bounding box of the largest component that is cut."""
TOGETHER = 2**22
"""Voxels of the boxes of small components that one task cuts."""
IMAGE = "labels/instances/"
MEASURES = 2
"""Changed with what ``objects.measures`` keeps of a block, which an output of an earlier version then measures anew."""
PIECES, CUT, RELABEL = "pieces", "cut", "relabel"


@dataclass(frozen=True)
class Work:
    """What the tasks share."""

    output: str
    shape: Shape
    shard: Shape
    spacing: Spacing
    settings: InstanceSettings
    labels_key: str

    @property
    def key(self) -> str:
        """Return the digest of what ids depend on."""
        chosen = self.settings
        rule = [chosen.min_distance, chosen.min_size, chosen.units]
        return digest({"labels": self.labels_key, "rule": rule, "measures": MEASURES})

    @property
    def scratch(self) -> Path:
        """Return the folder for what is between the stages."""
        return Journal(Path(self.output)).folder / "instances"

    def blocks(self) -> list[Block]:
        """Return the blocks, one shard each."""
        return cut(self.shape, self.shard)

    def rule(self) -> in_memory.Rule:
        """Return the settings in the volume's spacing."""
        return in_memory.Rule.of(self.settings, self.spacing, self.shape[0])

    def pieces(self) -> LevelWriter:
        """Return the numbers of the pieces, each block's from 1 on."""
        return LevelWriter(Path(self.output), str(self.scratch.relative_to(self.output) / "numbers"))

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Write arrays whole or not at all; return the file and its size, for the journal."""
        path = self.scratch / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]
        return {path.relative_to(self.output).as_posix(): path.stat().st_size}

    def load(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays that ``save`` wrote."""
        with np.load(self.scratch / f"{name}.npz") as stored:
            return {key: stored[key] for key in stored.files}


@dataclass(frozen=True)
class Numbering:
    """First stage: the pieces of each block."""

    work: Work

    def __call__(self, block: Block) -> float:
        """Number the components of a block."""
        return once(self.work.output, PIECES, self.work.labels_key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        labels = LevelWriter(Path(self.work.output), "0").read(block.box)
        numbers, pieces = components.find_pieces(labels, starts(block.box), self.work.shape)
        writer = self.work.pieces()
        writer.clear(block.box)
        sizes = writer.write(block.box, numbers)
        return {"files": {**sizes, **self.work.save(f"pieces-{block.name}", pieces.arrays())}}


@dataclass(frozen=True)
class Cutting:
    """Second stage: the watershed cut of some components. A block's first axis is a range of groups of them."""

    work: Work

    def __call__(self, block: Block) -> float:
        """Cut the components of a group."""
        return once(self.work.output, CUT, self.work.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        merged = merged_of(self.work)
        rule, cuts, sizes = self.work.rule(), {}, []
        for row in merged.groups[block.box[0].start]:
            box = merged.box(row)
            mask = merged.read(box) == row
            numbers = in_memory.cut(mask, rule)
            counts = np.bincount(numbers.ravel())[1:]
            sizes.append([row, *counts[counts > 0].tolist()])
            if len(counts) > 1:
                cuts[str(row)] = numbers.astype(np.min_scalar_type(len(counts)))
        return {"files": self.work.save(f"cut-{block.name}", cuts), "sizes": sizes}


class Merged:
    """Components of the volume, from the pieces and where they meet; held by each process that needs them."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.blocks = work.blocks()
        self._grid = tuple(-(-n // side) for n, side in zip(work.shape, work.shard, strict=True))
        parts = [work.load(f"pieces-{block.name}") for block in self.blocks]
        counts = [len(part["label"]) for part in parts]
        self.offsets: Integers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in ("label", "first", "voxels", "box")}
        self._writer, self._labels = work.pieces(), LevelWriter(Path(work.output), "0")
        pairs = [self._pairs(index, axis) for index in range(len(self.blocks)) for axis in range(3)]
        self.objects: Objects = components.unite(
            Pieces(**columns), np.concatenate([np.zeros((0, 2), np.int64), *pairs])
        )
        self.groups = list(self._grouped())

    def _pairs(self, index: int, axis: int) -> NDArray[np.int64]:
        """Return the pieces of a block that meet those of the one before it along an axis."""
        box = self.blocks[index].box
        if box[axis].start == 0:
            return np.zeros((0, 2), np.int64)
        before = index - prod(self._grid[axis + 1 :])
        if self.offsets[index] == self.offsets[index + 1] or self.offsets[before] == self.offsets[before + 1]:
            return np.zeros((0, 2), np.int64)
        planes = [
            tuple(slice(at, at + 1) if other == axis else part for other, part in enumerate(box))
            for at in (box[axis].start - 1, box[axis].start)
        ]
        numbers = [self._writer.read((a, b, c)) for a, b, c in planes]
        labels = [self._labels.read((a, b, c)) for a, b, c in planes]
        pairs = components.meeting(*numbers, *labels)
        pairs += np.array([self.offsets[before], self.offsets[index]])
        return pairs

    def _grouped(self) -> Iterator[list[int]]:
        """Yield the components to cut: rows that one task takes."""
        rule, group, voxels = self.work.rule(), [], 0
        for row in range(len(self.objects.pieces)):
            lengths = size(self.box(row))
            if rule.leaves_whole(lengths) or prod(lengths) > LARGEST:
                continue
            group.append(row)
            voxels += prod(lengths)
            if voxels > TOGETHER:
                yield group
                group, voxels = [], 0
        if group:
            yield group

    def too_large(self) -> list[int]:
        """Return the rows that are not cut although they might be several instances."""
        rule = self.work.rule()
        boxes = ((row, size(self.box(row))) for row in range(len(self.objects.pieces)))
        return [row for row, lengths in boxes if prod(lengths) > LARGEST and not rule.leaves_whole(lengths)]

    def box(self, row: int) -> Box:
        """Return the box of a component, one voxel larger on each side inside the volume: its border is its own."""
        ends = self.objects.pieces.box[row]
        z, y, x = (
            slice(max(0, int(ends[axis]) - 1), min(n, int(ends[axis + 3]) + 1))
            for axis, n in enumerate(self.work.shape)
        )
        return z, y, x

    def read(self, box: Box) -> NDArray[np.int64]:
        """Return the rows of the components (z, y, x) in a box; -1 for background."""
        rows = np.full(size(box), -1, np.int64)
        ranges = [
            range(part.start // side, -(-part.stop // side)) for part, side in zip(box, self.work.shard, strict=True)
        ]
        for place in product(*ranges):
            index = int(np.ravel_multi_index(place, self._grid))
            part = common(box, self.blocks[index].box)
            if part is not None and self.offsets[index] < self.offsets[index + 1]:
                rows[moved(part, starts(box), -1)] = self.of_block(index)[self._writer.read(part)]
        return rows

    def of_block(self, index: int) -> Integers:
        """Return the row of each number of a block."""
        rows = self.objects.of_piece[self.offsets[index] : self.offsets[index + 1] + 1].copy()
        rows[0] = -1
        return rows


@lru_cache(maxsize=1)
def merged_of(work: Work) -> Merged:
    """Return the components, the same at every call in a process."""
    return Merged(work)


@dataclass(frozen=True)
class Ids:
    """What each component becomes: its first id, and for each of its pieces the id or 0."""

    first: Integers
    """Id of a component that is one piece; 0 if it is too small."""
    pieces: dict[int, Integers]
    """Row -> ids of the pieces from number 1 on, with a 0 before them."""
    task: dict[int, str]
    """Row -> name of the file with the numbers of its pieces."""
    label: Integers
    """Class of each id, from 1 on."""


def number(merged: Merged, key: str) -> Ids:
    """Return the ids of all components, in their order."""
    journal, rule = Journal(Path(merged.work.output)), merged.work.rule()
    sizes: dict[int, list[int]] = {}
    task: dict[int, str] = {}
    for block in cutting_blocks(merged):
        marker = journal.marker(CUT, block, key)
        for row, *counts in (marker or {"sizes": []})["sizes"]:
            if len(counts) > 1:
                sizes[row], task[row] = counts, f"cut-{block.name}"
    rows = merged.objects.pieces
    first, pieces, label = np.zeros(len(rows), np.int64), {}, []
    for row in range(len(rows)):
        counts = sizes.get(row, [int(rows.voxels[row])])
        ids = np.zeros(len(counts) + 1, np.int64)
        for piece, voxels in enumerate(counts, start=1):
            if rule.keeps(voxels):
                label.append(int(rows.label[row]))
                ids[piece] = len(label)
        first[row] = ids[1]
        if len(counts) > 1:
            pieces[row] = ids
    return Ids(first, pieces, task, np.array(label, np.int64))


def cutting_blocks(merged: Merged) -> list[Block]:
    """Return a block for each group of components."""
    return [Block((slice(i, i + 1), slice(0, 1), slice(0, 1))) for i in range(len(merged.groups))]


@lru_cache(maxsize=1)
def ids_of(work: Work, key: str) -> Ids:
    """Return the ids, the same at every call in a process."""
    return number(merged_of(work), key)


@dataclass(frozen=True)
class Relabelling:
    """Third stage: the ids of each block, and what is measured of them."""

    work: Work

    def __call__(self, block: Block) -> float:
        """Write the ids of a block."""
        return once(self.work.output, RELABEL, self.work.key, block, lambda: self._work(block))

    def _work(self, block: Block) -> dict[str, Any]:
        shape = self.work.shape
        around = read_around(self._ids_of, block.box, shape)
        writer = LevelWriter(Path(self.work.output), f"{IMAGE}0")
        writer.clear(block.box)
        files = writer.write(block.box, inside(around, block.box, shape))
        measures = measure(around, block.box, shape, tuple(self.work.spacing))
        return {"files": {**files, **self.work.save(f"measures-{block.name}", measures.arrays())}}

    def _ids_of(self, box: Box) -> NDArray[np.uint32]:
        """Return the ids (z, y, x) of a box."""
        merged, known = merged_of(self.work), ids_of(self.work, self.work.key)
        rows = merged.read(box)
        ids = np.append(known.first, 0)[rows].astype(np.uint32)  # the last entry is for background, row -1
        for row in np.unique(rows):
            if int(row) in known.pieces:
                own = merged.box(int(row))
                part = common(own, box)
                if part is None:
                    continue
                numbers = _numbers(self.work, known.task[int(row)])[str(row)][moved(part, starts(own), -1)]
                place = ids[moved(part, starts(box), -1)]
                mask = numbers > 0
                place[mask] = known.pieces[int(row)][numbers[mask]]
        return ids


@lru_cache(maxsize=8)
def _numbers(work: Work, name: str) -> dict[str, NDArray[Any]]:
    return work.load(name)
