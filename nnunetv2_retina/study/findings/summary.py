"""What a study's numbers say, in sentences that say no more than the numbers do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from nnunetv2_retina.study.findings.paper_numbers import published
from nnunetv2_retina.study.findings.results import Result, StudyOutline
from nnunetv2_retina.study.findings.statistics import SIGNIFICANT, Comparison
from nnunetv2_retina.study.findings.tables import Row, Table, shown_cell


def completeness(outline: StudyOutline, results: Sequence[Result]) -> list[str]:
    """Say how many of a study's runs there are, then, for each data set, which are missing."""
    total = len(outline.runs)
    missing = total - len(results)
    seeds = f"{len(outline.seeds)} seed{'' if len(outline.seeds) == 1 else 's'}"
    absent = f"{missing} missing" if missing else "none is missing"
    sentences = [
        f"{len(results)} of {total} planned runs are there, {absent} ({len(outline.datasets)} data sets, "
        f"{len(outline.systems)} systems, {seeds})."
    ]
    return sentences + (_absent(outline, results) if missing else [])


def rankings(table: Table, reference: str) -> list[str]:
    """Return a sentence a row: the best system, the one after it, and where the reference stands."""
    return [_ranking(table, row, reference) for row in table.rows]


def beyond_chance(comparisons: Sequence[Comparison]) -> list[str]:
    """Say how many differences from the reference the tests find, with and without correction, and what they cannot."""
    tested = [entry for entry in comparisons if entry.test is not None]
    untested = len(comparisons) - len(tested)
    sentences = []
    if tested:
        raw = [entry for entry in tested if entry.test is not None and entry.test.p < SIGNIFICANT]
        better = sum(entry.better for entry in raw)
        kept = [entry for entry in raw if entry.p_holm < SIGNIFICANT]
        reference, number = tested[0].reference, len(tested)
        sides = f": {reference} better in {better}, worse in {len(raw) - better}" if raw else ""
        sentences.append(
            f"Comparisons of {reference} with another system by the two-sided Mann-Whitney U test: {len(raw)} of "
            f"{number} have p < {SIGNIFICANT}{sides}. After Holm's correction for making {number}, {len(kept)} do"
            f"{_which(kept)}."
        )
        least = number * min(entry.smallest_p for entry in tested)
        if min(entry.smallest_p for entry in tested) < SIGNIFICANT <= least:
            sentences.append(
                f"With so many tests for so few runs the correction leaves no p below {min(1, least):.2g}, however "
                "large the differences: compare fewer systems, or train from more seeds."
            )
        bounds = [e.difference for e in tested if e.difference is not None and not math.isnan(e.difference.low)]
        away = sum(bound.low > 0 or bound.high < 0 for bound in bounds)
        sentences.append(
            f"The 95 % interval of the difference of means leaves out 0 in {away} of {len(bounds)} (Welch; assumes "
            "normal scores, not corrected for their number)."
        )
    sentences += _beyond_chance_in_pairs(comparisons)
    for first, second in sorted({(e.n_reference, e.n_other) for e in tested if e.smallest_p >= SIGNIFICANT}):
        least = next(e.smallest_p for e in tested if (e.n_reference, e.n_other) == (first, second))
        sentences.append(
            f"With {first} and {second} runs no p below {least:.2g} is possible, so that the test can call no such "
            "difference beyond chance, however large: go by the effect sizes and intervals."
        )
    if untested:
        sentences.append(f"{untested} of {len(comparisons)} comparisons have too few runs for any test.")
    return sentences


def _beyond_chance_in_pairs(comparisons: Sequence[Comparison]) -> list[str]:
    tested = [(entry, entry.paired) for entry in comparisons if entry.paired is not None]
    if not tested:
        return []
    raw = [entry for entry, pairs in tested if pairs.p < SIGNIFICANT]
    kept = [entry for entry in raw if entry.paired_p_holm < SIGNIFICANT]
    least = min(pairs.smallest_p for _, pairs in tested)
    if any(entry.primary for entry in comparisons) or all(math.isnan(entry.paired_p_holm) for entry, _ in tested):
        return []  # ``named_beforehand`` says it, or what was named has no runs yet
    return [
        f"With the runs of one seed as pairs: {len(raw)} of {len(tested)} have p < {SIGNIFICANT}, {len(kept)} after "
        f"Holm's correction{_which(kept, in_pairs=True)}; {least:.2g} is the least that so many pairs can give."
    ]


def named_beforehand(comparisons: Sequence[Comparison]) -> list[str]:
    """Say what became of the comparisons that were named beforehand, as far as they have runs."""
    named = [(entry, pairs) for entry in comparisons if entry.primary and (pairs := entry.paired) is not None]
    if not named:
        return []
    kept = [entry for entry, _ in named if entry.paired_p_holm < SIGNIFICANT]
    shown = [
        f"{entry.row.title}, against {entry.other}: {entry.metric.show(pairs.mean, signed=True)} in {pairs.n} pairs, p "
        f"{p_text(pairs.p)}, {p_text(entry.paired_p_holm)} by Holm"
        for entry, pairs in named
    ]
    return [
        f"Named beforehand, runs of one seed as pairs, Holm's correction over these alone: {'; '.join(shown)}. "
        f"{len(kept)} of {len(named)} have p < {SIGNIFICANT} after it{_which(kept, in_pairs=True)}."
    ]


