"""The benchmarks' rules on arrays: what counts, what the means are, what is left out and what is undefined."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.label_files import save_png

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.distances import both_ways, cremi_scores, false_distance
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import combine
from nnunetv2_retina.images.spacing import Spacing

BINARY = {"background": 0, "cleft": 1}
ONE = ScoredClass("cleft", (1,))
TWO = (ScoredClass("a", (1,)), ScoredClass("b", (2,)))
EPS = 1e-5


def dataset_json(labels=BINARY, ending=".png", **block) -> dict[str, Any]:
    return {"name": "Test", "labels": labels, "file_ending": ending} | ({"retina": block} if block else {})


def test_volumes_mean_over_classes_then_over_volumes() -> None:
    """Case 1: IoU 1/3 and 1/2. Case 2: class a is in neither, so its mean is class b's alone."""
    rule = Rule(TWO, distances=False)
    first = score_case("1", np.array([[1, 1, 0, 2]]), np.array([[0, 1, 1, 2]]) * 1, rule)
    second = score_case("2", np.array([[2, 2, 2, 2]]), np.array([[2, 0, 0, 0]]), rule)
    scores = combine([first, second], rule)
    assert first.mean["iou"] == pytest.approx((1 / 3 + 1) / 2)
    assert math.isnan(second.classes["a"].values["iou"])
    assert second.classes["a"].reasons["iou"] == "in neither the prediction nor the ground truth"
    assert second.mean["iou"] == pytest.approx(1 / 4)
    assert scores.classes["b"]["iou"] == pytest.approx((1 + 1 / 4) / 2)
    assert scores.mean["iou"] == pytest.approx(((1 / 3 + 1) / 2 + 1 / 4) / 2)
    assert scores.excluded == (
        "iou, f, precision, recall: 1 of 4 values undefined, left out of the means "
        "(1 in neither the prediction nor the ground truth): 2 a",
    )


def test_images_mean_over_the_whole_table_of_images_and_classes() -> None:
    """Three images in two cases: each counts the same, whatever its case; (I + 1e-5) / (U + 1e-5)."""
    rule = Rule(TWO, score_unit="slice", distances=False)
    stack_truth = np.array([[[1, 1, 0]], [[0, 0, 0]]])
    stack, image = np.array([[[1, 0, 0]], [[0, 2, 0]]]), np.array([[1, 2, 2]])
    scores = combine([score_case("s", stack, stack_truth, rule), score_case("i", image, image, rule)], rule)
    a = [(1 + EPS) / (2 + EPS), 1.0, 1.0]
    b = [1.0, EPS / (1 + EPS), 1.0]
    assert scores.classes["a"]["iou"] == pytest.approx(np.mean(a), abs=1e-12)
    assert scores.classes["b"]["iou"] == pytest.approx(np.mean(b), abs=1e-12)
    assert scores.mean["iou"] == pytest.approx(np.mean([a, b]), abs=1e-12)
    assert scores.cases[0].mean["iou"] == pytest.approx(np.mean([a[:2], b[:2]]), abs=1e-12)
    assert scores.mean["precision"] == pytest.approx(np.mean([1, 1, 0, 1]))  # undefined: a of image 2, b of image 1


def test_images_of_a_volume_have_their_own_distances() -> None:
    """Kasthuri++: Mean False Distance in each image, then the mean; the images above and below are no neighbours."""
    rule = Rule((ONE,), score_unit="slice")
    truth, prediction = np.zeros((2, 3, 1, 9), int)
    truth[0, 0, 0] = prediction[0, 0, 4] = 1
    truth[1, 0, 0] = prediction[1, 0, 2] = 1
    truth[2, 0, 0] = 1
    scores = score_case("v", prediction, truth, rule)
    assert scores.classes["cleft"].values["mfd_hausdorff"] == (4 + 2) / 2
    assert [unit.values["mfd_mean"] for unit in scores.classes["cleft"].units[:2]] == [4, 2]
    assert math.isnan(scores.classes["cleft"].units[2].values["mfd_mean"])


def test_guay_predictions_count_only_where_the_truth_is_not_background() -> None:
    block = {"mask_rule": "foreground", "evaluated_classes": [2]}
    rule = Rule.from_dataset_json(dataset_json({"background": 0, "cell": 1, "granule": 2}, **block), distances=False)
    truth, prediction = np.array([[0, 0, 1, 2, 2]]), np.array([[2, 2, 2, 2, 0]])
    scores = score_case("v", prediction, truth, rule)
    assert scores.classes["granule"].values["iou"] == pytest.approx(1 / 3)
    assert scores.mean["iou"] == pytest.approx(1 / 3)  # class 1 is scored, but does not count
    assert scores.classes["cell"].values["iou"] == 0


