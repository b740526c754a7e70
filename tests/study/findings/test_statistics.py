"""Tests between systems, against enumeration and arithmetic by hand."""

import itertools
import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from nnunetv2_retina.study.findings.pairs import sign_flip
from nnunetv2_retina.study.findings.results import DatasetOutline, Evaluation, Result, StudyOutline, SystemOutline
from nnunetv2_retina.study.findings.statistics import (
    Comparison,
    compare,
    holm,
    mann_whitney,
    smallest_p,
    superiority,
    welch_difference,
)
from nnunetv2_retina.study.findings.tables import build_table


def u_of(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second)


def enumerated_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of all ways to deal the values out that give a U as far from its expectation."""
    values = [*first, *second]
    expected = len(first) * len(second) / 2
    seen = abs(u_of(first, second) - expected)
    found = []
    for chosen in itertools.combinations(range(len(values)), len(first)):
        dealt = [values[place] for place in chosen]
        rest = [values[place] for place in range(len(values)) if place not in chosen]
        found.append(abs(u_of(dealt, rest) - expected) >= seen)
    return sum(found) / len(found)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 4), (6, 6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_p_is_that_of_enumeration(sizes: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(0.6, 0.02, sizes[0])).tolist(), rng.normal(0.59, 0.02, sizes[1]).tolist()
    found = mann_whitney(first, second)
    assert found.exact and found.u == u_of(first, second)
    assert found.p == pytest.approx(enumerated_p(first, second), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.6, 0.6, 0.7], [0.6, 0.5, 0.5]),
        ([0.1, 0.2, 0.2, 0.3], [0.2, 0.0, 0.1]),
        ([0.5, 0.5], [0.5, 0.5]),
        ([1, 2, 3, 4, 5, 6], [1, 2, 2, 2, 3, 3]),
    ],
)
def test_p_with_ties_is_that_of_enumeration(first: list[float], second: list[float]) -> None:
    found = mann_whitney(first, second)
    assert found.exact and found.u == u_of(first, second)
    assert found.p == pytest.approx(enumerated_p(first, second), abs=1e-12)


def test_many_tied_runs_are_approximated_and_said_to_be() -> None:
    first, second = [0.0, 1.0] * 8, [1.0, 2.0] * 8
    found = mann_whitney(first, second)
    assert not found.exact
    assert found.p == pytest.approx(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)


def test_complete_separation_by_hand() -> None:
    # 3 and 3: 2 of the 20 ways to deal six runs out; 6 and 6: 2 of 924.
    assert mann_whitney([4, 5, 6], [1, 2, 3]).p == pytest.approx(0.1)
    assert mann_whitney([1, 2, 3], [4, 5, 6]).u == 0
    assert mann_whitney(range(6, 12), range(6)).p == pytest.approx(2 / 924)
    assert smallest_p(3, 3) == pytest.approx(0.1) and smallest_p(6, 6) == pytest.approx(2 / 924)
    assert smallest_p(1, 1) == 1


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0, math.nan], [1.0, 2.0])])
def test_samples_that_cannot_be_tested_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value, and none may be NaN"):
        mann_whitney(first, second)


def test_superiority_counts_pairs() -> None:
    first, second = [0.6, 0.5, 0.7], [0.5, 0.65, 0.4, 0.7]
    assert superiority(first, second) == pytest.approx(u_of(first, second) / 12)
    assert superiority(first, second, lower_is_better=True) == pytest.approx(1 - u_of(first, second) / 12)


def test_interval_is_welchs() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.6, 0.01, 3), rng.normal(0.5, 0.05, 6)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    found = welch_difference(first.tolist(), second.tolist())
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("first", "second"), [([0.6], [0.5, 0.4]), ([0.6, 0.6], [0.5, 0.5])])
def test_no_interval_without_spread(first: list[float], second: list[float]) -> None:
    found = welch_difference(first, second)
    assert found.value > 0 and math.isnan(found.low) and math.isnan(found.high)


def test_holm_by_hand() -> None:
    # Ascending 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5; never less than the one before.
    assert holm([0.5, 0.01, math.nan, 0.03, 0.02])[:2] == pytest.approx([0.5, 0.04])
    assert holm([0.5, 0.01, math.nan, 0.03, 0.02])[3:] == pytest.approx([0.06, 0.06])
    assert math.isnan(holm([0.5, math.nan])[1])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8]) and holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def comparisons(
    scores: dict[str, list[float]], metric: str = "iou", primary: tuple[str, ...] = ()
) -> dict[str, Comparison]:
    seeds = tuple(range(1, 1 + max(len(values) for values in scores.values())))
    outline = StudyOutline(
        "s", (DatasetOutline("D", "data"),), tuple(map(SystemOutline, [*scores, "never run"])), seeds, "ours", metric
    )
    results = [
        Result("D", system, seed, {10: Evaluation({metric: value})})
        for system, values in scores.items()
        for seed, value in zip(seeds, values, strict=False)
    ]
    named = [("D", system) for system in primary]
    return {entry.other: entry for entry in compare(build_table(outline, results), "ours", named)}


def test_comparison_of_two_systems_over_six_seeds() -> None:
    ours, theirs = [0.61, 0.6, 0.62, 0.63, 0.64, 0.585], [0.59, 0.595, 0.57, 0.58, 0.56, 0.605]
    found = comparisons({"ours": ours, "theirs": theirs, "worst": [value - 0.1 for value in ours]})
    assert set(found) == {"theirs", "worst"}  # one that never ran is compared with nothing
    first, worst = found["theirs"], found["worst"]
    assert first.test is not None and worst.test is not None
    assert first.test.u == u_of(ours, theirs) and first.test.p == pytest.approx(enumerated_p(ours, theirs))
    assert first.superiority == pytest.approx(u_of(ours, theirs) / 36)
    assert first.rank_biserial == pytest.approx(2 * u_of(ours, theirs) / 36 - 1)
    assert worst.p_holm == pytest.approx(2 * 2 / 924) and first.p_holm == pytest.approx(max(first.test.p, 4 / 924))
    assert first.difference is not None and first.difference.value == pytest.approx(np.mean(ours) - np.mean(theirs))


@pytest.mark.parametrize("n", [2, 5, 8])
def test_pairs_are_tested_by_every_choice_of_signs(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.02, 0.03, n)
    means = [np.mean(np.asarray(signs) * differences) for signs in itertools.product([1, -1], repeat=n)]
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    found = sign_flip(differences.tolist())
    assert found.p == pytest.approx(expected) and found.n == n and found.mean == pytest.approx(differences.mean())


def test_pairs_by_hand() -> None:
    assert sign_flip([0.1, 0.2, 0.3]).p == pytest.approx(2 / 8) == sign_flip([-0.1, -0.2, -0.3]).p
    assert sign_flip([0.1] * 8).p == pytest.approx(2 / 256) == sign_flip([0.1] * 8).smallest_p
    assert sign_flip([0.0, 0.0]).p == 1
    assert sign_flip([0.1] * 16).exact and sign_flip([0.1] * 16).smallest_p == 2**-15
    many = sign_flip([0.1] * 20)
    assert not many.exact and many.smallest_p == 2 / 100_001 and many.smallest_p <= many.p < 1e-3
    with pytest.raises(ValueError, match="got 1 differences; expected at least 2"):
        sign_flip([0.1])


def test_runs_of_one_seed_are_pairs() -> None:
    spread = [0.1, 0.3, 0.5, 0.7, 0.2, 0.6]
    ours, part = [value + 0.01 for value in spread], [math.nan, *spread[1:3]]
    found = comparisons({"ours": ours, "theirs": spread, "part": part})
    whole, some = found["theirs"], found["part"]
    assert whole.test is not None and whole.test.p > 0.5  # as independent runs
    assert whole.paired is not None and whole.paired.p == pytest.approx(2 / 64)
    assert whole.paired.mean == pytest.approx(0.01) and whole.paired_p_holm == pytest.approx(4 / 64)
    assert some.paired is not None and some.paired.n == 2 and some.paired.p == pytest.approx(0.5)


def test_only_what_was_named_beforehand_is_corrected_for_its_number() -> None:
    scores = {name: [value - shift for value in (0.5, 0.6, 0.7, 0.8)] for name, shift in (("ours", 0.0), ("a", 0.1))}
    scores |= {name: scores["a"] for name in "bcd"}
    assert comparisons(scores)["a"].paired_p_holm == pytest.approx(4 * 2 / 16)
    found = comparisons(scores, primary=("a", "b"))
    assert [found[name].primary for name in "abcd"] == [True, True, False, False]
    assert found["a"].paired_p_holm == found["b"].paired_p_holm == pytest.approx(2 * 2 / 16)
    assert math.isnan(found["c"].paired_p_holm) and found["c"].paired is not None
    assert found["a"].p_holm == comparisons(scores)["a"].p_holm  # all are corrected for the other test
    # One that has not run yet counts, too.
    assert comparisons(scores, primary=("a", "b", "never run"))["a"].paired_p_holm == pytest.approx(3 * 2 / 16)


def test_lower_is_better_turns_the_effect_and_not_the_difference() -> None:
    found = comparisons({"ours": [1.0, 2.0, 3.0], "theirs": [4.0, 5.0, 6.0]}, "mfd_mean")["theirs"]
    assert found.superiority == 1 and found.rank_biserial == 1
    assert found.difference is not None and found.difference.value == -3 and found.difference.high < 0


def test_too_few_or_undefined_runs_are_said_and_never_0() -> None:
    found = comparisons({"ours": [0.6, 0.61], "once": [0.5], "undefined": [math.nan, 0.5], "fine": [0.4, 0.41]})
    for other in ("once", "undefined"):
        entry = found[other]
        assert entry.reason == f"{other} has 1 defined score; a test needs at least 2 of each"
        assert entry.test is None and math.isnan(entry.rank_biserial) and math.isnan(entry.p_holm)
        assert entry.difference is not None and entry.difference.value == pytest.approx(0.105)
    fine = found["fine"]
    assert fine.test is not None and fine.p_holm == fine.test.p == pytest.approx(1 / 3)


def test_results_and_tests_need_neither_nnunet_nor_torch() -> None:
    modules = ("page", "results", "statistics", "tables", "figures", "paper_numbers")
    imports = ", ".join(f"nnunetv2_retina.study.findings.{module}" for module in modules)
    code = f"import sys, {imports}; sys.exit('nnunetv2' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
