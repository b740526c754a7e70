"""Tables of a report's scores, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_retina.display.pages import bullets, details, table
from nnunetv2_retina.evaluation.metric import Metric
from nnunetv2_retina.evaluation.output import MEAN
from nnunetv2_retina.evaluation.scores import CaseScores, Scores, Values

_MOST_OPEN = 12
"""Rows of a table that is not folded."""


def score_tables(scores: Scores) -> list[str]:
    """Return the means of the classes, the rule in words, every case, and what the columns mean."""
    metrics = scores.rule.metrics
    apart = {entry.name for entry in scores.rule.classes if not entry.evaluated}
    means = [[_class_name(name, apart), *_cells(values, metrics)] for name, values in scores.classes.items()]
    if len(scores.classes) > 1:
        means.append([MEAN, *_cells(scores.mean, metrics)])
    rows = [row for case in scores.cases for row in _case_rows(case, metrics, apart)]
    titles = [metric.short for metric in metrics]
    header = ["case", "class", *titles]
    if any(row[-1] for row in rows):
        header.append("why undefined")
    else:
        rows = [row[:-1] for row in rows]
    every = table(header, rows)
    sentences = [f"Rule: {sentence}." for sentence in scores.rule.sentences()]
    sentences += [f"Left out: {sentence}." for sentence in scores.excluded]
    return [
        table(["class", *titles], means),
        bullets([*sentences, *(["(): not in the means."] if apart else [])]),
        every if len(rows) <= _MOST_OPEN else details(f"Every case ({len(scores.cases)})", every),
        details("What the columns mean", table([], [[metric.short, metric.meaning] for metric in metrics])),
    ]


def _case_rows(case: CaseScores, metrics: Sequence[Metric], apart: set[str]) -> list[list[str]]:
    """Return a row for each class, at its end why values are undefined; and one of the means of several classes."""
    rows = []
    for name, scores in case.classes.items():
        reasons = " or ".join(dict.fromkeys(scores.reasons.values()))
        rows.append([case.name, _class_name(name, apart), *_cells(scores.values, metrics), reasons])
    if len(case.classes) > 1:
        rows.append([case.name, MEAN, *_cells(case.mean, metrics), ""])
    return rows


def _class_name(name: str, apart: set[str]) -> str:
    return f"({name})" if name in apart else name


def _cells(values: Values, metrics: Sequence[Metric]) -> list[str]:
    return [metric.show(values[metric.key]) for metric in metrics]
