"""How soon a system is how good: the area under its scores over the logarithm of the iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nnunetv2_retina.study.findings.results import Evaluation, Result, StudyOutline
from nnunetv2_retina.study.findings.statistics import Comparison, compare
from nnunetv2_retina.study.findings.tables import Table, build_table

_AREA = (
    "Mean {label} over the logarithm of the iterations, of those at which every run of a data set was scored: the area "
    "under the convergence curve, divided by its width. Who is good sooner has more.{left_out}"
)
_LEFT_OUT = " Left out, for they were scored at their end alone: {names}."


@dataclass(frozen=True)
class Areas:
    """The areas of a study's runs, in place of their scores."""

    table: Table
    comparisons: Sequence[Comparison]
    left_out: Sequence[str] = ()
    """Systems that have runs, but none with a curve."""

    @property
    def meaning(self) -> str:
        """Say what they are, and of which systems there is none."""
        left_out = _LEFT_OUT.format(names=", ".join(self.left_out)) if self.left_out else ""
        return _AREA.format(label=self.table.metric.label, left_out=left_out)


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

    It is over the iterations that all runs of a data set have. Runs that were scored only once have no curve, and are
    left out, as are data sets whose runs share fewer than two.
    """
    replaced = []
    for dataset in dict.fromkeys(result.dataset for result in results):
        runs = [result for result in results if result.dataset == dataset and len(result.scores) > 1]
        shared = sorted(set.intersection(*(set(run.scores) for run in runs))) if runs else []
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
    ran, drawn = ({result.system for result in part} for part in (results, replaced))
    left_out = [system.name for system in outline.systems if system.name in ran - drawn]
    return Areas(table, compare(table, outline.reference), left_out)
