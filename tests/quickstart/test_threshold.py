"""The best global threshold, on images whose answer is plain."""

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.quickstart.threshold import best_threshold_iou


@pytest.mark.parametrize("bright", [False, True])
def test_threshold_of_a_separable_image_is_perfect(bright: bool) -> None:
    image = np.array([[10, 20], [200, 210]], np.uint8)
    mask = image > 100 if bright else image < 100
    best = best_threshold_iou([image], [mask], [image[::-1]], [mask[::-1]], sigmas=(0,))
    assert best.iou == best.train_iou == 1.0
    assert best.dark is not bright
    assert 20 <= best.level <= 200


def test_threshold_is_chosen_on_training_and_scored_on_test_images() -> None:
    # Best on training: dark, from 0 up to 50. On the test image it claims 3 voxels, 1 of them rightly, and misses 1.
    train, train_mask = np.array([[0, 50, 100, 100]], np.uint8), np.array([[1, 1, 0, 0]])
    test, test_mask = np.array([[0, 0, 50, 100]], np.uint8), np.array([[1, 0, 0, 1]])
    best = best_threshold_iou([train], [train_mask], [test], [test_mask], sigmas=(0,))
    assert best.train_iou == 1.0
    assert best.iou == pytest.approx(1 / 4)


def test_smoothing_is_chosen_where_it_helps() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((2, 40, 40), bool)
    mask[:, 10:30, 10:30] = True
    image = mask * 1.0 + rng.normal(0, 1.5, mask.shape)
    best = best_threshold_iou([image], [mask], [image], [mask], sigmas=(0, 2))
    assert best.sigma == 2 and best.iou > 0.7


def test_flat_image_gives_a_threshold() -> None:
    image = np.full((4, 4), 7, np.uint8)
    assert best_threshold_iou([image], [image > 0], [image], [image > 0], sigmas=(0,)).iou == 1.0


def test_threshold_needs_training_images() -> None:
    with pytest.raises(RetinaError, match="give at least one"):
        best_threshold_iou([], [], [], [])


def test_threshold_needs_masks_of_the_same_shape() -> None:
    with pytest.raises(RetinaError, match=r"image of shape \(2, 2\) with a mask of shape \(2, 3\)"):
        best_threshold_iou([np.zeros((2, 2))], [np.zeros((2, 3))], [], [])
