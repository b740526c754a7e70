"""The figures of a study: which numbers are drawn, and where they go."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.display.plots import Box, Spread, boxes, convergence
from nnunetv2_retina.files import replacing
from nnunetv2_retina.study.findings.results import Result, StudyOutline
from nnunetv2_retina.study.findings.statistics import Comparison
from nnunetv2_retina.study.findings.summary import effect_text, p_text
from nnunetv2_retina.study.findings.tables import Row, Table, evaluated_iterations, seed_values


@dataclass(frozen=True)
class Figures:
    """Those of one row; None where there is too little to draw."""

    convergence: Path | None = None
    boxes: Path | None = None


def draw_figures(
    outline: StudyOutline,
    results: Sequence[Result],
    table: Table,
    comparisons: Sequence[Comparison],
    folder: Path,
) -> dict[str, Figures]:
    """Write the figures of every row as PNG files; earlier ones are replaced, never half.

    Args:
        outline: the study.
        results: of its runs.
        table: of the study's metric.
        comparisons: with the reference, from ``table``.
        folder: where to write; it exists.

    Returns:
        Name of the row -> its figures.
    """
    label = table.metric.label + (" (lower is better)" if table.metric.lower_is_better else "")
    figures = {}
    for row in table.rows:
        curves = spreads(outline, results, row, table.metric.key)
        name = re.sub(r"[^\w.+-]+", "_", row.name)
        over_iterations = beside = None
        if any(len(system.x) > 1 for system in curves):
            over_iterations = folder / f"convergence_{name}.png"
            with replacing(over_iterations) as temporary:
                convergence(temporary, curves, "iterations", label)
        if any(table.cells[row.name, system].n for system in table.systems):
            beside = folder / f"boxes_{name}.png"
            with replacing(beside) as temporary:
                boxes(temporary, run_boxes(table, row, outline.reference, comparisons), label)
        figures[row.name] = Figures(over_iterations, beside)
    return figures


def spreads(outline: StudyOutline, results: Sequence[Result], row: Row, metric: str) -> list[Spread]:
    """Score over iterations of every system of the study, in its order; those without a score have no run."""
    numbers = evaluated_iterations(results, row)
    drawn = []
    for system in outline.systems:
        columns = {n: seed_values(outline, results, row, system.name, n, metric) for n in numbers}
        x = [n for n, values in columns.items() if any(not math.isnan(value) for value in values)]
        runs = [list(run) for run in zip(*(columns[n] for n in x), strict=True)]
        runs = [run for run in runs if any(not math.isnan(value) for value in run)]
        drawn.append(Spread(system.name, x, runs))
    return drawn


def run_boxes(table: Table, row: Row, reference: str, comparisons: Sequence[Comparison]) -> list[Box]:
    """Return the runs of every system that ran on a row, with what the test against the reference gave."""
    notes = {entry.other: _note(entry) for entry in comparisons if entry.row == row}
    return [
        Box(
            system,
            table.cells[row.name, system].values,
            "reference" if system == reference else notes.get(system, ""),
            system == reference,
        )
        for system in table.systems
        if table.cells[row.name, system].iterations
    ]


def captions(outline: StudyOutline) -> Mapping[str, str]:
    """Return what stands below the two kinds of figures."""
    return {
        "convergence": "Lines: mean over the runs of each system; bands: from the worst run to the best. Where there "
        "are fewer than three runs, thin lines are the single runs.",
        "boxes": "Every point is a run after its last iteration; boxes: quartiles, with a line at the median. Above "
        f"them: p of the two-sided Mann-Whitney U test against {outline.reference}, not corrected, and A, the "
        f"probability that a run of {outline.reference} is better (0.5: no difference).",
    }


def _note(comparison: Comparison) -> str:
    if comparison.test is None:
        return "too few runs"
    return f"p = {p_text(comparison.test.p)}\nA = {effect_text(comparison.superiority)}"
