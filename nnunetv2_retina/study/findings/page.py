"""The report of a study: its files, and a page that stands alone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.display import pages
from nnunetv2_retina.evaluation.output import prepare_output
from nnunetv2_retina.evaluation.rule import LOWER_IS_BETTER
from nnunetv2_retina.files import write_text
from nnunetv2_retina.study.findings.figures import Figures, captions, draw_figures
from nnunetv2_retina.study.findings.files import (
    SCORES_CSV,
    SCORES_JSON,
    TABLES,
    comparison_rows,
    paper_rows,
    scores_csv,
    scores_json,
    table_csv,
    tables_markdown,
)
from nnunetv2_retina.study.findings.paper_numbers import SOURCE, published, published_iterations
from nnunetv2_retina.study.findings.provenance import differences, setup_rows, time_rows, total_time, version_rows
from nnunetv2_retina.study.findings.results import Result, StudyOutline, known_metrics, select
from nnunetv2_retina.study.findings.statistics import Comparison, compare
from nnunetv2_retina.study.findings.summary import (
    beside_the_paper,
    beyond_chance,
    completeness,
    rankings,
    undefined_scores,
)
from nnunetv2_retina.study.findings.tables import (
    Table,
    build_table,
    class_tables,
    evaluated_iterations,
    metric_label,
    shown,
    shown_cell,
    shown_iterations,
)

REPORT = "report.html"
_ADVICE = "Give another output folder"
_STYLE = (
    "<style>.scores td,.scores th{padding:.3em .6em;font-size:.9em}"
    ".scores small{display:block;color:#555;white-space:nowrap}.scores .paper{color:#0072b2}"
    "figure{margin:1.5em 0}figcaption{font-size:.9em;color:#555}h3{margin:1.4em 0 .2em}</style>"
)
_TESTS = (
    "Difference: mean of {reference} minus mean of the other, with Welch's 95 % interval. A: probability that a run of "
    "{reference} is better than one of the other (equal ones count half); r = 2 A - 1: rank-biserial correlation. p: "
    "two-sided Mann-Whitney U test, runs taken as independent; exact unless said otherwise. Holm: corrected for all "
    "tests in this table. Least p: what so many runs give at best. A dash: too few runs."
)


@dataclass(frozen=True)
class _Study:
    """Everything the page is made of."""

    outline: StudyOutline
    results: Sequence[Result]
    metrics: Mapping[str, str]
    tables: Mapping[str, Table]
    """Metric -> table; the study's first."""
    comparisons: Sequence[Comparison]
    figures: Mapping[str, Figures]

    @property
    def main(self) -> Table:
        """The table of the study's metric."""
        return self.tables[self.outline.metric]


def write_report(
    outline: StudyOutline,
    results: Sequence[Result],
    folder: Path,
    pictures: Mapping[str, Path] | None = None,
    notes: Sequence[str] = (),
    planned: int | None = None,
) -> Path:
    """Write scores, tables, figures and the page. Earlier ones are replaced, never half.

    Works with any part of a study, none of its runs included.

    Args:
        outline: the study.
        results: of its finished runs; those that are not of this study are left out.
        folder: where to write; it is made.
        pictures: title -> PNG file, embedded in the page.
        notes: sentences that must not be overlooked, such as on runs that failed.
        planned: number of runs there should be; None: every system on every data set from every seed.

    Returns:
        The page, which needs no other file.

    Raises:
        RetinaError: if the folder cannot be written into.
    """
    prepare_output(folder)
    results = select(results, outline)
    metrics = known_metrics(results, outline.metric)
    tables = {metric: build_table(outline, results, metric) for metric in metrics}
    comparisons = compare(tables[outline.metric], outline.reference)
    figures = draw_figures(outline, results, tables[outline.metric], comparisons, folder)
    write_text(folder / SCORES_JSON, scores_json(outline, results, tables, comparisons, metrics, planned), _ADVICE)
    write_text(folder / SCORES_CSV, scores_csv(results), _ADVICE)
    for metric, table in tables.items():
        write_text(folder / f"table_{metric}.csv", table_csv(table), _ADVICE)
    write_text(folder / TABLES, tables_markdown(outline, tables, comparisons, metrics), _ADVICE)
    study = _Study(outline, results, metrics, tables, comparisons, figures)
    sections = {
        "Summary": _summary(study, notes, planned),
        "Scores": _scores(study),
        "Beside the paper": _paper(study),
        f"{outline.reference} against the others": _tests(study),
        "Figures": _figures(study),
        "Classes": _classes(study),
        "Other metrics": _other_metrics(study),
        "Over the iterations": _over_iterations(study),
        "Pictures": _pictures(pictures or {}),
        "Time": _time(study),
        "How it was made": _provenance(study),
    }
    sections = {title: blocks for title, blocks in sections.items() if blocks}
    blocks = [_STYLE, pages.contents(list(sections))]
    for title, section in sections.items():
        blocks += [pages.heading(title), *section]
    return write_text(folder / REPORT, pages.html_page(outline.name, blocks), _ADVICE)


