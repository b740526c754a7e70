"""One record for each metric: how its values are shown, and that nothing heavy comes with it."""

import math

import pytest

from nnunetv2_retina.evaluation.counts import Counts
from nnunetv2_retina.evaluation.distances import CremiScores
from nnunetv2_retina.evaluation.metric import CREMI, FALSE_DISTANCES, IOU, SHARES, metric_of


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("iou", 0.61, "0.610"),
        ("mfd_mean", 1.234, "1.23"),
        ("cremi_fp", 12.0, "12"),
        ("cremi_f", 1 / 3, "0.333"),
        ("iou", math.nan, "undefined"),
        ("cremi_fn", None, "undefined"),
    ],
)
def test_values_are_rounded_and_undefined_is_one_word(key: str, value: float | None, text: str) -> None:
    assert metric_of(key).show(value) == text


def test_differences_have_a_sign() -> None:
    assert [IOU.show(value, signed=True) for value in (0.1, -0.1)] == ["+0.100", "-0.100"]


def test_labels_have_the_unit() -> None:
    assert metric_of("cremi_score").label == "CREMI score, nm" and IOU.label == "IoU"
    assert {metric.key for metric in (*FALSE_DISTANCES, *CREMI) if not metric.lower_is_better} == {"cremi_f"}


def test_a_metric_of_another_version_is_shown_under_its_key() -> None:
    metric = metric_of("betti", "error of the Betti numbers")
    assert (metric.label, metric.meaning, metric.show(0.5)) == ("betti", "error of the Betti numbers", "0.500")


def test_the_scores_have_a_value_for_each() -> None:
    cremi = CremiScores(1, 2, 3.0, 4.0, 0.5)
    assert [getattr(cremi, metric.key.removeprefix("cremi_")) for metric in CREMI] == [1, 2, 3.0, 4.0, 3.5, 0.5]
    assert [getattr(Counts(1, 1, 0), metric.key) for metric in SHARES] == [0.5, 2 / 3, 0.5, 1.0]
