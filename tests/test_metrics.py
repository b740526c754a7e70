"""Scores on arrays small enough to count by hand."""

import math

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.metrics import Counts, count_classes, mean_score

TRUTH = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
PREDICTION = np.array([[1, 1, 1], [2, 0, 0]], np.uint8)


def test_counts_of_two_classes() -> None:
    counts = count_classes(PREDICTION, TRUTH, (1, 2))
    assert counts == {1: Counts(tp=2, fp=1, fn=0), 2: Counts(tp=1, fp=0, fn=1)}


def test_scores_follow_their_formulas() -> None:
    counts = Counts(tp=2, fp=1, fn=3)
    assert counts.iou == pytest.approx(2 / 6)
    assert counts.f == pytest.approx(4 / 8)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 5)


def test_voxels_of_the_ignore_label_count_nowhere() -> None:
    truth = np.array([1, 255, 255, 0], np.uint8)
    prediction = np.array([1, 1, 0, 0], np.uint8)
    assert count_classes(prediction, truth, (1,), ignore=255)[1] == Counts(tp=1, fp=0, fn=0)


def test_counts_of_images_add_up() -> None:
    assert Counts(1, 2, 3) + Counts(10, 20, 30) == Counts(11, 22, 33)


def test_what_is_undefined_is_nan() -> None:
    empty = Counts()
    assert all(math.isnan(score) for score in (empty.iou, empty.f, empty.precision, empty.recall))
    missed = Counts(fn=4)
    assert missed.iou == 0 and missed.recall == 0 and math.isnan(missed.precision)


def test_mean_leaves_out_what_is_undefined() -> None:
    assert mean_score([0.5, float("nan"), 1.0]) == 0.75
    assert math.isnan(mean_score([float("nan")]))


def test_bool_masks_are_labels_too() -> None:
    assert count_classes(PREDICTION > 0, TRUTH > 0, (1,))[1] == Counts(tp=3, fp=1, fn=1)


def test_shapes_must_agree() -> None:
    with pytest.raises(RetinaError, match=r"prediction of shape \(3,\) against a ground truth of shape \(4,\)"):
        count_classes(np.zeros(3, int), np.zeros(4, int), (1,))


def test_probabilities_are_refused() -> None:
    with pytest.raises(RetinaError, match="prediction is of type float32; expected whole numbers"):
        count_classes(np.zeros(3, np.float32), np.zeros(3, int), (1,))
