"""Tables of a report's scores, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_retina.display.pages import bullets, details, table
from nnunetv2_retina.evaluation.output import MEAN
from nnunetv2_retina.evaluation.scores import CaseScores, Scores, Values

_TITLES = {"iou": "IoU", "f": "F"}
_COUNTS = frozenset({"cremi_fp", "cremi_fn"})
_LENGTHS = frozenset({"mfd_hausdorff", "mfd_mean", "cremi_adgt", "cremi_adf", "cremi_score"})
_MOST_OPEN = 12
"""Rows of a table that is not folded."""


def score_tables(scores: Scores) -> list[str]:
    """Means of the classes, the rule in words, every case, and what the columns mean."""
    metrics = list(scores.rule.metrics)
    titles = [_TITLES.get(metric, metric.replace("_", " ")) for metric in metrics]
    aside = {entry.name for entry in scores.rule.classes if not entry.evaluated}
    means = [[_aside(name, aside), *_cells(values, metrics)] for name, values in scores.classes.items()]
    if len(scores.classes) > 1:
        means.append([MEAN, *_cells(scores.mean, metrics)])
    rows = [row for case in scores.cases for row in _case_rows(case, metrics, aside)]
    header = ["case", "class", *titles]
    if any(row[-1] for row in rows):
        header.append("why undefined")
    else:
        rows = [row[:-1] for row in rows]
    every = table(header, rows)
    said = [f"Rule: {sentence}." for sentence in scores.rule.sentences()]
    said += [f"Left out: {sentence}." for sentence in scores.excluded]
    told = [[title, scores.rule.metrics[metric]] for metric, title in zip(metrics, titles, strict=True)]
    return [
        table(["class", *titles], means),
        bullets([*said, *(["(): not in the means."] if aside else [])]),
        every if len(rows) <= _MOST_OPEN else details(f"Every case ({len(scores.cases)})", every),
        details("What the columns mean", table([], told)),
    ]


def _case_rows(case: CaseScores, metrics: Sequence[str], aside: set[str]) -> list[list[str]]:
    """A row a class, the reason of what is undefined in it at the end; and one of the means, of several classes."""
    rows = []
    for name, scores in case.classes.items():
        reasons = " or ".join(dict.fromkeys(scores.reasons.values()))
        rows.append([case.name, _aside(name, aside), *_cells(scores.values, metrics), reasons])
    if len(case.classes) > 1:
        rows.append([case.name, MEAN, *_cells(case.mean, metrics), ""])
    return rows


def _aside(name: str, aside: set[str]) -> str:
    return f"({name})" if name in aside else name


def _cells(values: Values, metrics: Sequence[str]) -> list[str]:
    return [_cell(metric, values[metric]) for metric in metrics]


def _cell(metric: str, value: float) -> str:
    if value != value:
        return "undefined"
    return f"{value:.0f}" if metric in _COUNTS else f"{value:.2f}" if metric in _LENGTHS else f"{value:.3f}"