def _summary(study: _Study, notes: Sequence[str], planned: int | None) -> list[str]:
    outline, table = study.outline, study.main
    blocks = [pages.notice(note) for note in notes]
    complete, *absent = completeness(outline, study.results, planned)
    blocks += [pages.notice(complete) if absent else pages.paragraph(complete)]
    blocks += [pages.details("Which runs are missing", _listing(absent))] if absent else []
    if study.results:
        text = f"{metric_label(table.metric)}, mean ± standard deviation (number of runs):"
        blocks += [pages.paragraph(text), _listing(rankings(table, outline.reference))]
    said = [*beyond_chance(study.comparisons), *undefined_scores(table), *beside_the_paper(outline, table)]
    return [*blocks, *(pages.paragraph(sentence) for sentence in said)]


def _scores(study: _Study) -> list[str]:
    table, outline = study.main, study.outline
    keys = {system.name: system.paper for system in outline.systems}
    header = [_cell("th", "data set"), _cell("th", "iterations"), *(_cell("th", name) for name in table.systems)]
    rows, any_paper = [header], False
    for row in table.rows:
        iterations = published_iterations(row.paper) if table.metric == "iou" else None
        told = "" if iterations is None else _small(f"paper: {iterations}", "paper")
        cells = [_cell("td", row.title), _cell("td", shown_iterations(table, row), told)]
        for system in table.systems:
            score = published(row.paper, keys[system], table.metric)
            any_paper |= score is not None
            under = "" if score is None else _small(f"paper: {score:.3f}", "paper")
            cells.append(_score_cell(table, row.name, system, table.is_best(row, system), under))
        rows.append(cells)
    lower = " (lower is better)" if table.metric in LOWER_IS_BETTER else ""
    text = (
        f"{metric_label(table.metric)}{lower} after the last iteration of each run: mean ± standard deviation "
        "(number of runs) over the seeds. The best of a row is bold, whether or not the difference is beyond chance."
    )
    paper = [pages.paragraph(f"In blue: {SOURCE}.")] if any_paper else []
    return [pages.paragraph(text), _grid(rows), *paper]


def _paper(study: _Study) -> list[str]:
    header, *rows = paper_rows(study.outline, study.main)
    if not rows:
        return []
    text = (
        f"{SOURCE}. The numbers are comparable as far as data, splits, iterations and pre-trained weights are alike; "
        "the paper gives no spread over its runs."
    )
    return [pages.paragraph(text), pages.table(header, rows)]


def _tests(study: _Study) -> list[str]:
    if not study.comparisons:
        return []
    header, *rows = comparison_rows(study.comparisons)
    reasons = dict.fromkeys(f"{entry.row.title}: {entry.reason}" for entry in study.comparisons if entry.reason)
    text = _TESTS.format(reference=study.outline.reference)
    lower = " Lower scores are better." if study.main.metric in LOWER_IS_BETTER else ""
    blocks = [pages.paragraph(text + lower), pages.table(header, rows)]
    return blocks + ([_listing(f"{reason}." for reason in reasons)] if reasons else [])


def _figures(study: _Study) -> list[str]:
    told = captions(study.outline)
    blocks = []
    for row in study.main.rows:
        found = study.figures[row.name]
        if found.boxes is None and found.convergence is None:
            continue
        blocks.append(f"<h3>{html.escape(row.title)}</h3>")
        if found.convergence is not None:
            blocks.append(_figure(found.convergence, f"{row.title}: score over iterations", told["convergence"]))
        if found.boxes is not None:
            blocks.append(_figure(found.boxes, f"{row.title}: the runs of each system", told["boxes"]))
    return blocks


def _classes(study: _Study) -> list[str]:
    titles = {dataset.name: dataset.title for dataset in study.outline.datasets}
    blocks = []
    for name, table in class_tables(study.outline, study.results).items():
        blocks += [f"<h3>{html.escape(titles[name])}</h3>", _plain_grid("class", table)]
    label = metric_label(study.outline.metric)
    return [pages.paragraph(f"{label} of each class after the last iteration."), *blocks] if blocks else []


