"""A study's scores as files: JSON and CSV with all of them, tables as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nnunetv2_retina.evaluation.metric import metric_of
from nnunetv2_retina.study.findings.areas import Areas
from nnunetv2_retina.study.findings.paper_numbers import SOURCE, published, published_iterations
from nnunetv2_retina.study.findings.results import Result, StudyOutline, Values
from nnunetv2_retina.study.findings.statistics import Comparison
from nnunetv2_retina.study.findings.summary import difference_text, effect_text, p_text
from nnunetv2_retina.study.findings.tables import Cell, Table, shown_cell, shown_iterations

SCORES_JSON, SCORES_CSV, TABLES = "scores.json", "scores.csv", "tables.md"
_TESTS = (
    "Difference: mean of {reference} minus mean of the other, with Welch's 95 % interval. A: probability that a run of "
    "{reference} is better than one of the other (equal ones count half); r = 2 A - 1: rank-biserial correlation. p: "
    "two-sided Mann-Whitney U test, runs taken as independent; exact unless said otherwise. Holm: corrected for all "
    "tests in this table. Least p: what so many runs give at best. Pairs: runs of one seed, the mean of their "
    "differences, and a two-sided test by flipping their signs, exact unless said otherwise. A dash: too few runs."
)
_PRIMARY = " Named beforehand: the {number} marked *; Holm, pairs: corrected for these alone."
_COLUMNS = ("dataset", "system", "seed", "iteration", "level", "name", "metric", "value")


def scores_json(
    outline: StudyOutline,
    results: Sequence[Result],
    tables: Mapping[str, Table],
    comparisons: Sequence[Comparison],
    areas: Areas | None = None,
) -> str:
    """Return everything the report is made of; undefined values are null."""
    content = {
        "format_version": 1,
        "study": outline.name,
        "reference": outline.reference,
        "metric": outline.metric,
        "seeds": list(outline.seeds),
        "runs_planned": len(outline.runs),
        "runs_found": len(results),
        "metrics": {key: table.metric.meaning for key, table in tables.items()},
        "datasets": {entry.name: {"title": entry.title, "group": entry.group} for entry in outline.datasets},
        "systems": [entry.name for entry in outline.systems],
        "tables": {metric: _table_json(table) for metric, table in tables.items()},
        "comparisons": [_comparison_json(entry) for entry in comparisons],
        "areas": None
        if areas is None
        else {
            "table": _table_json(areas.table),
            "comparisons": [_comparison_json(entry) for entry in areas.comparisons],
        },
        "paper": {"source": SOURCE, "scores": _paper_json(outline, tables[outline.metric])},
        "runs": [_run_json(result) for result in results],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def scores_csv(results: Iterable[Result]) -> str:
    """Return one value a line: ``level`` is mean, class or case, ``name`` which; the value is empty where undefined."""
    return _csv([_COLUMNS, *(row for result in results for row in _result_rows(result))])


def table_csv(table: Table) -> str:
    """Return a row per data set, with, for each system its iterations, mean, standard deviation, and number of runs."""
    header = ["data set"]
    for system in table.systems:
        header += [f"{system}: {column}" for column in ("iterations", "mean", "sd", "n", "undefined")]
    rows = [header]
    for row in table.rows:
        cells = [row.title]
        for system in table.systems:
            cell = table.cells[row.name, system]
            numbers = " ".join(map(str, cell.iterations))
            cells += [numbers, _number(cell.mean), _number(cell.deviation), str(cell.n), str(cell.undefined)]
        rows.append(cells)
    return _csv(rows)


def tables_markdown(
    outline: StudyOutline, tables: Mapping[str, Table], comparisons: Sequence[Comparison], areas: Areas | None = None
) -> str:
    """Return every metric's table, the paper's numbers, the tests and the areas, as Markdown."""
    parts = [f"# {outline.name}", "Mean ± standard deviation (number of runs); the best of a row is bold."]
    for table in tables.values():
        if table.is_empty:
            continue
        parts += [f"## {table.metric.label}", f"{table.metric.meaning}.", _markdown(*score_rows(table))]
    beside = paper_rows(outline, tables[outline.metric])
    if len(beside) > 1:
        parts += ["## Beside the paper", f"{SOURCE}.", _markdown(*beside)]
    if comparisons:
        parts += [f"## {outline.reference} against the others", comparison_text(outline)]
        parts += [_markdown(*comparison_rows(comparisons))]
    if areas is not None:
        parts += ["## Over the iterations", areas.meaning, _markdown(*score_rows(areas.table))]
        parts += [_markdown(*comparison_rows(areas.comparisons))] if areas.comparisons else []
    return "\n\n".join(parts) + "\n"


def score_rows(table: Table) -> list[list[str]]:
    """Return header and rows of a table as text, the best of each row in ``**``."""
    rows = [["data set", "iterations", *table.systems]]
    for row in table.rows:
        cells = [
            f"**{shown_cell(table, row, system)}**" if table.is_best(row, system) else shown_cell(table, row, system)
            for system in table.systems
        ]
        rows.append([row.title, shown_iterations(table, row), *cells])
    return rows


def paper_rows(outline: StudyOutline, table: Table) -> list[list[str]]:
    """Return header and a row for each score that the paper has too."""
    rows = [["data set", "system", "iterations here", "in the paper", "mean here", "in the paper", "difference"]]
    for row in table.rows:
        for system in outline.systems:
            score = published(row.paper, system.paper, table.metric.key)
            cell = table.cells[row.name, system.name]
            if score is None or not cell.n:
                continue
            numbers = ", ".join(map(str, cell.iterations))
            show = table.metric.show
            values = [show(cell.mean), show(score), show(cell.mean - score, signed=True)]
            rows.append([row.title, system.name, numbers, str(published_iterations(row.paper)), *values])
    return rows


def comparison_text(outline: StudyOutline) -> str:
    """Say what the columns of ``comparison_rows`` are."""
    text = _TESTS.format(reference=outline.reference)
    text += _PRIMARY.format(number=len(outline.primary)) if outline.primary else ""
    return text + (" Lower scores are better." if metric_of(outline.metric).lower_is_better else "")


def comparison_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return header and a row for each comparison."""
    header = ["data set", "against", "runs", "difference (95 % interval)", "A", "r", "U", "p", "p, Holm", "least p"]
    rows = [[*header, "pairs", "difference, pairs", "p, pairs", "p, pairs, Holm", "least p, pairs"]]
    for entry in comparisons:
        other = f"{entry.other} *" if entry.primary else entry.other
        base = [entry.row.title, other, f"{entry.n_reference}, {entry.n_other}", difference_text(entry)]
        if entry.test is None:
            rows.append([*base, *["-"] * (len(rows[0]) - len(base))])
            continue
        effects = [effect_text(entry.superiority), effect_text(entry.rank_biserial), f"{entry.test.u:g}"]
        p = p_text(entry.test.p) + ("" if entry.test.exact else " (normal approximation)")
        rows.append([*base, *effects, p, p_text(entry.p_holm), p_text(entry.smallest_p), *_paired_texts(entry)])
    return rows


