"""Scores of label volumes larger than memory, block by block: the numbers of the volumes in memory.

Counts add up. Distances are those to the nearest voxel in the block and a margin around it, where none outside can be
nearer; voxels that are further from it than the margin are looked at again with twice the margin. Scores over images
read whole slices, a few at a time, and score them as in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.cases import Distances, class_masks, score_case, unit_of
from nnunetv2_retina.evaluation.counts import Counts, Mask, count_masks
from nnunetv2_retina.evaluation.distances import Directed
from nnunetv2_retina.evaluation.pairs import check_values
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import CaseScores, Unit, case_mean, class_scores
from nnunetv2_retina.evaluation.stored import BLOCK, StoredPair
from nnunetv2_retina.images.box import Box
from nnunetv2_retina.images.spacing import Spacing

LARGEST = 2**27
"""Voxels that are read at once at most: a block with the margin that its distances need, or a slice."""
_MARGIN = 32
"""First margin, in voxels of the finest axis."""
_HELD = 3
"""Boxes whose labels are held: a block, and what is around it by either spacing."""


def score_stored(
    pair: StoredPair,
    rule: Rule,
    side: tuple[int, int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CaseScores:
    """Score a prediction in a Zarr store.

    Args:
        pair: of labels.
        rule: what is counted.
        side: of the blocks, along z, y and x; None: what suits the chunks, up to 2^24 voxels.
        progress: called with the number of blocks that are done, and of all.

    Returns:
        The scores of ``score_case``; sums of distances may differ in their last digits, by the order of summing.

    Raises:
        RetinaError: for labels that the data set lacks, or scores that need more of the volume at once than
            ``LARGEST`` voxels.
    """
    if rule.distances and rule.tolerance is not None and not pair.is_known:
        raise RetinaError(
            f"neither {pair.prediction.path} nor {pair.truth.path} states its spacing, and CREMI's scores are in nm. "
            "Write one of them as OME-Zarr, or score with --no-distances"
        )
    steps = _Steps(progress or (lambda done, total: None))
    return _images(pair, rule, side, steps) if rule.score_unit == "slice" else _volume(pair, rule, side, steps)


class _Steps:
    """Reports how many blocks are done."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress
        self._done = self._total = 0

    def over(self, boxes: Iterable[Box], rounds: int = 1) -> Iterator[Box]:
        """Yield the boxes and report each when it is done; ``rounds``: passes still to come, this one included."""
        listed = list(boxes)
        self._total = max(self._total, rounds * len(listed))
        self._progress(self._done, self._total)
        for box in listed:
            yield box
            self._done += 1
            self._progress(self._done, self._total)