def test_perez_predicted_objects_count_only_if_they_touch_an_annotated_one() -> None:
    rule = Rule((ONE,), mask_rule="instance_match", score_unit="slice", distances=False)
    truth, prediction = np.zeros((2, 4, 6), int)
    truth[0, 0] = truth[3, 5] = 1
    prediction[0, 0] = prediction[1, 1] = prediction[0, 4] = 1
    assert score_case("i", prediction, truth, rule).mean["iou"] == pytest.approx((1 + EPS) / (3 + EPS), abs=1e-12)


def test_instance_matching_goes_image_by_image() -> None:
    rule = Rule((ONE,), mask_rule="instance_match", score_unit="slice", distances=False)
    truth, prediction = np.zeros((2, 2, 1, 3), int)
    truth[0, 0, 0] = 1
    prediction[0, 0, 0] = prediction[1, 0, 0] = 1  # the second touches only the first one's image above
    assert score_case("v", prediction, truth, rule).mean["iou"] == pytest.approx(1, abs=1e-12)


def test_cremi_scores_come_with_a_tolerance_and_leave_out_invalid_voxels() -> None:
    """Ignored voxels are taken from both sets, so they are neither asked nor found."""
    labels = BINARY | {"ignore": 2}
    rule = Rule.from_dataset_json(dataset_json(labels, distance_tolerance=200.0))
    rng = np.random.default_rng(0)
    truth, prediction = rng.choice(3, (6, 20, 30), p=(0.9, 0.05, 0.05)), rng.choice(2, (6, 20, 30), p=(0.97, 0.03))
    spacing = Spacing(40, 4, 4)
    found = score_case("v", prediction, truth, rule, spacing).classes["cleft"].values
    predicted, actual = (prediction == 1) & (truth != 2), truth == 1
    expected = cremi_scores(*both_ways(predicted, actual, spacing, 200))
    assert (found["cremi_fp"], found["cremi_fn"]) == (expected.fp, expected.fn)
    assert (found["cremi_adgt"], found["cremi_adf"], found["cremi_score"]) == pytest.approx(
        (expected.adgt, expected.adf, (expected.adgt + expected.adf) / 2)
    )
    assert found["cremi_f"] == expected.f
    assert found["mfd_mean"] == pytest.approx(
        false_distance(*both_ways(predicted, actual, Spacing.of((1.0,) * actual.ndim))).mean
    )


@pytest.mark.parametrize("score_unit", ["volume", "slice"])
def test_ignored_voxels_change_no_metric(score_unit) -> None:
    """Whatever is predicted there, and whatever the truth would be without them."""
    rule = Rule((ONE,), ignore=2, score_unit=score_unit, tolerance=8.0)
    rng = np.random.default_rng(1)
    truth = rng.choice(3, (4, 12, 12), p=(0.6, 0.2, 0.2))
    one, other = rng.choice(2, (2, *truth.shape))
    other = np.where(truth == 2, other, one)
    assert (one != other).any()
    a, b = (score_case("v", prediction, truth, rule, Spacing(4, 4, 4)) for prediction in (one, other))
    assert a.mean == b.mean and a.ignored == np.count_nonzero(truth == 2)


def test_an_image_that_is_ignored_altogether_is_no_image() -> None:
    rule = Rule((ONE,), ignore=2, score_unit="slice")
    truth = np.array([[[1, 0]], [[2, 2]]])
    scores = combine([score_case("v", np.array([[[1, 1]], [[1, 1]]]), truth, rule)], rule)
    assert scores.mean["iou"] == pytest.approx((1 + EPS) / (2 + EPS), abs=1e-12)
    assert "1 images not scored, every voxel is ignored: v image 1" in scores.excluded
    assert "2 of 4 voxels are ignored (ground truth 2)" in scores.excluded


def test_a_case_that_is_ignored_altogether_is_undefined() -> None:
    rule = Rule((ONE,), ignore=2)
    scores = combine([score_case("v", np.ones((1, 2), int), np.full((1, 2), 2), rule)], rule)
    assert math.isnan(scores.mean["iou"])
    assert scores.cases[0].classes["cleft"].reasons["iou"] == "every voxel is ignored"


def test_regions_are_unions_of_labels() -> None:
    labels = {"background": 0, "any": [1, 2], "inner": [2], "ignore": 3}
    rule = Rule.from_dataset_json(dataset_json(labels), distances=False)
    assert rule.classes == (ScoredClass("any", (1, 2)), ScoredClass("inner", (2,)))
    scores = score_case("v", np.array([[1, 1, 2, 0, 1]]), np.array([[2, 1, 2, 1, 3]]), rule)
    assert scores.classes["any"].values["iou"] == 3 / 4
    assert scores.classes["inner"].values["iou"] == 1 / 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("score_unit", ["volume", "slice"])
