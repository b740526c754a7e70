"""Whether two systems differ by more than the spread over their seeds.

As in Xing et al. 2025 (Fig 3b) the runs of two systems are compared by the two-sided Mann-Whitney U test, as if they
were independent; and, since runs of one seed share cases, fresh weights and patches, by the signs of their differences
(``pairs``). With three runs each no p below 0.1 is possible, so effect sizes and intervals stand beside every p, and a
comparison that cannot be made says why.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from nnunetv2_retina.evaluation.metric import Metric
from nnunetv2_retina.study.findings.pairs import Paired, sign_flip
from nnunetv2_retina.study.findings.tables import Cell, Row, Table

LEVEL = 0.95
"""Of the intervals."""
SIGNIFICANT = 0.05
_MOST_RELABELLINGS = 200_000
"""Of tied runs for the exact distribution: up to 10 and 10 runs."""


@dataclass(frozen=True)
class MannWhitney:
    """A two-sided Mann-Whitney U test."""

    u: float
    """Pairs of runs in which the first system's is larger, equal ones counting half."""
    p: float
    exact: bool
    """Whether p is from the exact distribution, not the normal approximation."""


@dataclass(frozen=True)
class Difference:
    """Difference of two means with Welch's interval."""

    value: float
    low: float
    """NaN where there is no spread to take an interval from."""
    high: float


@dataclass(frozen=True)
class Comparison:
    """The reference against another system on one data set."""

    row: Row
    metric: Metric
    reference: str
    other: str
    n_reference: int
    n_other: int
    test: MannWhitney | None = None
    """None: not possible, see ``reason``."""
    p_holm: float = math.nan
    """Holm's correction over all comparisons made together."""
    smallest_p: float = math.nan
    """The least that so many runs could give."""
    superiority: float = math.nan
    """Probability that a run of the reference is better than one of the other system, equal ones counting half."""
    difference: Difference | None = None
    """Reference minus other, in the metric's unit, whether higher is better or lower; None if one has no score."""
    paired: Paired | None = None
    """Of the seeds that both have, reference minus other; None for fewer than 2."""
    paired_p_holm: float = math.nan
    """Holm's correction over the paired tests that were named beforehand, where any was, else over all."""
    primary: bool = False
    """Whether it was named beforehand."""
    reason: str = ""
    """Why there is no test."""

    @property
    def key(self) -> tuple[str, str]:
        """Return the row's name and the other system."""
        return self.row.name, self.other

    @property
    def better(self) -> bool:
        """Tell whether the reference's runs, as independent ones, are more often better than worse."""
        return self.superiority > 0.5

    @property
    def better_in_pairs(self) -> bool:
        """Tell whether the reference is better in the mean of the pairs, where there are any."""
        return self.paired is not None and (self.paired.mean > 0) != self.metric.lower_is_better

    @property
    def rank_biserial(self) -> float:
        """Return the rank-biserial correlation, -1 to 1: above 0 the reference is better."""
        return 2 * self.superiority - 1


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> MannWhitney:
    """Do a two-sided Mann-Whitney U test: exact without ties, and with ties where there are few enough runs to try all
    relabellings; the normal approximation with its correction for ties otherwise.

    Raises:
        ValueError: for an empty sample, or a value that is NaN.
    """
    values = [*first, *second]
    if not first or not second or any(math.isnan(value) for value in values):
        raise ValueError("both samples need at least one value, and none may be NaN")
    tied = len(set(values)) < len(values)
    if tied and math.comb(len(values), len(first)) <= _MOST_RELABELLINGS:
        return _relabelled(values, len(first))
    tested = stats.mannwhitneyu(first, second, alternative="two-sided", method="asymptotic" if tied else "exact")
    return MannWhitney(float(tested.statistic), float(tested.pvalue), not tied)


def smallest_p(n_first: int, n_second: int) -> float:
    """Return the least two-sided p that so many runs without ties can give: complete separation, either way round."""
    return min(1.0, 2 / math.comb(n_first + n_second, n_first))


