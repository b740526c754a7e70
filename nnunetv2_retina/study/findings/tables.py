"""Scores of a study by data set and system, over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_retina.evaluation.metric import UNDEFINED, Metric, metric_of
from nnunetv2_retina.study.findings.paper_numbers import MEANS
from nnunetv2_retina.study.findings.results import Key, Result, StudyOutline


@dataclass(frozen=True)
class Cell:
    """The scores of a system on a data set (or group of them), one a seed."""

    values: tuple[float, ...] = ()
    """Those that are defined, in the order of the seeds."""
    seeds: tuple[int, ...] = ()
    """Of the values."""
    undefined: int = 0
    """Runs whose score is undefined; they are in no mean."""
    missing: tuple[int, ...] = ()
    """Seeds whose run there should be and is not, or has no score at the iterations asked for."""
    iterations: tuple[int, ...] = ()
    """After which the scores were taken, ascending: one number, if all runs are alike."""

    @property
    def n(self) -> int:
        """Return the number of defined scores."""
        return len(self.values)

    @property
    def counts(self) -> str:
        """Return the number of defined scores, and how many are undefined, as text."""
        return f"{self.n}; {self.undefined} {UNDEFINED}" if self.undefined else f"{self.n}"

    @property
    def mean(self) -> float:
        """Return the mean of the scores; NaN if there is none."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the sample (n - 1); NaN for fewer than two scores."""
        return statistics.stdev(self.values) if self.n > 1 else math.nan


@dataclass(frozen=True)
class Row:
    """A data set, or the mean of a group of data sets."""

    name: str
    title: str
    datasets: tuple[str, ...]
    paper: str | None = None


@dataclass(frozen=True)
class Table:
    """One metric: data sets x systems."""

    metric: Metric
    rows: tuple[Row, ...]
    systems: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    """(Name of the row, system) -> scores; every combination."""

    def ranking(self, row: Row) -> list[str]:
        """Return the systems that have a score of a row, best mean first."""
        means = {system: self.cells[row.name, system].mean for system in self.systems}
        sign = 1 if self.metric.lower_is_better else -1
        scored = [system for system, mean in means.items() if not math.isnan(mean)]
        return sorted(scored, key=lambda system: sign * means[system])

    def is_best(self, row: Row, system: str) -> bool:
        """Return whether no system has a better mean, where there are at least two different ones to choose from."""
        means = [self.cells[row.name, name].mean for name in self.ranking(row)]
        return bool(means) and means[-1] != means[0] == self.cells[row.name, system].mean

    @property
    def is_empty(self) -> bool:
        """Tell whether no cell has a score."""
        return not any(cell.n for cell in self.cells.values())


def study_rows(outline: StudyOutline) -> tuple[Row, ...]:
    """Return a row per data set, and after the last of each group the group's, whose name is its key in the paper."""
    rows = []
    for dataset in outline.datasets:
        rows.append(Row(dataset.name, dataset.title, (dataset.name,), dataset.paper))
        members = outline.groups.get(dataset.group or "", ())
        if dataset.group is not None and members[-1] is dataset:
            of_paper = MEANS.get(dataset.group)
            paper = dataset.group if of_paper and of_paper == {member.paper for member in members} else None
            title = f"{dataset.group} (mean of {len(members)})"
            rows.append(Row(dataset.group, title, tuple(member.name for member in members), paper))
    return tuple(rows)


def build_table(
    outline: StudyOutline, results: Sequence[Result], metric: Metric | None = None, iteration: int | None = None
) -> Table:
    """Make the table of one metric.

    Args:
        outline: the study.
        results: of its runs; those of other data sets, systems and seeds are left out.
        metric: None: the study's.
        iteration: take the scores after this many iterations; None: each run's last.
    """
    metric = metric or metric_of(outline.metric)
    runs = {result.key: result for result in results}
    rows, systems = study_rows(outline), tuple(system.name for system in outline.systems)
    cells = {
        (row.name, system): _cell(
            outline,
            row.datasets,
            system,
            [_of_seed(runs, row, system, seed, metric.key, iteration) for seed in outline.seeds],
        )
        for row in rows
        for system in systems
    }
    return Table(metric, rows, systems, cells)


