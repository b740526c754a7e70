"""Distances on arrays small enough to measure by hand, and against every pair of voxels of random volumes."""

import math

import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.distances import Directed, both_ways, cremi_scores, directed, false_distance
from nnunetv2_retina.images.spacing import Spacing

UNIT = Spacing(None, 1, 1)
CREMI = Spacing(40, 4, 4)


def mask(*numbers: int) -> np.ndarray:
    return np.array(numbers, bool)


def every_pair(source: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each voxel of the source to the nearest of the target: all pairs, no shortcut."""
    places = [np.argwhere(each) * np.array(spacing) for each in (source, target)]
    return np.asarray(np.sqrt(((places[0][:, None] - places[1][None]) ** 2).sum(axis=-1)).min(axis=1))


def test_distances_of_a_line() -> None:
    predicted, actual = mask(1, 1, 0, 0, 0, 0)[None], mask(0, 1, 1, 0, 0, 1)[None]
    assert directed(predicted, actual, UNIT) == Directed(voxels=2, total=1.0, maximum=1.0, beyond=1)
    assert directed(actual, predicted, UNIT) == Directed(voxels=3, total=5.0, maximum=4.0, beyond=2)


def test_both_readings_of_the_mean_false_distance() -> None:
    predicted, actual = mask(1, 1, 0, 0, 0, 0)[None], mask(0, 1, 1, 0, 0, 1)[None]
    found = false_distance(*both_ways(predicted, actual, Spacing.of((1.0,) * actual.ndim)))
    assert found.hausdorff == (1 + 4) / 2
    assert found.mean == (1 / 2 + 5 / 3) / 2


def test_cremi_by_hand_with_anisotropic_voxels() -> None:
    """40 nm along z, 4 nm along x; 200 nm is five planes or fifty columns, and not further than itself."""
    predicted, actual = np.zeros((8, 1, 120), bool), np.zeros((8, 1, 120), bool)
    actual[0, 0, 0] = predicted[0, 0, 0] = True
    predicted[5, 0, 0] = predicted[6, 0, 0] = predicted[0, 0, 50] = predicted[0, 0, 51] = True
    scores = cremi_scores(*both_ways(predicted, actual, CREMI, 200))
    assert (scores.fp, scores.fn) == (2, 0)
    assert scores.adgt == pytest.approx((0 + 200 + 240 + 200 + 204) / 5)
    assert scores.adf == 0
    assert scores.score == pytest.approx(scores.adgt / 2)
    precision, recall = 1 - 2 / 5, 1
    assert scores.f == pytest.approx(2 * precision * recall / (precision + recall))


def test_nothing_within_the_tolerance_is_an_f_score_of_0() -> None:
    predicted, actual = np.zeros((1, 1, 90), bool), np.zeros((1, 1, 90), bool)
    predicted[..., 0], actual[..., -1] = True, True
    assert cremi_scores(*both_ways(predicted, actual, CREMI, 200)).f == 0


@pytest.mark.parametrize(
    ("predicted", "actual", "fp", "fn"),
    [(mask(0, 0), mask(1, 1), 0, 2), (mask(1, 0), mask(0, 0), 1, 0), (mask(0, 0), mask(0, 0), 0, 0)],
    ids=["nothing predicted", "no truth", "neither"],
)
def test_what_an_empty_set_leaves_undefined(predicted, actual, fp, fn) -> None:
    scores = cremi_scores(*both_ways(predicted[None], actual[None], UNIT, 200))
    assert (scores.fp, scores.fn) == (fp, fn)
    assert all(math.isnan(value) for value in (scores.adgt, scores.adf, scores.score, scores.f))
    found = false_distance(*both_ways(predicted[None], actual[None], UNIT))
    assert math.isnan(found.hausdorff) and math.isnan(found.mean)


def test_equal_sets_are_at_distance_0() -> None:
    full = np.ones((2, 3, 4), bool)
    assert directed(full, full, Spacing(1, 1, 1)) == Directed(24, 0.0, 0.0, 0)
    assert cremi_scores(*both_ways(full, full, CREMI, 200)).f == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_volumes_against_every_pair(seed) -> None:
    """Any density, shape (also planes and lines) and spacing"""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 3)) if seed % 4 else tuple(rng.integers(1, 12, 2))
    spacing = tuple(float(step) for step in rng.choice([1.0, 3.0, 4.0, 15.5, 40.0], len(shape)))
    source, target = rng.random(shape) < rng.random(), rng.random(shape) < rng.random() ** 3
    source.flat[rng.integers(source.size)], target.flat[rng.integers(target.size)] = True, True
    tolerance = float(rng.choice([0.0, 4.0, 40.0, 50.0]))
    expected = every_pair(source, target, spacing)
    found = directed(source, target, Spacing.of(spacing), tolerance)
    assert found.voxels == len(expected)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-6)
    assert found.maximum == pytest.approx(expected.max(), rel=1e-6)
    assert found.beyond == np.count_nonzero(expected > tolerance + 1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed) -> None:
    """The reference's own tools: the Euclidean distance transform, and the directed Hausdorff distance."""
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial.distance import directed_hausdorff

    rng = np.random.default_rng(seed)
    predicted, actual = rng.random((2, 6, 20, 30)) < 0.02
    to_actual = distance_transform_edt(~actual, sampling=(40, 4, 4))[predicted]
    to_predicted = distance_transform_edt(~predicted, sampling=(40, 4, 4))[actual]
    scores = cremi_scores(*both_ways(predicted, actual, CREMI, 30))
    assert (scores.fp, scores.fn) == (np.sum(to_actual > 30), np.sum(to_predicted > 30))
    assert (scores.adgt, scores.adf) == pytest.approx((to_actual.mean(), to_predicted.mean()))
    places = np.argwhere(predicted), np.argwhere(actual)
    both = directed_hausdorff(*places)[0], directed_hausdorff(*places[::-1])[0]
    assert false_distance(*both_ways(predicted, actual, Spacing.of((1.0,) * actual.ndim))).hausdorff == pytest.approx(
        sum(both) / 2
    )


def test_room_around_the_objects_changes_nothing() -> None:
    """The masks are cut to the box of both; far voxels must keep their distances."""
    rng = np.random.default_rng(0)
    predicted, actual = np.zeros((2, 20, 25, 30), bool)
    predicted[2:5, 3:9, 4:9], actual[15:18, 20:24, 2:28] = rng.random((3, 6, 5)) < 0.5, rng.random((3, 4, 26)) < 0.5
    inner = (slice(1, 19), slice(2, 25), slice(1, 29))
    whole, part = directed(predicted, actual, CREMI, 9), directed(predicted[inner], actual[inner], CREMI, 9)
    assert whole == part
    assert whole.mean == pytest.approx(every_pair(predicted, actual, (40, 4, 4)).mean(), rel=1e-6)


def test_masks_must_be_masks_of_one_shape() -> None:
    with pytest.raises(RetinaError, match=r"masks of shape \(2,\) and \(3,\).*expected one shape, and bool"):
        directed(np.ones(2, bool), np.ones(3, bool), UNIT)
    with pytest.raises(RetinaError, match=r"type uint8 and bool; expected one shape, and bool"):
        directed(np.ones(2, np.uint8), np.ones(2, bool), UNIT)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((1.0,), r"spacing \(1.0,\) of 1 axes; expected two \(y, x\) or three"),
        ((1.0, 0.0), r"spacing \(1.0, 0.0\); expected numbers above 0"),
        ((1.0, math.nan), "expected numbers above 0"),
        ((1.0, 1.0, 1.0), r"spacing \(1.0, 1.0, 1.0\) for masks of shape \(2, 2\); expected 2 numbers"),
    ],
)
def test_spacing_must_fit(steps, message) -> None:
    with pytest.raises(RetinaError, match=message):
        directed(np.ones((2, 2), bool), np.ones((2, 2), bool), Spacing.of(steps))
