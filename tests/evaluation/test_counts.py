"""Scores on arrays small enough to count by hand."""

import math

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import Counts, check_labels, count_masks, matched_objects, mean_score

TRUTH = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
PREDICTION = np.array([[1, 1, 1], [2, 0, 0]], np.uint8)


def test_counts_of_two_classes() -> None:
    assert count_masks(PREDICTION == 1, TRUTH == 1) == Counts(tp=2, fp=1, fn=0)
    assert count_masks(PREDICTION == 2, TRUTH == 2) == Counts(tp=1, fp=0, fn=1)


def test_scores_follow_their_formulas() -> None:
    counts = Counts(tp=2, fp=1, fn=3)
    assert counts.iou == pytest.approx(2 / 6)
    assert counts.f == pytest.approx(4 / 8)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 5)


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


def test_shapes_must_agree() -> None:
    with pytest.raises(RetinaError, match=r"prediction of shape \(3,\) against a ground truth of shape \(4,\)"):
        check_labels(np.zeros(3, int), np.zeros(4, int))


def test_probabilities_are_refused() -> None:
    with pytest.raises(RetinaError, match="prediction is of type float32; expected whole numbers"):
        check_labels(np.zeros(3, np.float32), np.zeros(3, int))


@pytest.mark.parametrize("seed", range(20))
def test_counts_of_random_volumes_against_voxel_by_voxel(seed) -> None:
    rng = np.random.default_rng(seed)
    predicted, actual = rng.integers(0, 2, (2, *rng.integers(1, 6, 3)), bool)
    pairs = list(zip(predicted.flat, actual.flat, strict=True))
    expected = [sum(pair == wanted for pair in pairs) for wanted in ((True, True), (True, False), (False, True))]
    counts = count_masks(predicted, actual)
    assert [counts.tp, counts.fp, counts.fn] == expected


def test_the_iou_of_an_image_is_smoothed() -> None:
    """(I + 1e-5) / (U + 1e-5): an image without the class, in which none was found, scores 1."""
    assert Counts().smoothed_iou == 1
    assert Counts(tp=3, fp=1).smoothed_iou == pytest.approx((3 + 1e-5) / (4 + 1e-5), abs=1e-15)
    assert Counts(fp=1).smoothed_iou == pytest.approx(1e-5, rel=1e-4)


def test_why_a_score_is_undefined() -> None:
    assert Counts().undefined == "in neither the prediction nor the ground truth"
    assert Counts(fn=1).undefined == "nothing predicted"
    assert Counts(fp=1).undefined == "none in the ground truth"
    assert Counts(tp=1).undefined == ""


def test_counts_of_masks() -> None:
    assert count_masks(PREDICTION == 1, TRUTH == 1) == Counts(tp=2, fp=1, fn=0)


def test_only_objects_that_touch_an_annotated_one_count() -> None:
    """The left object shares a pixel, its corner neighbour with it; the right one shares none and vanishes."""
    predicted = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
    actual = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]], bool)
    matched = matched_objects(predicted, actual)
    assert matched.tolist() == [[True, False, False, False, False], [False, True, False, False, False], [False] * 5]
    assert count_masks(matched, actual) == Counts(tp=1, fp=1, fn=2)  # the missed object of the truth stays missed


@pytest.mark.parametrize("seed", range(20))
def test_matched_objects_against_growing_from_the_shared_voxels(seed) -> None:
    """An independent way: grow what both share within the prediction until nothing changes."""
    from scipy.ndimage import binary_dilation

    rng = np.random.default_rng(seed)
    predicted, actual = rng.random((2, *rng.integers(2, 14, 2 + seed % 2))) < 0.35
    grown = predicted & actual
    while (more := binary_dilation(grown, np.ones((3,) * grown.ndim)) & predicted).sum() > grown.sum():
        grown = more
    np.testing.assert_array_equal(matched_objects(predicted, actual), grown)


def test_matched_objects_as_scikit_image_labels_them() -> None:
    """The released evaluation labels with ``skimage.measure.label``, whose default is 8-connectivity."""
    label = pytest.importorskip("skimage.measure").label
    rng = np.random.default_rng(0)
    predicted, actual = rng.random((2, 40, 40)) < 0.3
    objects = label(predicted)
    expected = np.isin(objects, np.unique(objects[actual & predicted])) & predicted
    np.testing.assert_array_equal(matched_objects(predicted, actual), expected)


def test_nothing_matches_an_empty_truth() -> None:
    assert not matched_objects(np.ones((2, 2), bool), np.zeros((2, 2), bool)).any()
    assert not matched_objects(np.zeros((2, 2), bool), np.ones((2, 2), bool)).any()