def class_tables(outline: StudyOutline, results: Sequence[Result]) -> dict[str, Table]:
    """Return data set -> its table of classes (rows) x systems; data sets of fewer than two classes are left out."""
    metric, systems = metric_of(outline.metric), tuple(system.name for system in outline.systems)
    tables = {}
    for dataset in outline.datasets:
        runs = {result.key: result for result in results if result.dataset == dataset.name}
        names = dict.fromkeys(name for run in runs.values() for name in run.scores[run.last].classes)
        if len(names) < 2:
            continue
        cells = {}
        for name in names:
            for system in systems:
                of_seed = [runs.get((dataset.name, system, seed)) for seed in outline.seeds]
                entries = [None if run is None else _of_class(run, name, metric.key) for run in of_seed]
                cells[name, system] = _cell(outline, (dataset.name,), system, entries)
        tables[dataset.name] = Table(metric, tuple(Row(name, name, (name,)) for name in names), systems, cells)
    return tables


def seed_values(
    outline: StudyOutline, results: Sequence[Result], row: Row, system: str, iteration: int, metric: str
) -> list[float]:
    """Return the scores of a system on a row after a number of iterations, one a seed; NaN where there is none."""
    runs = {result.key: result for result in results}
    entries = [_of_seed(runs, row, system, seed, metric, iteration) for seed in outline.seeds]
    return [math.nan if entry is None else entry[0] for entry in entries]


def evaluated_iterations(results: Sequence[Result], row: Row) -> list[int]:
    """Return every number of iterations at which a run of the row's data sets was scored, ascending."""
    return sorted({number for result in results if result.dataset in row.datasets for number in result.scores})


def shown_cell(table: Table, row: Row, system: str) -> str:
    """Return mean, standard deviation, number of runs and how many are undefined as text: ``0.610 ± 0.012 (3)``."""
    cell = table.cells[row.name, system]
    if not cell.n:
        return f"{UNDEFINED} ({cell.undefined})" if cell.undefined else "-"
    spread = "" if math.isnan(cell.deviation) else f" ± {table.metric.show(cell.deviation)}"
    return f"{table.metric.show(cell.mean)}{spread} ({cell.counts})"


def shown_iterations(table: Table, row: Row) -> str:
    """Return the iterations as text; where systems differ, the commonest first, then the others with their systems."""
    numbers = {system: _joined(table.cells[row.name, system].iterations) for system in table.systems}
    numbers = {system: text for system, text in numbers.items() if text}
    if not numbers:
        return "-"
    common = max(dict.fromkeys(numbers.values()), key=list(numbers.values()).count)
    others = [f"{system}: {text}" for system, text in numbers.items() if text != common]
    return "; ".join([common, *others])


_Entry = tuple[float, tuple[int, ...]]
"""A score, and after how many iterations it was taken."""


def _of_seed(
    runs: Mapping[Key, Result], row: Row, system: str, seed: int, metric: str, iteration: int | None
) -> _Entry | None:
    """Return the score of a seed: for a group the mean over its data sets, NaN if one is; None unless all are there."""
    entries = []
    for dataset in row.datasets:
        run = runs.get((dataset, system, seed))
        if run is None:
            return None
        number = run.last if iteration is None else iteration
        if number not in run.scores:
            return None
        entries.append((run.scores[number].mean.get(metric, math.nan), number))
    return statistics.fmean(value for value, _ in entries), tuple(number for _, number in entries)


def _of_class(run: Result, name: str, metric: str) -> _Entry:
    return run.scores[run.last].classes.get(name, {}).get(metric, math.nan), (run.last,)


def _cell(outline: StudyOutline, datasets: Sequence[str], system: str, entries: Sequence[_Entry | None]) -> Cell:
    """Return the scores of a system on some data sets, of entries one a seed, None where there is none."""
    present = [entry for entry in entries if entry is not None]
    scored = {
        seed: entry[0]
        for seed, entry in zip(outline.seeds, entries, strict=True)
        if entry is not None and not math.isnan(entry[0])
    }
    missing = tuple(
        seed
        for seed, entry in zip(outline.seeds, entries, strict=True)
        if entry is None and all(outline.plans(dataset, system, seed) for dataset in datasets)
    )
    iterations = {number for _, numbers in present for number in numbers}
    return Cell(tuple(scored.values()), tuple(scored), len(present) - len(scored), missing, tuple(sorted(iterations)))


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