def _other_metrics(study: _Study) -> list[str]:
    blocks = []
    for metric, table in study.tables.items():
        if metric == study.outline.metric or table.is_empty:
            continue
        lower = (
            "; lower is better" if metric in LOWER_IS_BETTER and "lower is better" not in study.metrics[metric] else ""
        )
        blocks += [
            f"<h3>{html.escape(_capital(metric_label(metric)))}</h3>",
            pages.paragraph(f"{_capital(study.metrics[metric])}{lower}."),
            _plain_grid("data set", table, only_scored=True),
        ]
    return blocks


def _over_iterations(study: _Study) -> list[str]:
    """A table a data set, folded up: the numbers behind the convergence figures."""
    blocks = []
    for row in study.main.rows:
        numbers = evaluated_iterations(study.results, row)
        if len(numbers) < 2:
            continue
        rows = [[_cell("th", "iterations"), *(_cell("th", name) for name in study.main.systems)]]
        for number in numbers:
            table = build_table(study.outline, study.results, iteration=number)
            cells = [
                _score_cell(table, row.name, system, table.is_best(row, system), "") for system in study.main.systems
            ]
            rows.append([_cell("td", str(number)), *cells])
        blocks.append(pages.details(f"{row.title}: {metric_label(study.outline.metric)} by iterations", _grid(rows)))
    return blocks


def _pictures(pictures: Mapping[str, Path]) -> list[str]:
    blocks = []
    for title, path in pictures.items():
        blocks.append(f"<h3>{html.escape(title)}</h3>")
        blocks.append(pages.picture(path, title) if path.is_file() else pages.notice(f"There is no {path.name}."))
    return blocks


def _time(study: _Study) -> list[str]:
    if not study.results:
        return []
    header, *rows = time_rows(study.outline, study.results)
    text = "Median of the runs (least to most); prediction: the test cases once."
    return [pages.paragraph(f"{total_time(study.results)} {text}"), pages.table(header, rows)]


def _provenance(study: _Study) -> list[str]:
    if not study.results:
        return []
    blocks = [pages.notice(sentence) for sentence in differences(study.outline, study.results)]
    for rows in (setup_rows(study.outline, study.results), version_rows(study.results)):
        blocks.append(pages.table(rows[0], rows[1:]))
    files = [SCORES_JSON, SCORES_CSV, TABLES, *(f"table_{metric}.csv" for metric in study.tables)]
    return [*blocks, pages.paragraph(f"The numbers of this page are in {', '.join(files)} beside it.")]


def _plain_grid(first: str, table: Table, only_scored: bool = False) -> str:
    """A table of scores without the paper's; with ``only_scored`` without rows and systems that have none."""
    rows = [row for row in table.rows if table.ranking(row) or not only_scored]
    systems = [s for s in table.systems if not only_scored or any(table.cells[row.name, s].iterations for row in rows)]
    lines = [[_cell("th", first), *(_cell("th", name) for name in systems)]]
    for row in rows:
        cells = [_score_cell(table, row.name, system, table.is_best(row, system), "") for system in systems]
        lines.append([_cell("td", row.title), *cells])
    return _grid(lines)


def _score_cell(table: Table, row: str, system: str, best: bool, under: str) -> str:
    cell = table.cells[row, system]
    text = html.escape(shown(table.metric, cell.mean))
    if not cell.n:
        found = next(entry for entry in table.rows if entry.name == row)
        return _cell("td", shown_cell(table, found, system), under)
    told = f"({cell.n}; {cell.undefined} undefined)" if cell.undefined else f"({cell.n})"
    spread = f"± {shown(table.metric, cell.deviation)} {told}" if cell.n > 1 else told
    return f"<td>{f'<b>{text}</b>' if best else text}{_small(spread)}{under}</td>"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(kind: str, text: str, under: str = "") -> str:
    return f"<{kind}>{html.escape(text)}{under}</{kind}>"


def _small(text: str, name: str = "") -> str:
    opening = f'<small class="{name}">' if name else "<small>"
    return f"{opening}{html.escape(text)}</small>"


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, which are HTML; the first is the header."""
    header, *lines = (f"<tr>{''.join(row)}</tr>" for row in rows)
    body = "\n".join(lines)
    return f'<div class="wide"><table class="scores">\n<thead>{header}</thead><tbody>\n{body}\n</tbody></table></div>'


def _listing(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _figure(path: Path, description: str, caption: str) -> str:
    return f"<figure>{pages.picture(path, description)}<figcaption>{html.escape(caption)}</figcaption></figure>"