def test_whole_tables_against_a_plain_computation(seed, score_unit) -> None:
    """Every rule at once on random volumes, computed again from the formulas, voxel sets and all pairs."""
    rng = np.random.default_rng(seed)
    block = {"mask_rule": "foreground", "score_unit": score_unit, "evaluated_classes": [1, 2]}
    rule = Rule.from_dataset_json(dataset_json({"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}, **block))
    cases, rows = [], []
    for number in range(3):
        shape = tuple(rng.integers(1, 6, 3))
        truth, prediction = rng.choice(5, shape, p=(0.4, 0.2, 0.1, 0.2, 0.1)), rng.integers(0, 4, shape)
        cases.append(score_case(str(number), prediction, truth, rule))
        parts = [(prediction, truth)] if score_unit == "volume" else list(zip(prediction, truth, strict=True))
        parts = [(p, t) for p, t in parts if (t != 4).any()]
        of_case = [[plain_scores(p, t, label, score_unit) for p, t in parts] for label in (1, 2)]
        rows.append(np.array(of_case).reshape(-1, 6))
    found = combine(cases, rule).mean
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        by_case = [np.nanmean(row, axis=0) for row in rows]
        expected = np.nanmean(by_case if score_unit == "volume" else np.concatenate(rows), axis=0)
    assert list(found.values()) == pytest.approx(expected.tolist(), rel=1e-9, nan_ok=True)


def plain_scores(prediction, truth, label, score_unit) -> list[float]:
    """IoU, F, precision, recall, both Mean False Distances, from sets of places; NaN for 0/0."""

    def places(array) -> set[tuple[int, ...]]:
        return {tuple(map(int, at)) for at in np.argwhere((array == label) & (truth != 4) & (truth != 0))}

    def ratio(part, whole) -> float:
        return part / whole if whole else math.nan

    p, g = places(prediction), places(truth)
    both, either = len(p & g), len(p | g)
    iou = ratio(both, either) if score_unit == "volume" else (both + EPS) / (either + EPS)
    distances = [math.nan, math.nan]
    if p and g:
        there, back = ([min(math.dist(v, w) for w in b) for v in a] for a, b in ((p, g), (g, p)))
        distances = [(max(there) + max(back)) / 2, float(np.mean(there) + np.mean(back)) / 2]
    return [iou, ratio(2 * both, len(p) + len(g)), ratio(both, len(p)), ratio(both, len(g)), *distances]


def test_the_benchmarks_rules_are_what_their_converters_write() -> None:
    from dataset_conversion.benchmarks import DATASETS

    rules = {
        dataset.key: Rule.from_dataset_json({"labels": dataset.labels, "retina": dataset.protocol.to_json(True)})
        for dataset in DATASETS
    }
    assert {key for key, rule in rules.items() if rule.tolerance == 200} == {"cremi"}
    assert {key for key, rule in rules.items() if rule.mask_rule == "foreground"} == {"guay"}
    assert {key for key, rule in rules.items() if rule.score_unit == "volume"} == {"cremi", "guay", "urocell"}
    assert {key for key, rule in rules.items() if rule.mask_rule == "instance_match"} == {
        key for key in rules if key.startswith("perez")
    }
    assert [entry.values for entry in rules["guay"].classes if entry.evaluated] == [(2,), (3,), (4,), (5,), (6,)]


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(RetinaError, match=r"case v: labels of shape \(4,\); expected \(Z, Y, X\)"):
        score_case("v", np.zeros(4, int), np.zeros(4, int), Rule((ONE,)))
    with pytest.raises(RetinaError, match=r"labels of shape \(1, 2\) with spacing \(1, 1, 1\); expected"):
        score_case("v", np.zeros((1, 2), int), np.zeros((1, 2), int), Rule((ONE,)), Spacing(1, 1, 1))
    with pytest.raises(RetinaError, match="no case to take means of"):
        combine([], Rule((ONE,)))


def test_scores_in_nm_need_a_pixel_size(tmp_path: Path) -> None:
    """PNG holds none: 100 pixels of 4 nm are 400 nm."""
    truth, prediction = np.zeros((2, 64, 160), np.uint8)
    truth[20:30, 20:30] = prediction[20:30, 120:130] = 1
    save_png(tmp_path / "g/a.png", truth)
    save_png(tmp_path / "p/a.png", prediction)
    folders = (tmp_path / "p", tmp_path / "g")
    with pytest.raises(RetinaError, match=r'a\.png: CREMI.* no pixel size, .* expected "pixel_size": \[Y, X\] \(nm\)'):
        evaluate(*folders, dataset_json(), tolerance=200)
    found = evaluate(*folders, dataset_json(pixel_size=[4.0, 4.0]), tolerance=200).cases[0].classes["cleft"].values
    assert found["cremi_fp"] == 100 and found["cremi_score"] == pytest.approx(400, abs=20)
