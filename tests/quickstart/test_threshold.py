"""The best global threshold, on images whose answer is plain."""

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import count_masks
from nnunetv2_retina.quickstart.threshold import best_threshold


@pytest.mark.parametrize("bright", [False, True])
def test_threshold_of_a_separable_image_is_perfect(bright: bool) -> None:
    image = np.array([[10, 20], [200, 210]], np.uint8)
    mask = image > 100 if bright else image < 100
    best = best_threshold([image], [mask], sigmas=(0,))
    assert best.train_iou == 1.0
    np.testing.assert_array_equal(best.apply(image[::-1]), mask[::-1])
    assert best.dark is not bright
    assert 20 <= best.level <= 200


def test_threshold_is_chosen_for_the_mean_over_the_images() -> None:
    # Up to 50 all voxels of the large image are right, but none of the small ones; up to 10, half of the large image.
    large, large_mask = np.array([[10, 50, 50, 50, 100]]), np.array([[1, 1, 1, 1, 0]])
    small, small_mask = np.array([[10, 50, 50, 50]]), np.array([[1, 0, 0, 0]])
    best = best_threshold([large, small, small], [large_mask, small_mask, small_mask], sigmas=(0,))
    assert best.dark and 10 <= best.level < 50
    assert best.train_iou == pytest.approx((1 / 4 + 1 + 1) / 3)


def test_what_is_not_annotated_does_not_count() -> None:
    image, mask = np.array([[10, 20, 20, 20, 100, 100]]), np.array([[1, 1, 0, 0, 0, 0]])
    valid = np.array([[True, True, False, False, True, True]])
    assert best_threshold([image], [mask], sigmas=(0,)).level < 20  # as if the two were known not to be of the class
    best = best_threshold([image], [mask], [valid], sigmas=(0,))
    assert best.train_iou == 1.0 and 20 <= best.level < 100
    unknown = best_threshold([image, image], [mask, mask], [valid, np.zeros_like(valid)], sigmas=(0,))
    assert unknown.train_iou == 1.0


def test_images_without_the_class_do_not_count_where_none_is_claimed() -> None:
    image, mask = np.array([[0, 100]]), np.array([[1, 0]])
    empty = np.array([[100, 100]])
    best = best_threshold([image, empty], [mask, np.zeros_like(empty)], sigmas=(0,))
    assert best.train_iou == 1.0 and not best.apply(empty).any()


def test_the_mask_is_the_one_that_was_counted() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 32, 32)).astype(np.uint8)
    mask = image + rng.normal(0, 40, image.shape) < 120
    for sigmas in ((0,), (1,)):
        best = best_threshold([image], [mask], sigmas=sigmas)
        assert count_masks(best.apply(image), mask).iou == pytest.approx(best.train_iou, abs=2e-3)


def test_smoothing_is_chosen_where_it_helps() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((2, 40, 40), bool)
    mask[:, 10:30, 10:30] = True
    image = mask * 1.0 + rng.normal(0, 1.5, mask.shape)
    best = best_threshold([image], [mask], sigmas=(0, 2))
    assert best.sigma == 2 and best.train_iou > 0.7
    assert best.describe().endswith("after smoothing by 2 px")


def test_flat_image_gives_a_threshold() -> None:
    image = np.full((4, 4), 7, np.uint8)
    best = best_threshold([image], [image > 0], sigmas=(0,))
    assert best.train_iou == 1.0 and best.apply(image).all()


def test_threshold_needs_training_images() -> None:
    with pytest.raises(RetinaError, match="give at least one"):
        best_threshold([], [])


def test_threshold_needs_masks_of_the_same_shape() -> None:
    with pytest.raises(RetinaError, match=r"image of shape \(2, 2\) with a mask of shape \(2, 3\)"):
        best_threshold([np.zeros((2, 2))], [np.zeros((2, 3))])
