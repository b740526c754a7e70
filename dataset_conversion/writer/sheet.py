"""The slices of ``conversion_sheet.png``, picked while the cases go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_conversion.readers.slabs import Array, Volume, planes, whole
from dataset_conversion.spec import BACKGROUND, IGNORE, DatasetSpec
from dataset_conversion.writer.record import SHEET
from nnunetv2_retina.display.sheets import LabelledSlice, label_sheet

CASES_SHOWN = {"train": 6, "test": 3}
LONGEST_SIDE = 640
"""Slices are shown thinned out to at most this many pixels a side."""


@dataclass
class _Thinning:
    """Cases evenly spread over however many come: every n-th, n doubled whenever there are too many."""

    limit: int
    every: int = 1
    seen: int = 0
    kept: list[Sequence[LabelledSlice]] = field(default_factory=list)

    def add(self, slices: Sequence[LabelledSlice]) -> None:
        if self.seen % self.every == 0:
            if len(self.kept) == 2 * self.limit:
                self.kept, self.every = self.kept[::2], 2 * self.every
            if self.seen % self.every == 0:
                self.kept.append(slices)
        self.seen += 1

    def chosen(self) -> list[LabelledSlice]:
        wanted = np.linspace(0, len(self.kept) - 1, min(self.limit, len(self.kept))).round().astype(int)
        return [picked for index in wanted for picked in self.kept[index]]


class SheetCollector:
    """Remember a few slices of the cases of one data set."""

    def __init__(self) -> None:
        self._splits = {split: _Thinning(limit) for split, limit in CASES_SHOWN.items()}

    def add(self, split: str, slices: Sequence[LabelledSlice]) -> None:
        """Take the slices of a labelled case into account; of other cases there are none."""
        if slices:
            self._splits[split].add(slices)

    def write(self, folder: Path, spec: DatasetSpec) -> Path:
        """Draw the sheet into the data set's folder."""
        chosen = [picked for split in self._splits.values() for picked in split.chosen()]
        names = {value: name for name, value in spec.labels.items() if name not in (BACKGROUND, IGNORE)}
        label_sheet(folder / SHEET, chosen, names, spec.ignore_value)
        return folder / SHEET


def pick_slices(name: str, image: Volume, label: Volume) -> list[LabelledSlice]:
    """Pick a 2D image, or from each half of a volume the slice along its first axis with the most labels.

    Most labels: the most different values first, then the most voxels that are not background.
    """
    step = max(1, -(-max(image.shape[-2:]) // LONGEST_SIDE))
    if image.ndim == 2:
        return [LabelledSlice(name, whole(image)[::step, ::step].copy(), whole(label)[::step, ::step].copy())]
    ranks = [_richness(plane[::step, ::step]) for plane in planes(label)]
    half = -(-len(ranks) // 2)
    parts = [range(half), range(half, len(ranks))]
    chosen = [max(part, key=lambda index: ranks[index]) for part in parts if part]
    return [
        LabelledSlice(f"{name}, slice {z}", grey[::step, ::step].copy(), values[::step, ::step].copy())
        for z, (grey, values) in enumerate(zip(planes(image), planes(label), strict=True))
        if z in chosen
    ]


def _richness(plane: Array) -> tuple[int, int]:
    counts = np.bincount(plane.ravel())
    return int(np.count_nonzero(counts)), int(counts[1:].sum())