def _paired_texts(entry: Comparison) -> list[str]:
    pairs = entry.paired
    if pairs is None:
        return ["-"] * 5
    difference = entry.metric.show(pairs.mean, signed=True)
    p = p_text(pairs.p) + ("" if pairs.exact else " (random signs)")
    return [f"{pairs.n}", difference, p, p_text(entry.paired_p_holm), p_text(pairs.smallest_p)]


def _table_json(table: Table) -> dict[str, Any]:
    return {
        row.name: {system: _cell_json(table.cells[row.name, system]) for system in table.systems} for row in table.rows
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "mean": _defined(cell.mean),
        "sd": _defined(cell.deviation),
        "n": cell.n,
        "values": list(cell.values),
        "seeds": list(cell.seeds),
        "undefined": cell.undefined,
        "missing_seeds": list(cell.missing),
        "iterations": list(cell.iterations),
    }


def _comparison_json(entry: Comparison) -> dict[str, Any]:
    test, difference, pairs = entry.test, entry.difference, entry.paired
    interval = None if difference is None or math.isnan(difference.low) else [difference.low, difference.high]
    return {
        "dataset": entry.row.name,
        "metric": entry.metric.key,
        "reference": entry.reference,
        "other": entry.other,
        "n": [entry.n_reference, entry.n_other],
        "u": None if test is None else test.u,
        "p": None if test is None else test.p,
        "exact": None if test is None else test.exact,
        "p_holm": _defined(entry.p_holm),
        "smallest_p": _defined(entry.smallest_p),
        "probability_reference_better": _defined(entry.superiority),
        "rank_biserial": _defined(entry.rank_biserial),
        "difference_of_means": None if difference is None else difference.value,
        "interval_95": interval,
        "pairs": None if pairs is None else asdict(pairs) | {"p_holm": _defined(entry.paired_p_holm)},
        "primary": entry.primary,
        "reason": entry.reason or None,
    }


def _paper_json(outline: StudyOutline, table: Table) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for row in table.rows:
        for system in outline.systems:
            score = published(row.paper, system.paper, table.metric.key)
            if score is not None:
                scores.setdefault(row.name, {})[system.name] = score
    return scores


def _run_json(result: Result) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "system": result.system,
        "seed": result.seed,
        "scores": {
            str(number): {
                "mean": _values_json(evaluation.mean),
                "classes": {name: _values_json(values) for name, values in evaluation.classes.items()},
                "cases": {name: _values_json(values) for name, values in evaluation.cases.items()},
            }
            for number, evaluation in result.scores.items()
        },
        "seconds_per_iteration": _defined(result.seconds_per_iteration),
        "training_seconds": _defined(result.training_seconds),
        "prediction_seconds": _defined(result.prediction_seconds),
        "parameters": dict(result.parameters),
        "made_by": dict(result.made_by),
    }


def _values_json(values: Values) -> dict[str, float | None]:
    return {metric: _defined(value) for metric, value in values.items()}


def _result_rows(result: Result) -> Iterator[Sequence[str]]:
    start = (result.dataset, result.system, str(result.seed))
    for number, evaluation in result.scores.items():
        levels: list[tuple[str, str, Values]] = [("mean", "", evaluation.mean)]
        levels += [("class", name, values) for name, values in evaluation.classes.items()]
        levels += [("case", name, values) for name, values in evaluation.cases.items()]
        for level, name, values in levels:
            for metric, value in values.items():
                yield (*start, str(number), level, name, metric, _number(value))


def _markdown(header: Sequence[str], *rows: Sequence[str]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
