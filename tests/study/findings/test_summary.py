"""What a study's numbers say in sentences."""

from dataclasses import replace

import pytest
from helpers.study_results import SPREAD, outline, paper_study, result

from nnunetv2_retina.evaluation.metric import metric_of
from nnunetv2_retina.study.findings.files import comparison_rows
from nnunetv2_retina.study.findings.statistics import compare
from nnunetv2_retina.study.findings.summary import beyond_chance, completeness, named_beforehand, rankings
from nnunetv2_retina.study.findings.tables import Table, build_table


def test_systems_that_score_alike_have_no_best() -> None:
    table = build_table(outline(), [result(), result(system="theirs")])
    assert not any(table.is_best(table.rows[0], system) for system in table.systems)
    assert rankings(table, "ours") == ["A: ours has the highest mean IoU, 0.600 (1); theirs has the same."]


def test_the_papers_tests_come_out_with_its_three_runs() -> None:
    study, results = paper_study()
    found = {(entry.row.title, entry.other): entry for entry in compare(build_table(study, results), "RETINA")}
    far = found["UroCell", "UNet-RN50 random"]  # 0.407 apart, the runs at most 0.018
    assert far.test is not None and far.test.p == pytest.approx(0.1) and far.superiority == 1
    near = found["Kasthuri++", "UNet-RN50 CEM500K"]  # 0.001 apart: of 9 pairs the reference is better in 6
    pairs = [(0.916 + a) > (0.915 + b) for a in SPREAD for b in SPREAD]
    assert near.superiority == pytest.approx(sum(pairs) / 9) and near.test is not None and near.test.u == sum(pairs)
    assert all(entry.p_holm == 1 for entry in found.values())
    said = " ".join(beyond_chance(list(found.values())))
    assert f"0 of {len(found)} have p < 0.05" in said and "With 3 and 3 runs no p below 0.1 is possible" in said


def test_sentences_say_who_is_best_and_what_is_missing() -> None:
    study = outline("A B C", "ours theirs third", seeds=2)
    results = [result(system=name, iou=score) for name, score in (("ours", 0.4), ("theirs", 0.6), ("third", 0.5))]
    results += [result("B", seed=seed) for seed in (1, 2)]
    assert rankings(build_table(study, results), "ours") == [
        "A: theirs has the highest mean IoU, 0.600 (1); third follows with 0.500 (1); ours is number 3 of 3 with "
        "0.400 (1).",
        "B: only ours has a score, 0.600 ± 0.000 (2).",
        "C: no score yet.",
    ]
    first, *absent = completeness(study, results)
    assert first == "5 of 18 planned runs are there, 13 missing (3 data sets, 3 systems, 2 seeds)."
    assert absent[:2] == [
        "A: no run of ours (seed 2), theirs (seed 2), third (seed 2).",
        "B: no run of theirs (every seed), third (every seed).",
    ]


def test_runs_that_were_never_planned_are_not_missing() -> None:
    study = outline("A B", "ours theirs", seeds=2)
    planned = {("Dataset_A", name, seed) for name in ("ours", "theirs") for seed in (1, 2)} | {("Dataset_B", "ours", 1)}
    study = replace(study, planned=planned)
    results = [result(), result(seed=2), result("A", "theirs", 2)]
    assert completeness(study, results) == [
        "3 of 5 planned runs are there, 2 missing (2 data sets, 2 systems, 2 seeds).",
        "A: no run of theirs (seed 1).",
        "B: no run of ours (the seed).",
    ]
    cells = build_table(study, results).cells
    assert cells["Dataset_A", "theirs"].missing == (1,) and cells["Dataset_B", "theirs"].missing == ()
    assert cells["Dataset_B", "ours"].missing == (1,)
    results = [result(*key) for key in (("A",), ("A", "ours", 2), ("A", "theirs"), ("A", "theirs", 2), ("B",))]
    assert completeness(study, results) == [
        "5 of 5 planned runs are there, none is missing (2 data sets, 2 systems, 2 seeds)."
    ]


def test_the_better_of_pairs_is_that_of_their_differences() -> None:
    study = outline("A", "new old", seeds=12)
    easy, hard = [0.5 + seed / 1000 for seed in range(1, 7)], [0.8 + seed / 1000 for seed in range(7, 13)]
    results = [result(system="old", seed=seed, iou=iou) for seed, iou in enumerate([*easy, *hard], 1)]
    results += [result(system="new", seed=seed, iou=iou + 0.05) for seed, iou in enumerate(easy, 1)]
    (found,) = compare(build_table(study, results), "new")
    assert not found.better and found.better_in_pairs  # the other has six runs more, of seeds that are easier
    assert "1 after Holm's correction: A (better than old)" in " ".join(beyond_chance([found]))
    (named,) = compare(build_table(study, results), "new", [("Dataset_A", "old")])
    assert "after it: A (better than old)." in named_beforehand([named])[0]
    header, row = comparison_rows([found])
    cells = dict(zip(header, row, strict=True))
    assert cells["difference (95 % interval)"].startswith("-0.") and cells["difference, pairs"] == "+0.050"
    distance = build_table(study, results, metric_of("mfd_mean"))
    assert not compare(distance, "new")[0].better_in_pairs


def one_better_than_another() -> Table:
    study = outline(systems="ours theirs same", seeds=6)
    results = [
        result(system=system, seed=seed, iou=score + seed / 1000)
        for system, score in (("ours", 0.6), ("theirs", 0.5), ("same", 0.6))
        for seed in study.seeds
    ]
    return build_table(study, results)


def test_what_is_significant_is_named() -> None:
    said = " ".join(beyond_chance(compare(one_better_than_another(), "ours")))
    assert "1 of 2 have p < 0.05: ours better in 1, worse in 0. After Holm's correction for making 2, 1 do" in said
    assert "1 do: A (better than theirs)." in said and "no p below" not in said and "leaves out 0 in 1 of 2" in said


def test_corrections_that_no_difference_could_pass_are_said_to_be() -> None:
    names = [f"s{number}" for number in range(25)]  # 24 tests of 6 and 6 runs: 24 * 2 / 924 = 0.052
    study = outline(systems=" ".join(names), seeds=6)
    results = [
        result(system=name, seed=seed, iou=seed / 1000 + (name == "s0") / 2) for name in names for seed in study.seeds
    ]
    said = " ".join(beyond_chance(compare(build_table(study, results), "s0")))
    assert "24 of 24 have p < 0.05" in said and "24, 0 do." in said and "leaves no p below 0.052" in said


def test_what_was_named_beforehand_is_said_first() -> None:
    table = one_better_than_another()
    found = compare(table, "ours", [("Dataset_A", "theirs")])
    (said,) = named_beforehand(found)
    assert (
        said.startswith("Named beforehand")
        and "A, against theirs: +0.100 in 6 pairs, p 0.0312, 0.0312 by Holm." in said
    )
    assert "1 of 1 have p < 0.05 after it: A (better than theirs)." in said
    assert "runs of one seed as pairs" not in " ".join(beyond_chance(found))
    unknown = compare(table, "ours", [("Dataset_A", "never run")])
    assert not named_beforehand(unknown) and "runs of one seed as pairs" not in " ".join(beyond_chance(unknown))
