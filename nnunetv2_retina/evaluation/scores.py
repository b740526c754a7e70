"""Scores of units, classes, cases and data sets, and how each is the mean of the ones before.

What one score is computed on (a unit) is a whole case, or an image of it: see ``Protocol.score_unit``. The means follow
RETINA's and CEM500K's released evaluation: over volumes, the mean of each volume's mean over classes; over images, the
mean of the whole table of images and classes. A value that is undefined is NaN, with the reason in words, and is left
out of the means; what was left out is listed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.counts import Counts, mean_score
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.images.spacing import Spacing

ALL_IGNORED = "every voxel is ignored"
Values = Mapping[str, float]


@dataclass(frozen=True)
class Unit:
    """One class on what one score is computed on."""

    index: int | None
    """The image's number along the first axis; None for a whole case."""
    counts: Counts
    values: Values
    """Metric -> value, NaN where undefined; the reason then is ``counts.undefined``."""


@dataclass(frozen=True)
class ClassScores:
    """One class of one case."""

    units: tuple[Unit, ...]
    """Without images that are ignored altogether."""
    values: Values
    """Metric -> mean over the units; NaN where undefined."""
    reasons: Mapping[str, str]
    """Metric -> why it is NaN."""


@dataclass(frozen=True)
class CaseScores:
    """One case."""

    name: str
    classes: Mapping[str, ClassScores]
    """Every class, whether it counts in the means or not."""
    mean: Values
    """Metric -> mean over the evaluated classes."""
    shape: tuple[int, ...]
    spacing: Spacing
    ignored: int
    """Voxels left out for their ground truth."""
    ignored_images: tuple[int, ...] = ()
    """Images of which every voxel is ignored, where images are scored."""


@dataclass(frozen=True)
class Scores:
    """All cases and their means."""

    rule: Rule
    cases: tuple[CaseScores, ...]
    classes: Mapping[str, Values]
    """Class -> metric -> mean over cases or images; every class."""
    mean: Values
    """Metric -> the mean score of the data set: evaluated classes only."""
    excluded: tuple[str, ...]
    """What was left out, in sentences."""
    dataset: str = ""
    extra_predictions: tuple[str, ...] = ()
    """Predictions without a ground truth; not scored."""


def class_scores(units: Sequence[Unit], rule: Rule) -> ClassScores:
    """Take the means over the units of a case."""
    values = _mean([unit.values for unit in units], rule)
    reason = " or ".join(dict.fromkeys(unit.counts.undefined for unit in units if unit.counts.undefined))
    undefined = {metric: reason or ALL_IGNORED for metric, value in values.items() if math.isnan(value)}
    return ClassScores(tuple(units), values, undefined)


def case_mean(classes: Mapping[str, ClassScores], rule: Rule) -> Values:
    """Return metric -> mean over a case's evaluated classes."""
    if rule.score_unit == "slice":
        return _mean([unit.values for unit in _evaluated_units(classes, rule)], rule)
    return _mean([classes[entry.name].values for entry in rule.classes if entry.evaluated], rule)


def combine(cases: Sequence[CaseScores], rule: Rule) -> Scores:
    """Take the means over cases.

    Raises:
        RetinaError: without a case.
    """
    if not cases:
        raise RetinaError("no case to take means of; expected at least one")
    of_class = {entry.name: [case.classes[entry.name] for case in cases] for entry in rule.classes}
    if rule.score_unit == "slice":
        per_class = {
            name: _mean([u.values for s in scores for u in s.units], rule) for name, scores in of_class.items()
        }
        mean = _mean([unit.values for case in cases for unit in _evaluated_units(case.classes, rule)], rule)
    else:
        per_class = {name: _mean([s.values for s in scores], rule) for name, scores in of_class.items()}
        mean = _mean([case.mean for case in cases], rule)
    return Scores(rule, tuple(cases), per_class, mean, tuple(_excluded(cases, rule)))


def _evaluated_units(classes: Mapping[str, ClassScores], rule: Rule) -> Iterator[Unit]:
    for entry in rule.classes:
        if entry.evaluated:
            yield from classes[entry.name].units


def _mean(rows: Sequence[Values], rule: Rule) -> Values:
    """Return metric -> mean of the defined values."""
    return {metric.key: mean_score([row[metric.key] for row in rows]) for metric in rule.metrics}


def _excluded(cases: Sequence[CaseScores], rule: Rule) -> Iterator[str]:
    """Yield sentences on ignored voxels, images and undefined values."""
    ignored = sum(case.ignored for case in cases)
    if ignored:
        total = sum(math.prod(case.shape) for case in cases)
        yield f"{ignored:,} of {total:,} voxels are ignored (ground truth {rule.ignore})"
    images = [f"{case.name} image {z}" for case in cases for z in case.ignored_images]
    if images:
        yield f"{len(images)} images not scored, {ALL_IGNORED}: {shorten(images)}"
    metrics_of: dict[str, list[str]] = {}
    for metric in rule.metrics:
        entries = list(_entries(cases, rule, metric.key))
        undefined = [(place, reason) for place, reason, value in entries if math.isnan(value)]
        if undefined:
            reasons = "; ".join(f"{number} {reason}" for reason, number in Counter(r for _, r in undefined).items())
            text = f"{len(undefined)} of {len(entries)} values undefined, left out of the means ({reasons}): "
            metrics_of.setdefault(text + shorten(place for place, _ in undefined), []).append(metric.key)
    for text, metrics in metrics_of.items():
        yield f"{', '.join(metrics)}: {text}"


def _entries(cases: Sequence[CaseScores], rule: Rule, metric: str) -> Iterator[tuple[str, str, float]]:
    """Yield place, reason and value of everything that goes into the means."""
    for case in cases:
        for entry in rule.classes:
            if not entry.evaluated:
                continue
            place, scores = f"{case.name} {entry.name}", case.classes[entry.name]
            if not scores.units:
                yield place, ALL_IGNORED, math.nan
            for unit in scores.units:
                image = "" if unit.index is None else f" image {unit.index}"
                yield place + image, unit.counts.undefined, unit.values[metric]
