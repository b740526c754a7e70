"""Scores of label volumes larger than memory, block by block: the numbers of the volumes in memory.

Counts add up. Distances are those to the nearest voxel in the block and a margin around it, where none outside can be
nearer; voxels that are further from it than the margin are looked at again with twice the margin. Scores over images
read whole slices, a few at a time, and score them as in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.cases import class_masks, score_case, unit_of
from nnunetv2_retina.evaluation.counts import Counts, Mask, count_masks
from nnunetv2_retina.evaluation.distances import Directed
from nnunetv2_retina.evaluation.pairs import check_values
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import CaseScores, Unit, case_mean, class_scores
from nnunetv2_retina.evaluation.stored import BLOCK, StoredPair
from nnunetv2_retina.images.ome_zarr import Box
from nnunetv2_retina.machine import available_cores
from nnunetv2_retina.spacing import Spacing

LARGEST = 2**27
"""Voxels that are read at once at most: a block with the margin that its distances need, or a slice."""
_MARGIN = 32
"""First margin, in voxels of the finest axis."""


def score_stored(pair: StoredPair, rule: Rule, side: tuple[int, int, int] | None = None) -> CaseScores:
    """Score a prediction in a Zarr store.

    Args:
        pair: of labels.
        rule: what is counted.
        side: of the blocks, along z, y and x; None: what suits the chunks, up to 2^24 voxels.

    Returns:
        The scores of ``score_case``; sums of distances are of other order, so may differ in the last digits.

    Raises:
        RetinaError: for labels that the data set lacks, or scores that need more of the volume at once than
            ``LARGEST`` voxels.
    """
    if rule.distances and rule.tolerance is not None and not pair.is_known:
        raise RetinaError(
            f"neither {pair.prediction.path} nor {pair.truth.path} states its spacing, and CREMI's scores are in nm. "
            "Write one of them as OME-Zarr, or score with --no-distances"
        )
    return _images(pair, rule, side) if rule.score_unit == "slice" else _volume(pair, rule, side)


def _images(pair: StoredPair, rule: Rule, side: tuple[int, int, int] | None) -> CaseScores:
    """Score each slice along z: whole slices are read, as many as make up a block."""
    z, y, x = pair.shape
    if y * x > LARGEST:
        raise RetinaError(
            f"{pair.name}: the data set scores whole images, and a slice of {y} x {x} pixels has more than "
            f"{LARGEST:,}. Cut prediction and ground truth into smaller volumes, alike"
        )
    depth = min(z, side[0] if side else max(1, BLOCK // (y * x)))
    parts = []
    for box in pair.blocks((depth, y, x)):
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


def _volume(pair: StoredPair, rule: Rule, side: tuple[int, int, int] | None) -> CaseScores:
    """Score the volume as one."""
    if rule.mask_rule == "instance_match":
        raise RetinaError(
            f"{pair.name}: the data set counts whole predicted objects over volumes (mask_rule instance_match), which "
            "blocks do not hold. Cut out a part that fits memory, as files, and score that"
        )
    counts, ignored = {entry.name: Counts() for entry in rule.classes}, 0
    for box in pair.blocks(side):
        labels = _read(pair, box, rule)
        valid = _valid(labels[1], rule)
        ignored += int(valid.size - np.count_nonzero(valid))
        for entry in rule.classes:
            counts[entry.name] += count_masks(*class_masks(entry, *labels, valid, rule))
    classes = {}
    for entry in rule.classes:
        units = []
        if ignored < prod(pair.shape):
            ways = _Ways(pair, rule, entry, counts[entry.name], side)
            units.append(unit_of(None, counts[entry.name], rule, pair.spacing, ways))
        classes[entry.name] = class_scores(units, rule)
    return CaseScores(pair.name, classes, case_mean(classes, rule), pair.shape, pair.spacing, ignored)


def _read(pair: StoredPair, box: Box, rule: Rule) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return prediction and ground truth of a box, with labels of the data set alone."""
    prediction, truth = pair.read(box)
    check_values(truth, pair.truth.path, rule)
    check_values(prediction, pair.prediction.path, rule)
    return prediction, truth