def undefined_scores(table: Table) -> list[str]:
    """Say which runs have no defined score, if any."""
    places = [
        f"{system} on {row.title}: {table.cells[row.name, system].undefined}"
        for row in table.rows
        for system in table.systems
        if table.cells[row.name, system].undefined
    ]
    text = f"Runs whose {table.metric.label} is undefined, left out of the means: {'; '.join(places)}."
    return [text] if places else []


def beside_the_paper(outline: StudyOutline, table: Table) -> list[str]:
    """Say how far the means are from the paper's, if it has any of them."""
    differences = sorted(paper_differences(outline, table), key=lambda entry: -abs(entry[2]))
    if not differences:
        return []
    row, system, difference = differences[0]
    mean = table.cells[row.name, system].mean
    near = sum(abs(entry[2]) <= 0.01 for entry in differences)
    return [
        f"Scores here that the paper has too: {len(differences)}, of which {near} within 0.01 of the paper's. "
        f"The furthest is {system} on {row.title}: {table.metric.show(mean)} here, "
        f"{table.metric.show(mean - difference)} in the paper."
    ]


def paper_differences(outline: StudyOutline, table: Table) -> Iterator[tuple[Row, str, float]]:
    """Yield row, system and mean minus the paper's score, wherever both are."""
    keys = {system.name: system.paper for system in outline.systems}
    for row in table.rows:
        for system in table.systems:
            score = published(row.paper, keys[system], table.metric.key)
            mean = table.cells[row.name, system].mean
            if score is not None and not math.isnan(mean):
                yield row, system, mean - score


def _absent(outline: StudyOutline, results: Sequence[Result]) -> list[str]:
    """Return a sentence a data set on the seeds of its systems that have no run."""
    present, sentences = {result.key for result in results}, []
    for dataset in outline.datasets:
        systems = []
        for system in outline.systems:
            seeds = [seed for seed in outline.seeds if outline.plans(dataset.name, system.name, seed)]
            absent = [seed for seed in seeds if (dataset.name, system.name, seed) not in present]
            if absent:
                every = "every seed" if len(seeds) > 1 else "the seed"
                what = every if len(absent) == len(seeds) else _listed("seed", absent)
                systems.append(f"{system.name} ({what})")
        if systems:
            sentences.append(f"{dataset.title}: no run of {', '.join(systems)}.")
    return sentences


def _ranking(table: Table, row: Row, reference: str) -> str:
    order = table.ranking(row)
    if not order:
        return f"{row.title}: no score yet."
    best, score = order[0], shown_cell(table, row, order[0])
    if len(order) == 1:
        return f"{row.title}: only {best} has a score, {score}."
    word = "lowest" if table.metric.lower_is_better else "highest"
    place = order.index(reference) + 1 if reference in order else 0
    rest = f"{order[1]} follows with {shown_cell(table, row, order[1])}"
    if table.cells[row.name, order[1]].mean == table.cells[row.name, best].mean:
        rest = f"{order[1]} has the same"
    if place > 2:
        rest += f"; {reference} is number {place} of {len(order)} with {shown_cell(table, row, reference)}"
    elif place == 0:
        rest += f"; {reference} has none"
    return f"{row.title}: {best} has the {word} mean {table.metric.label}, {score}; {rest}."


def _which(comparisons: Sequence[Comparison], in_pairs: bool = False) -> str:
    """Return ``: UroCell (better than a, b; worse than c), CREMI (...)``, or nothing."""
    by_title: dict[str, dict[str, list[str]]] = {}
    for entry in comparisons:
        word = "better" if (entry.better_in_pairs if in_pairs else entry.better) else "worse"
        by_title.setdefault(entry.row.title, {}).setdefault(word, []).append(entry.other)
    parts = []
    for title, sides in by_title.items():
        parts.append(f"{title} (" + "; ".join(f"{word} than {', '.join(who)}" for word, who in sides.items()) + ")")
    return f": {', '.join(parts)}" if by_title else ""


def _listed(noun: str, values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    return f"{noun}{'' if len(texts) == 1 else 's'} {', '.join(texts)}"


def difference_text(comparison: Comparison) -> str:
    """Return a difference of means and its interval, ``0.012 (-0.003 to 0.027)``; a dash where there is none."""
    if comparison.difference is None:
        return "-"
    bounds = comparison.difference
    value, low, high = (
        comparison.metric.show(number, signed=True) for number in (bounds.value, bounds.low, bounds.high)
    )
    return value if math.isnan(bounds.low) else f"{value} ({low} to {high})"


def p_text(p: float) -> str:
    """Return p with three significant digits; a dash where there is none."""
    return "-" if math.isnan(p) else f"{p:.3g}"


def effect_text(value: float) -> str:
    """Return an effect size with two decimals; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.2f}"
