"""The report of a study: its files, and a page that stands alone."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.display import pages
from nnunetv2_retina.files import make_folder, write_text
from nnunetv2_retina.study.findings.areas import Areas, compare_areas
from nnunetv2_retina.study.findings.figures import Figures, captions, draw_figures
from nnunetv2_retina.study.findings.files import (
    SCORES_CSV,
    SCORES_JSON,
    TABLES,
    comparison_rows,
    comparison_text,
    paper_rows,
    scores_csv,
    scores_json,
    table_csv,
    tables_markdown,
)
from nnunetv2_retina.study.findings.grids import OF_PAPER, STYLE, iterations_grid, main_grid, plain_grid
from nnunetv2_retina.study.findings.paper_numbers import SOURCE
from nnunetv2_retina.study.findings.provenance import differences, setup_rows, time_rows, total_time, version_rows
from nnunetv2_retina.study.findings.results import Result, StudyOutline, known_metrics, select
from nnunetv2_retina.study.findings.statistics import Comparison, compare
from nnunetv2_retina.study.findings.summary import (
    beside_the_paper,
    beyond_chance,
    completeness,
    named_beforehand,
    rankings,
    undefined_scores,
)
from nnunetv2_retina.study.findings.tables import (
    Table,
    build_table,
    class_tables,
    evaluated_iterations,
)

REPORT = "report.html"
_ADVICE = "Give another output folder"


@dataclass(frozen=True)
class _Study:
    """Everything the page is made of."""

    outline: StudyOutline
    results: Sequence[Result]
    tables: Mapping[str, Table]
    """Metric -> table; the study's first."""
    comparisons: Sequence[Comparison]
    figures: Mapping[str, Figures]
    areas: Areas | None

    @property
    def main(self) -> Table:
        """Return the table of the study's metric."""
        return self.tables[self.outline.metric]