def _images(pair: StoredPair, rule: Rule, side: tuple[int, int, int] | None, steps: _Steps) -> CaseScores:
    """Score each slice along z: whole slices are read, as many as make up a block."""
    z, y, x = pair.shape
    if y * x > LARGEST:
        raise RetinaError(
            f"{pair.name}: the data set scores whole images, and a slice of {y} x {x} pixels has more than "
            f"{LARGEST:,}. Cut prediction and ground truth into smaller volumes, alike"
        )
    depth = min(z, side[0] if side else max(1, BLOCK // (y * x)))
    parts = []
    for box in steps.over(pair.blocks((depth, y, x))):
        prediction, truth = _read(pair, box, rule)
        parts.append((box[0].start, score_case(pair.name, prediction, truth, rule, pair.spacing)))
    classes = {}
    for entry in rule.classes:
        units = [
            Unit((unit.index or 0) + first, unit.counts, unit.values)
            for first, part in parts
            for unit in part.classes[entry.name].units
        ]
        classes[entry.name] = class_scores(units, rule)
    ignored = sum(part.ignored for _, part in parts)
    images = tuple(index + first for first, part in parts for index in part.ignored_images)
    return CaseScores(pair.name, classes, case_mean(classes, rule), pair.shape, pair.spacing, ignored, images)


def _volume(pair: StoredPair, rule: Rule, side: tuple[int, int, int] | None, steps: _Steps) -> CaseScores:
    """Score the volume as one."""
    if rule.mask_rule == "instance_match":
        raise RetinaError(
            f"{pair.name}: the data set counts whole predicted objects over volumes (mask_rule instance_match), which "
            "blocks do not hold. Cut out a part that fits memory, as files, and score that"
        )
    counts, ignored = {entry.name: Counts() for entry in rule.classes}, 0
    for box in steps.over(pair.blocks(side), rounds=2 if rule.distances else 1):
        labels = _read(pair, box, rule)
        valid = _valid(labels[1], rule)
        ignored += int(valid.size - np.count_nonzero(valid))
        for entry in rule.classes:
            counts[entry.name] += count_masks(*class_masks(entry, *labels, valid, rule))
    distances, classes = _Distances(pair, rule, counts, side, steps), {}
    for entry in rule.classes:
        unit = unit_of(None, counts[entry.name], rule, pair.spacing, distances.of(entry))
        classes[entry.name] = class_scores([unit] if ignored < prod(pair.shape) else [], rule)
    return CaseScores(pair.name, classes, case_mean(classes, rule), pair.shape, pair.spacing, ignored)


def _read(pair: StoredPair, box: Box, rule: Rule) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return prediction and ground truth of a box, with labels of the data set alone."""
    prediction, truth = pair.read(box)
    check_values(truth, pair.truth.path, rule)
    check_values(prediction, pair.prediction.path, rule)
    return prediction, truth


def _valid(truth: NDArray[Any], rule: Rule) -> Mask:
    return np.ones(truth.shape, bool) if rule.ignore is None else truth != rule.ignore


class _Distances:
    """Distances between prediction and ground truth, both ways, of every class that both have.

    Args:
        pair: of labels.
        rule: what is counted.
        counts: class -> its voxels.
        side: of the blocks.
        steps: reports them.
    """

    def __init__(
        self,
        pair: StoredPair,
        rule: Rule,
        counts: Mapping[str, Counts],
        side: tuple[int, int, int] | None,
        steps: _Steps,
    ) -> None:
        self._pair, self._rule, self._counts = pair, rule, counts
        self._read = lru_cache(maxsize=_HELD)(lambda *ends: pair.read(_box(ends)))
        wanted = [(Spacing.of((1.0, 1.0, 1.0)), 0.0)] if rule.distances else []
        if rule.distances and rule.tolerance is not None:
            wanted.append((pair.spacing, rule.tolerance))
        self._sums = {
            (entry.name, *key): (_Sum(), _Sum())
            for entry in rule.classes
            for key in wanted
            if counts[entry.name].tp + min(counts[entry.name].fp, counts[entry.name].fn)
        }
        for box in steps.over(pair.blocks(side) if self._sums else ()):
            for entry in rule.classes:
                self._add(entry, box)

    def of(self, entry: ScoredClass) -> Distances:
        """Return the function that gives the distances of a class."""
        counts = self._counts[entry.name]
        voxels = (counts.tp + counts.fp, counts.tp + counts.fn)

        def distances(spacing: Spacing, tolerance: float) -> tuple[Directed, Directed]:
            sums = self._sums.get((entry.name, spacing, tolerance))
            if sums is None:
                nan = float("nan")
                return Directed(voxels[0], nan, nan, voxels[0]), Directed(voxels[1], nan, nan, voxels[1])
            first, second = (
                Directed(n, sum_.total, sum_.maximum, sum_.beyond) for n, sum_ in zip(voxels, sums, strict=True)
            )
            return first, second

        return distances

    def _add(self, entry: ScoredClass, box: Box) -> None:
        """Add the distances of a class in a block."""
        keys = [key for key in self._sums if key[0] == entry.name]
        if not keys:
            return
        masks = self._masks(entry, box)
        for way in range(2):  # 0: from the prediction to the ground truth
            asked = masks[way] & ~masks[1 - way]
            if asked.any():
                for key in keys:
                    _, spacing, tolerance = key
                    for distances in self._measured(entry, box, asked, 1 - way, np.array(list(spacing))):
                        self._sums[key][way].add(distances, tolerance)

    def _masks(self, entry: ScoredClass, box: Box) -> tuple[Mask, Mask]:
        prediction, truth = self._read(*(end for part in box for end in (part.start, part.stop)))
        return class_masks(entry, prediction, truth, _valid(truth, self._rule), self._rule)

    def _measured(
        self, entry: ScoredClass, box: Box, asked: Mask, target: int, steps: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the distances of the voxels of a block that are asked for, to mask number ``target``."""
        places = np.argwhere(asked) + np.array([part.start for part in box])
        core, reach = box, _MARGIN * float(steps.min())
        while len(places):
            around, sure = self._around(entry, core, reach, steps)
            mask = self._masks(entry, around)[target]
            if mask.any():  # squared, as in ``distances.directed``
                inside = tuple((places - np.array([part.start for part in around])).T)
                squared = edt.edtsq(~mask, anisotropy=tuple(steps), order="C", parallel=available_cores())
                distances = np.sqrt(squared[inside].astype(np.float64))
                known = distances <= sure
                if known.any():
                    yield distances[known]
                places = places[~known]
            if len(places):
                core, reach = _box(np.stack([places.min(0), places.max(0) + 1], 1).ravel().tolist()), 2 * reach

    def _around(self, entry: ScoredClass, core: Box, reach: float, steps: NDArray[np.float64]) -> tuple[Box, float]:
        """Return the box of all within reach of ``core``, and the distance up to which those in it are exact."""
        ends, sure = [], np.inf
        for axis, (part, n) in enumerate(zip(core, self._pair.shape, strict=True)):
            margin = int(np.ceil(reach / steps[axis]))
            if part.start > margin or part.stop + margin < n:
                sure = min(sure, margin * float(steps[axis]))
            ends += [max(0, part.start - margin), min(n, part.stop + margin)]
        box = _box(ends)
        voxels = prod(part.stop - part.start for part in box)
        if voxels > LARGEST:
            raise RetinaError(
                f"{self._pair.name}: voxels of class {entry.name} are further than {reach / 2:g} from the nearest in "
                f"the other volume; their distance takes {voxels:,} voxels at once, more than {LARGEST:,}. Score with "
                "--no-distances, or cut both volumes, alike"
            )
        return box, sure


@dataclass
class _Sum:
    """What ``Directed`` sums up."""

    total: float = 0.0
    maximum: float = 0.0
    beyond: int = 0

    def add(self, distances: NDArray[np.float64], tolerance: float) -> None:
        """Add the distances of some voxels."""
        self.total += float(distances.sum())
        self.maximum = max(self.maximum, float(distances.max()))
        self.beyond += int(np.count_nonzero(distances > tolerance))


def _box(ends: Sequence[int]) -> Box:
    """Return the box of first and end along z, y and x."""
    z0, z1, y0, y1, x0, x1 = ends
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)
