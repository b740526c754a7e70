"""The area under the scores over the logarithm of the iterations."""

import json
import math
from dataclasses import replace

import pytest
from helpers.study_results import outline, result

from nnunetv2_retina.study.findings.areas import areas, compare_areas, mean_over_training
from nnunetv2_retina.study.findings.page import write_report
from nnunetv2_retina.study.findings.results import Evaluation


def test_a_system_that_stays_the_same_has_its_score() -> None:
    assert mean_over_training({50: 0.4, 100: 0.4, 1000: 0.4}) == pytest.approx(0.4)


def test_each_doubling_counts_alike() -> None:
    assert mean_over_training({100: 0.2, 200: 0.4, 400: 0.8}) == pytest.approx((0.3 + 0.6) / 2)
    assert mean_over_training({400: 0.8, 100: 0.2}) == pytest.approx(0.5)


def test_without_two_scores_there_is_none() -> None:
    assert math.isnan(mean_over_training({100: 0.5}))
    assert math.isnan(mean_over_training({100: math.nan, 200: 0.5}))


def test_runs_are_compared_over_the_iterations_that_all_have() -> None:
    longer = replace(result(), scores={n: Evaluation({"iou": iou}) for n, iou in ((50, 0.2), (100, 0.9), (200, 0.4))})
    others = replace(result("B"), scores={number: Evaluation({"iou": 0.3}) for number in (70, 200)})
    of_all = areas([longer, result(seed=2), others, result("B", seed=2)], "iou")
    assert [(run.dataset, run.seed, run.last) for run in of_all] == [("Dataset_A", 1, 200), ("Dataset_A", 2, 200)]
    assert [run.scores[200].mean["iou"] for run in of_all] == pytest.approx([0.3, 0.45])


def test_a_system_that_is_scored_once_takes_the_areas_from_no_other() -> None:
    once = replace(result(system="own_schedule"), scores={250_000: Evaluation({"iou": 0.7})})
    study = outline(systems="ours theirs own_schedule")
    found = compare_areas(study, [result(), result(system="theirs"), once])
    assert found is not None and found.left_out == ["own_schedule"]
    assert found.table.cells["Dataset_A", "ours"].n == 1 and found.table.cells["Dataset_A", "own_schedule"].n == 0
    assert found.meaning.endswith("Left out, for they were scored at their end alone: own_schedule.")
    assert compare_areas(study, [once]) is None


def test_the_report_has_them_with_paired_tests(tmp_path) -> None:
    results = [
        result(system=name, seed=s, iou=iou + s / 100)
        for name, iou in (("ours", 0.7), ("theirs", 0.6))
        for s in (1, 2, 3)
    ]
    found = compare_areas(outline(), results)
    assert found is not None
    (comparison,) = found.comparisons
    assert comparison.paired is not None and comparison.paired.p == 0.25
    assert comparison.difference is not None and comparison.difference.value == pytest.approx(0.075)
    page = write_report(outline(), results, tmp_path)
    assert "Mean IoU over the logarithm of the iterations" in page.read_text()
    assert json.loads((tmp_path / "scores.json").read_text())["areas"]["table"]["Dataset_A"]["ours"]["n"] == 3
    assert "## Over the iterations" in (tmp_path / "tables.md").read_text()
    write_report(outline(), [replace(run, scores={200: run.scores[200]}) for run in results], tmp_path)
    assert "over the logarithm" not in page.read_text()