def _valid(truth: NDArray[Any], rule: Rule) -> Mask:
    return np.ones(truth.shape, bool) if rule.ignore is None else truth != rule.ignore


class _Ways:
    """Distances of one class between prediction and ground truth: both ways, whatever the spacing."""

    def __init__(
        self, pair: StoredPair, rule: Rule, entry: ScoredClass, counts: Counts, side: tuple[int, int, int] | None
    ) -> None:
        self._pair, self._rule, self._entry, self._counts, self._side = pair, rule, entry, counts, side

    def __call__(self, spacing: Spacing, tolerance: float) -> tuple[Directed, Directed]:
        voxels = (self._counts.tp + self._counts.fp, self._counts.tp + self._counts.fn)
        if not all(voxels):
            nan = float("nan")
            return Directed(voxels[0], nan, nan, voxels[0]), Directed(voxels[1], nan, nan, voxels[1])
        totals, most, beyond = [0.0, 0.0], [0.0, 0.0], [0, 0]
        for box in self._pair.blocks(self._side):
            masks = self._masks(box)
            for way in range(2):  # 0: from the prediction to the ground truth
                asked = masks[way] & ~masks[1 - way]
                for distances in self._distances(box, asked, 1 - way, np.array(list(spacing))):
                    totals[way] += float(distances.sum())
                    most[way] = max(most[way], float(distances.max()))
                    beyond[way] += int(np.count_nonzero(distances > tolerance))
        first, second = (Directed(voxels[way], totals[way], most[way], beyond[way]) for way in range(2))
        return first, second

    def _masks(self, box: Box) -> tuple[Mask, Mask]:
        prediction, truth = self._pair.read(box)
        return class_masks(self._entry, prediction, truth, _valid(truth, self._rule), self._rule)

    def _distances(
        self, box: Box, asked: Mask, target: int, steps: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the distances of the voxels of a block that are asked for, to mask number ``target``."""
        places = np.argwhere(asked) + np.array([part.start for part in box])
        reach = _MARGIN * float(steps.min())
        while len(places):
            around, sure = self._around(places, reach, steps)
            mask = self._masks(around)[target]
            inside = tuple((places - np.array([part.start for part in around])).T)
            if mask.any():  # squared, as in ``distances.directed``
                squared = edt.edtsq(~mask, anisotropy=tuple(steps), order="C", parallel=available_cores())
                distances = np.sqrt(squared[inside].astype(np.float64))
                known = distances <= sure
                if known.any():
                    yield distances[known]
                places = places[~known]
            reach *= 2

    def _around(self, places: NDArray[np.int64], reach: float, steps: NDArray[np.float64]) -> tuple[Box, float]:
        """Return the box that holds places and what is within reach of them, and the distance below which one that is
        found in it is right."""
        parts, sure = [], np.inf
        for axis, n in enumerate(self._pair.shape):
            margin = int(np.ceil(reach / steps[axis]))
            first, last = int(places[:, axis].min()) - margin, int(places[:, axis].max()) + 1 + margin
            if first > 0 or last < n:
                sure = min(sure, margin * float(steps[axis]))
            parts.append(slice(max(0, first), min(n, last)))
        box = (parts[0], parts[1], parts[2])
        voxels = prod(part.stop - part.start for part in box)
        if voxels > LARGEST:
            raise RetinaError(
                f"{self._pair.name}: a voxel of class {self._entry.name} is further than {reach / 2:g} from the "
                f"nearest in the other volume; its distance takes {voxels:,} voxels at once, more than {LARGEST:,}. Score with "
                "--no-distances, or cut both volumes, alike"
            )
        return box, sure
