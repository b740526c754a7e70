"""Scores of one prediction in memory, class by class, on a whole volume or on each of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import Counts, Mask, check_labels, count_masks, matched_objects
from nnunetv2_retina.evaluation.distances import Directed, both_ways, cremi_scores, false_distance
from nnunetv2_retina.evaluation.metric import CREMI, IOU, SHARES
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import CaseScores, Unit, case_mean, class_scores
from nnunetv2_retina.images.spacing import Spacing

Distances = Callable[[Spacing, float], tuple[Directed, Directed]]
"""Spacing and tolerance -> prediction to ground truth, and back."""


def score_case(
    name: str, prediction: NDArray[Any], truth: NDArray[Any], rule: Rule, spacing: Spacing | None = None
) -> CaseScores:
    """Score one prediction.

    Args:
        name: the case's name.
        prediction: label values, whole numbers, (Z, Y, X) or (Y, X).
        truth: label values of the same shape.
        rule: what is counted.
        spacing: of the ground truth, in nm, for CREMI's scores; None: 1 along each axis.

    Raises:
        RetinaError: if the shapes differ, or an array does not hold whole numbers.
    """
    prediction, truth, steps = _as_volumes(name, prediction, truth, spacing)
    valid = np.ones(truth.shape, bool) if rule.ignore is None else truth != rule.ignore
    units = _units(valid, rule)
    classes = {}
    for entry in rule.classes:
        scores = []
        for index, part in units:
            masks = class_masks(entry, prediction[part], truth[part], valid[part], rule)
            scores.append(_score(index, masks, rule, steps))
        classes[entry.name] = class_scores(scores, rule)
    ignored = {*range(len(truth))} - {index for index, _ in units} if rule.score_unit == "slice" else set()
    return CaseScores(
        name=name,
        classes=classes,
        mean=case_mean(classes, rule),
        shape=truth.shape,
        spacing=steps,
        ignored=int(valid.size - np.count_nonzero(valid)),
        ignored_images=tuple(sorted(ignored)),
    )


def _as_volumes(
    name: str, prediction: NDArray[Any], truth: NDArray[Any], spacing: Spacing | None
) -> tuple[NDArray[Any], NDArray[Any], Spacing]:
    """Return both as (Z, Y, X), and the spacing along z, y, x."""
    check_labels(prediction, truth)
    if truth.ndim not in (2, 3) or (spacing is not None and len(spacing) != truth.ndim):
        steps = "" if spacing is None else f" with spacing {tuple(spacing)}"
        raise RetinaError(
            f"case {name}: labels of shape {truth.shape}{steps}; expected (Z, Y, X) or (Y, X), and a number for each "
            "axis"
        )
    spacing = spacing or Spacing.of((1.0,) * truth.ndim)
    if truth.ndim == 2:
        return prediction[None], truth[None], replace(spacing, z=1.0)
    return prediction, truth, spacing


def _units(valid: Mask, rule: Rule) -> list[tuple[int | None, slice]]:
    """Return number and part along the first axis of what is scored: those with a voxel that is not ignored."""
    if rule.score_unit == "volume":
        return [(None, slice(None))] if valid.any() else []
    return [(z, slice(z, z + 1)) for z in range(len(valid)) if valid[z].any()]


def class_masks(
    entry: ScoredClass, prediction: NDArray[Any], truth: NDArray[Any], valid: Mask, rule: Rule
) -> tuple[Mask, Mask]:
    """Return prediction and ground truth of a class as the rule counts them."""
    predicted, actual = _where(prediction, entry.values) & valid, _where(truth, entry.values) & valid
    if rule.mask_rule == "foreground":
        predicted &= truth != 0
    elif rule.mask_rule == "instance_match":
        predicted = matched_objects(predicted, actual)
    return predicted, actual


def _where(labels: NDArray[Any], values: Sequence[int]) -> Mask:
    mask: Mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def _score(index: int | None, masks: tuple[Mask, Mask], rule: Rule, spacing: Spacing) -> Unit:
    """Compute every metric of one class on one unit."""
    predicted, actual = masks

    def distances(steps: Spacing, tolerance: float) -> tuple[Directed, Directed]:
        return both_ways(predicted, actual, steps, tolerance)

    return unit_of(index, count_masks(predicted, actual), rule, spacing, distances)


def unit_of(index: int | None, counts: Counts, rule: Rule, spacing: Spacing, distances: Distances) -> Unit:
    """Put together what was counted and measured of one class on one unit.

    Args:
        index: of the image; None: a whole case.
        counts: voxels.
        rule: what is wanted.
        spacing: in nm, for CREMI's scores.
        distances: measures both directions; called for what is wanted alone.
    """
    values: dict[str, float] = {metric.key: getattr(counts, metric.key) for metric in SHARES}
    if index is not None:
        values[IOU.key] = counts.smoothed_iou
    if rule.distances:
        distance = false_distance(*distances(Spacing.of((1.0, 1.0, 1.0)), 0.0))
        values |= {"mfd_hausdorff": distance.hausdorff, "mfd_mean": distance.mean}
    if rule.distances and rule.tolerance is not None:
        cremi = cremi_scores(*distances(spacing, rule.tolerance))
        values |= {metric.key: getattr(cremi, metric.key.removeprefix("cremi_")) for metric in CREMI}
    return Unit(index, counts, values)
