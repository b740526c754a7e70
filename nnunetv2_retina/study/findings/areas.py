"""How soon a system is how good: the area under its scores over the logarithm of the iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nnunetv2_retina.study.findings.results import Evaluation, Result, StudyOutline
from nnunetv2_retina.study.findings.statistics import Comparison, compare
from nnunetv2_retina.study.findings.tables import Table, build_table

AREA = (
    "Mean {label} over the logarithm of the iterations, of those at which every run of a data set was scored: the area "
    "under the convergence curve, divided by its width. Who is good sooner has more."
)


@dataclass(frozen=True)
class Areas:
    """The areas of a study's runs, in place of their scores."""

    table: Table
    comparisons: Sequence[Comparison]


def mean_over_training(scores: Mapping[int, float]) -> float:
    """Return the mean of scores over the logarithm of the iterations at which they were taken, by trapezoids.

    The area under the curve divided by its width: in the unit of the scores, and equal to the score of a system that
    stays the same. NaN if a score is, or for fewer than two.
    """
    if len(scores) < 2:
        return math.nan
    points = sorted((math.log(number), score) for number, score in scores.items())
    area = sum((b - a) * (first + second) / 2 for (a, first), (b, second) in pairwise(points))
    return area / (points[-1][0] - points[0][0])


def areas(results: Sequence[Result], metric: str) -> list[Result]:
    """Return results whose only score is their mean over training.

    It is over the iterations that all runs of a data set have. Data sets whose runs share fewer than two are left out.
    """
    replaced = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        runs = [result for result in results if result.dataset == dataset]
        shared = sorted(set.intersection(*(set(run.scores) for run in runs)))
        if len(shared) < 2:
            continue
        for run in runs:
            area = mean_over_training({number: run.scores[number].mean.get(metric, math.nan) for number in shared})
            replaced.append(replace(run, scores={shared[-1]: Evaluation({metric: area})}))
    return replaced


def compare_areas(outline: StudyOutline, results: Sequence[Result]) -> Areas | None:
    """Return the table of the areas and the reference's tests; None where no data set has an area."""
    replaced = areas(results, outline.metric)
    if not replaced:
        return None
    table = build_table(outline, replaced)
    return Areas(table, compare(table, outline.reference))
