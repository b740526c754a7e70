"""The generated volumes: reproducible, varied, and not to be had with a threshold."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import label

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import count_masks
from nnunetv2_retina.quickstart.synthetic import MITOCHONDRIA, VESICLES, generate_volume
from nnunetv2_retina.quickstart.threshold import best_threshold

SHAPE = (4, 256, 256)


@pytest.fixture(scope="module")
def volumes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [generate_volume(SHAPE, seed) for seed in range(4)]


def test_shapes_and_types(volumes) -> None:
    for image, mask in volumes:
        assert image.shape == mask.shape == SHAPE
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, MITOCHONDRIA}


def test_same_seed_same_volume(volumes) -> None:
    image, mask = generate_volume(SHAPE, seed=1)
    np.testing.assert_array_equal(image, volumes[1][0])
    np.testing.assert_array_equal(mask, volumes[1][1])
    assert not np.array_equal(image, volumes[0][0])


def test_every_volume_has_several_mitochondria(volumes) -> None:
    for _, mask in volumes:
        assert label(mask)[1] >= 5
        assert 0.04 < mask.mean() < 0.35


def test_grey_levels_use_the_range_without_clipping(volumes) -> None:
    for image, _ in volumes:
        assert 110 < image.mean() < 180 and image.std() > 15
        assert np.mean((image == 0) | (image == 255)) < 0.001


def test_no_threshold_finds_the_mitochondria(volumes) -> None:
    images, masks = zip(*volumes, strict=True)
    best = best_threshold(images[:2], masks[:2])
    ious = [count_masks(best.apply(image), mask > 0).iou for image, mask in volumes[2:]]
    assert np.mean(ious) < 0.3 and best.train_iou < 0.35


@pytest.mark.parametrize("z_step", [1.0, 5.0])
def test_neighbouring_slices_are_as_alike_as_their_distance_says(z_step: float) -> None:
    _, mask = generate_volume((8, 256, 256), seed=0, z_step=z_step)
    agreement = [np.sum(a & b) / max(np.sum(a | b), 1) for a, b in itertools.pairwise(mask)]
    assert np.mean(agreement) > (0.85 if z_step == 1 else 0.4)
    assert np.mean(agreement) < 0.995


def test_vesicles_are_a_class_on_request() -> None:
    image, mask = generate_volume(SHAPE, seed=0)
    same_image, with_vesicles = generate_volume(SHAPE, seed=0, label_vesicles=True)
    np.testing.assert_array_equal(image, same_image)
    np.testing.assert_array_equal(mask == MITOCHONDRIA, with_vesicles == MITOCHONDRIA)
    assert np.any(with_vesicles == VESICLES)


def test_one_slice_is_enough() -> None:
    image, mask = generate_volume((1, 128, 64), seed=0)
    assert image.shape == mask.shape == (1, 128, 64)


@pytest.mark.parametrize("shape", [(4, 63, 128), (0, 128, 128), (128, 128)])
def test_small_shapes_are_refused(shape) -> None:
    with pytest.raises(RetinaError, match=r"expected \(z, y, x\)"):
        generate_volume(shape)


def test_slice_distance_must_be_positive() -> None:
    with pytest.raises(RetinaError, match="z_step is 0; expected a positive distance"):
        generate_volume(SHAPE, z_step=0)
