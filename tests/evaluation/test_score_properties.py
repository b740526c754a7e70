"""Every score of ``evaluation.score_case`` against a slow computation, voxel by voxel, on any small volume."""

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.images.spacing import Spacing

IGNORE = 3
SPACINGS = st.sampled_from([(40.0, 4.0, 4.0), (1.0, 1.0, 1.0), (15.0, 16.0, 16.0), (50.0, 4.6, 4.6)])
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def label_volumes(highest: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two volumes of one shape, sparse and dense ones: (prediction, truth)."""

    def pair(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
        values = hnp.arrays(np.uint8, shape, elements=st.integers(0, highest), fill=st.just(0))
        truth = hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, IGNORE]), fill=st.just(0))
        return st.tuples(values, truth)

    return SHAPES.flatmap(pair)


def places(mask: np.ndarray) -> list[tuple[int, ...]]:
    return [place for place in itertools.product(*map(range, mask.shape)) if mask[place]]


def to_nearest(source: list[Any], target: list[Any], spacing: tuple[float, ...]) -> list[float]:
    scaled = [[tuple(np.multiply(place, spacing)) for place in each] for each in (source, target)]
    return [min(math.dist(place, other) for other in scaled[1]) for place in scaled[0]]


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def expected(prediction, truth, value: int, masked: bool, spacing, tolerance: float) -> dict[str, float]:
    """The formulas as they stand in the papers, with sets of voxels."""
    valid = {p for p in places(np.ones(truth.shape, bool)) if truth[p] != IGNORE}
    actual = {p for p in valid if truth[p] == value}
    predicted = {p for p in valid if prediction[p] == value and not (masked and truth[p] == 0)}
    tp, fp, fn = len(predicted & actual), len(predicted - actual), len(actual - predicted)
    scores = {
        "iou": ratio(tp, tp + fp + fn),
        "f": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }
    both = bool(predicted) and bool(actual)
    unit = (1.0, 1.0, 1.0)
    there = to_nearest(sorted(predicted), sorted(actual), unit) if both else []
    back = to_nearest(sorted(actual), sorted(predicted), unit) if both else []
    scores["mfd_hausdorff"] = (max(there) + max(back)) / 2 if both else math.nan
    scores["mfd_mean"] = (sum(there) / len(there) + sum(back) / len(back)) / 2 if both else math.nan
    there = to_nearest(sorted(predicted), sorted(actual), spacing) if both else []
    back = to_nearest(sorted(actual), sorted(predicted), spacing) if both else []
    scores["cremi_adgt"], scores["cremi_adf"] = ratio(sum(there), len(there)), ratio(sum(back), len(back))
    scores["cremi_score"] = (scores["cremi_adgt"] + scores["cremi_adf"]) / 2
    beyond = tolerance + 1e-4  # the volumes' own distances are no closer to it than that
    scores["cremi_fp"] = sum(d > beyond for d in there) if both else len(predicted)
    scores["cremi_fn"] = sum(d > beyond for d in back) if both else len(actual)
    if both:
        precision, recall = 1 - scores["cremi_fp"] / len(predicted), 1 - scores["cremi_fn"] / len(actual)
        scores["cremi_f"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    else:
        scores["cremi_f"] = math.nan
    return scores


@settings(max_examples=150, deadline=None)
@given(volumes=label_volumes(2), spacing=SPACINGS, masked=st.booleans(), tolerance=st.sampled_from([0.0, 8.0, 40.0]))
def test_scores_of_any_small_volume(volumes, spacing, masked, tolerance) -> None:
    prediction, truth = volumes
    rule = Rule(
        classes=(ScoredClass("one", (1,)), ScoredClass("two", (2,))),
        ignore=IGNORE,
        mask_rule="foreground" if masked else "none",
        tolerance=tolerance,
    )
    found = score_case("case", prediction, truth, rule, Spacing.of(spacing))
    if (truth == IGNORE).all():
        assert all(math.isnan(value) for values in found.classes.values() for value in values.values.values())
        return
    for entry in rule.classes:
        scores = expected(prediction, truth, entry.values[0], masked, spacing, tolerance)
        values = found.classes[entry.name].values
        assert set(values) == set(scores)
        for metric, value in scores.items():
            assert math.isclose(values[metric], value, rel_tol=1e-6, abs_tol=1e-9) or (
                math.isnan(value) and math.isnan(values[metric])
            ), (entry.name, metric, values[metric], value)
            if math.isnan(value):
                assert found.classes[entry.name].reasons[metric]
    for metric in (metric.key for metric in rule.metrics):
        defined = [v.values[metric] for v in found.classes.values() if not math.isnan(v.values[metric])]
        mean = found.mean[metric]
        assert math.isclose(mean, sum(defined) / len(defined)) if defined else math.isnan(mean)