def superiority(first: Sequence[float], second: Sequence[float], lower_is_better: bool = False) -> float:
    """Return the probability that a run of the first system is better than one of the second, equal ones counting half
    (Vargha and Delaney's A, the common-language effect size)."""
    a, b = np.asarray(first)[:, None], np.asarray(second)[None, :]
    better = a < b if lower_is_better else a > b
    return float(np.mean(better + 0.5 * (a == b)))


def welch_difference(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Difference:
    """Return mean of the first minus mean of the second, with an interval for unequal variances (Welch 1947).

    Without spread in either sample, or with a single value in one, there is no interval.
    """
    value = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) < 2:
        return Difference(value, math.nan, math.nan)
    parts = [statistics.variance(sample) / len(sample) for sample in (first, second)]
    variance = sum(parts)
    if variance == 0:
        return Difference(value, math.nan, math.nan)
    shares = [part / variance for part in parts]  # squaring tiny variances themselves could give 0
    freedom = 1 / sum(share**2 / (len(sample) - 1) for share, sample in zip(shares, (first, second), strict=True))
    reach = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(variance)
    return Difference(value, value - reach, value + reach)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values by Holm's step-down method, in their order; NaN stays NaN and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[place] = highest
    return corrected


def compare(table: Table, reference: str, primary: Sequence[tuple[str, str]] = ()) -> list[Comparison]:
    """Compare the reference with every other system, on every data set and group.

    Systems without any run on a data set are left out there.

    Args:
        table: the scores.
        reference: one of its systems.
        primary: (row, other system) of the comparisons that were named beforehand. The paired tests of these alone are
            corrected, for all of their number, made or not yet; without any, of all that are made.
    """
    comparisons = [
        _comparison(table, row, reference, other)
        for row in table.rows
        for other in table.systems
        if other != reference and table.cells[row.name, other].iterations
    ]
    corrected = holm([math.nan if entry.test is None else entry.test.p for entry in comparisons])
    made = {entry.key: entry.paired.p for entry in comparisons if entry.paired is not None}
    family = list(primary or made)
    paired = dict(zip(family, holm([made.get(key, 1.0) for key in family]), strict=True))
    return [
        replace(
            entry,
            p_holm=p,
            paired_p_holm=paired.get(entry.key, math.nan) if entry.key in made else math.nan,
            primary=entry.key in primary,
        )
        for entry, p in zip(comparisons, corrected, strict=True)
    ]


def _comparison(table: Table, row: Row, reference: str, other: str) -> Comparison:
    cells = [table.cells[row.name, system] for system in (reference, other)]
    first, second = (cell.values for cell in cells)
    few = [
        f"{system} has {cell.n} defined score{'' if cell.n == 1 else 's'}"
        for system, cell in zip((reference, other), cells, strict=True)
        if cell.n < 2
    ]
    base = Comparison(row, table.metric, reference, other, len(first), len(second))
    if few:
        difference = welch_difference(first, second) if first and second else None
        return replace(base, difference=difference, reason=f"{' and '.join(few)}; a test needs at least 2 of each")
    return replace(
        base,
        test=mann_whitney(first, second),
        smallest_p=smallest_p(len(first), len(second)),
        superiority=superiority(first, second, table.metric.lower_is_better),
        difference=welch_difference(first, second),
        paired=_paired(*cells),
    )


def _paired(first: Cell, second: Cell) -> Paired | None:
    theirs = dict(zip(second.seeds, second.values, strict=True))
    pairs = [mine - theirs[seed] for seed, mine in zip(first.seeds, first.values, strict=True) if seed in theirs]
    return sign_flip(pairs) if len(pairs) > 1 else None


def _relabelled(values: Sequence[float], n_first: int) -> MannWhitney:
    """Do the exact test with ties: p is the share of relabellings whose U is as far from its expectation."""
    ranks = stats.rankdata(values)
    smallest_sum = n_first * (n_first + 1) / 2
    expected = n_first * (len(values) - n_first) / 2
    seen = float(ranks[:n_first].sum()) - smallest_sum
    sums = np.array([sum(chosen) for chosen in itertools.combinations(ranks.tolist(), n_first)]) - smallest_sum
    extreme = np.abs(sums - expected) >= abs(seen - expected) - 1e-9
    return MannWhitney(seen, float(extreme.mean()), True)