def write_report(
    outline: StudyOutline,
    results: Sequence[Result],
    folder: Path,
    pictures: Mapping[str, Path] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write scores, tables, figures and the page. Earlier ones are replaced, never half.

    Works with any part of a study, none of its runs included.

    Args:
        outline: the study.
        results: of its finished runs; those that are not of this study are left out.
        folder: where to write; it is made.
        pictures: title -> PNG file, embedded in the page.
        notes: sentences that must not be overlooked, such as on runs that failed.

    Returns:
        The page, which needs no other file.

    Raises:
        RetinaError: if the folder cannot be written into.
    """
    make_folder(folder, _ADVICE)
    results = select(results, outline)
    metrics = known_metrics(results, outline.metric)
    tables = {metric.key: build_table(outline, results, metric) for metric in metrics}
    comparisons = compare(tables[outline.metric], outline.reference, outline.primary)
    areas = compare_areas(outline, results)
    figures = draw_figures(outline, results, tables[outline.metric], comparisons, folder)
    files = {
        SCORES_JSON: scores_json(outline, results, tables, comparisons, areas),
        SCORES_CSV: scores_csv(results),
        **{f"table_{metric}.csv": table_csv(table) for metric, table in tables.items()},
        TABLES: tables_markdown(outline, tables, comparisons, areas),
    }
    for name, text in files.items():
        write_text(folder / name, text, _ADVICE)
    sections = _sections(_Study(outline, results, tables, comparisons, figures, areas), notes, pictures or {})
    blocks = [STYLE, pages.contents(list(sections))]
    for title, section in sections.items():
        blocks += [pages.heading(title), *section]
    return write_text(folder / REPORT, pages.html_page(outline.name, blocks), _ADVICE)


def _sections(study: _Study, notes: Sequence[str], pictures: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return title -> blocks of every section that has something to say."""
    sections = {
        "Summary": _summary(study, notes),
        "Scores": _scores(study),
        "Beside the paper": _paper(study),
        f"{study.outline.reference} against the others": _tests(study),
        "Figures": _figures(study),
        "Classes": _classes(study),
        "Other metrics": _other_metrics(study),
        "Over the iterations": _over_iterations(study),
        "Pictures": _pictures(pictures),
        "Time": _time(study),
        "How it was made": _provenance(study),
    }
    return {title: blocks for title, blocks in sections.items() if blocks}


def _summary(study: _Study, notes: Sequence[str]) -> list[str]:
    outline, table = study.outline, study.main
    blocks = [pages.notice(note) for note in notes]
    blocks += [pages.paragraph(sentence) for sentence in named_beforehand(study.comparisons)]
    complete, *absent = completeness(outline, study.results)
    blocks += [pages.notice(complete) if absent else pages.paragraph(complete)]
    blocks += [pages.details("Which runs are missing", pages.bullets(absent))] if absent else []
    if study.results:
        text = f"{table.metric.label}, mean ± standard deviation (number of runs):"
        blocks += [pages.paragraph(text), pages.bullets(rankings(table, outline.reference))]
    sentences = [*beyond_chance(study.comparisons), *undefined_scores(table), *beside_the_paper(outline, table)]
    return [*blocks, *(pages.paragraph(sentence) for sentence in sentences)]


def _scores(study: _Study) -> list[str]:
    table = study.main
    lower = " (lower is better)" if table.metric.lower_is_better else ""
    text = (
        f"{table.metric.label}{lower} after the last iteration of each run: mean ± standard deviation "
        "(number of runs) over the seeds. The best of a row is bold, whether or not the difference is beyond chance."
    )
    grid = main_grid(study.outline, table)
    paper = [pages.paragraph(f"In blue: {SOURCE}.")] if OF_PAPER in grid else []
    return [pages.paragraph(text), grid, *paper]


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
    blocks = [pages.paragraph(comparison_text(study.outline)), pages.table(header, rows)]
    return blocks + ([pages.bullets([f"{reason}." for reason in reasons])] if reasons else [])


def _figures(study: _Study) -> list[str]:
    caption = captions(study.outline)
    blocks = []
    for row in study.main.rows:
        figures = study.figures[row.name]
        drawn = []
        if figures.convergence is not None:
            drawn.append(_figure(figures.convergence, f"{row.title}: score over iterations", caption["convergence"]))
        if figures.boxes is not None:
            drawn.append(_figure(figures.boxes, f"{row.title}: the runs of each system", caption["boxes"]))
        blocks += [pages.subheading(row.title), *drawn] if drawn else []
    return blocks


def _classes(study: _Study) -> list[str]:
    titles = {dataset.name: dataset.title for dataset in study.outline.datasets}
    blocks = []
    for name, table in class_tables(study.outline, study.results).items():
        blocks += [pages.subheading(titles[name]), plain_grid("class", table)]
    text = f"{study.main.metric.label} of each class after the last iteration."
    return [pages.paragraph(text), *blocks] if blocks else []


def _other_metrics(study: _Study) -> list[str]:
    blocks = []
    for table in study.tables.values():
        metric = table.metric
        if table is study.main or table.is_empty:
            continue
        lower = "; lower is better" if metric.lower_is_better else ""
        blocks += [
            pages.subheading(_capital(metric.label)),
            pages.paragraph(f"{_capital(metric.meaning)}{lower}."),
            plain_grid("data set", table, only_scored=True),
        ]
    return blocks


def _over_iterations(study: _Study) -> list[str]:
    """Return the areas, and a table for each data set, folded: the numbers behind the convergence figures."""
    blocks = []
    if study.areas is not None:
        header, *rows = comparison_rows(study.areas.comparisons)
        blocks += [
            pages.paragraph(study.areas.meaning),
            plain_grid("data set", study.areas.table),
        ]
        blocks += [pages.table(header, rows)] if rows else []
    for row in study.main.rows:
        numbers = evaluated_iterations(study.results, row)
        if len(numbers) > 1:
            tables = {number: build_table(study.outline, study.results, iteration=number) for number in numbers}
            title = f"{row.title}: {study.main.metric.label} by iterations"
            blocks.append(pages.details(title, iterations_grid(tables, row.name)))
    return blocks


def _pictures(pictures: Mapping[str, Path]) -> list[str]:
    blocks = []
    for title, path in pictures.items():
        blocks.append(pages.subheading(title))
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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figure(path: Path, description: str, caption: str) -> str:
    return f"<figure>{pages.picture(path, description)}<figcaption>{html.escape(caption)}</figcaption></figure>"
