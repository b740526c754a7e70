"""Tables of a study's scores, as HTML: spreads and the paper's numbers stand small below each score."""

from __future__ import annotations

import html
from collections.abc import Sequence

from nnunetv2_retina.study.findings.paper_numbers import METRIC, published, published_iterations
from nnunetv2_retina.study.findings.results import StudyOutline
from nnunetv2_retina.study.findings.tables import Row, Table, shown_cell, shown_iterations

STYLE = (
    "<style>.scores td,.scores th{padding:.3em .6em;font-size:.9em}"
    ".scores small{display:block;color:#555;white-space:nowrap}.scores .paper{color:#0072b2}"
    "figure{margin:1.5em 0}figcaption{font-size:.9em;color:#555}h3{margin:1.4em 0 .2em}</style>"
)


OF_PAPER = '<small class="paper">'
"""How what is from the paper begins."""


def main_grid(outline: StudyOutline, table: Table) -> str:
    """Return a table of every row and system, with the paper's scores where it has them."""
    keys = {system.name: system.paper for system in outline.systems}
    rows = []
    for row in table.rows:
        iterations = published_iterations(row.paper) if table.metric.key == METRIC else None
        cells = [_cell("td", row.title), _cell("td", shown_iterations(table, row), _of_paper(iterations))]
        for system in table.systems:
            score = published(row.paper, keys[system], table.metric.key)
            cells.append(_score(table, row, system, _of_paper(None if score is None else table.metric.show(score))))
        rows.append(cells)
    return _grid(["data set", "iterations", *table.systems], rows)


def plain_grid(first: str, table: Table, only_scored: bool = False) -> str:
    """Return a table without the paper's scores; ``only_scored``: without rows and systems that have no score."""
    rows = [row for row in table.rows if table.ranking(row) or not only_scored]
    systems = [s for s in table.systems if not only_scored or any(table.cells[row.name, s].iterations for row in rows)]
    return _grid(
        [first, *systems],
        [[_cell("td", row.title), *(_score(table, row, system) for system in systems)] for row in rows],
    )


def iterations_grid(tables: dict[int, Table], name: str) -> str:
    """Return the scores of one row after several numbers of iterations, from a table for each number."""
    first = next(iter(tables.values()))
    place = [row.name for row in first.rows].index(name)
    rows = [
        [_cell("td", str(number)), *(_score(table, table.rows[place], system) for system in table.systems)]
        for number, table in tables.items()
    ]
    return _grid(["iterations", *first.systems], rows)


def _score(table: Table, row: Row, system: str, under: str = "") -> str:
    cell = table.cells[row.name, system]
    if not cell.n:
        return _cell("td", shown_cell(table, row, system), under)
    mean = table.metric.show(cell.mean)
    mean = f"<b>{mean}</b>" if table.is_best(row, system) else mean
    spread = f"± {table.metric.show(cell.deviation)} ({cell.counts})" if cell.n > 1 else f"({cell.counts})"
    return f"<td>{mean}<small>{html.escape(spread)}</small>{under}</td>"


def _of_paper(value: object) -> str:
    return "" if value is None else f"{OF_PAPER}{html.escape(f'paper: {value}')}</small>"


def _cell(kind: str, text: str, under: str = "") -> str:
    return f"<{kind}>{html.escape(text)}{under}</{kind}>"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells, which are HTML, below a header of plain text."""
    head = "".join(_cell("th", text) for text in header)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    table = f'<table class="scores">\n<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>'
    return f'<div class="wide">{table}</div>'
