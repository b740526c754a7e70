"""``retina_evaluate`` of Zarr volumes: the scores of the arrays in memory, whatever the blocks, few voxels at once."""

import dataclasses
import json
import math
from math import prod

import numpy as np
import pytest
from helpers.label_files import dataset_json
from helpers.ome_volumes import needs_zarr, write
from scipy import ndimage

from nnunetv2_retina.commands import evaluate as command
from nnunetv2_retina.evaluation import in_blocks
from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.in_blocks import score_stored
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.evaluation.scores import combine
from nnunetv2_retina.evaluation.stored import StoredPair, open_pair
from nnunetv2_retina.images.spacing import Spacing

pytestmark = needs_zarr
SHAPE, STEPS = (12, 30, 44), (8.0, 4.0, 4.0)
LABELS = {"background": 0, "one": 1, "two": 2, "ignore": 3}


def labels(seed, shape=SHAPE) -> np.ndarray:
    """Two classes, the second in few places, so that some distances are long."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    found = (noise > np.quantile(noise, 0.8)).astype(np.uint8)
    found[:, :, : shape[2] // 3][noise[:, :, : shape[2] // 3] < np.quantile(noise, 0.1)] = 2
    return np.asarray(found)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    prediction, truth = labels(0), labels(1)
    prediction[11, 29, 40:] = 2  # far from the truth's
    truth[:2, :9] = 3
    truth[5] = 3
    return prediction, truth


@pytest.fixture
def stores(tmp_path, arrays) -> tuple[str, str]:
    prediction, truth = arrays
    one = write(tmp_path / "out.zarr", prediction, spacing=STEPS, chunks=(4, 8, 8), levels=2)
    return str(one), str(write(tmp_path / "truth.zarr", truth, "0.4", spacing=STEPS, chunks=(5, 16, 16)))


def rule(**block) -> Rule:
    return Rule.from_dataset_json(dataset_json(LABELS, **block))


def plain(value):
    """Nested scores, to be compared with ``pytest.approx`` where they are numbers."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def same(found, expected, path="") -> None:
    assert type(found) is type(expected), path
    if isinstance(found, dict):
        assert set(found) == set(expected), path
        for key, entry in found.items():
            same(entry, expected[key], f"{path}/{key}")
    elif isinstance(found, list):
        assert len(found) == len(expected), path
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{path}/{number}")
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), path
    else:
        assert found == expected, path


@pytest.mark.parametrize("side", [None, (12, 16, 16), (7, 30, 23)])
@pytest.mark.parametrize(
    "block",
    [
        {"distance_tolerance": 20},
        {"mask_rule": "foreground", "evaluated_classes": [2], "distance_tolerance": 0},
        {"score_unit": "slice", "distance_tolerance": 20},
        {"score_unit": "slice", "mask_rule": "instance_match"},
    ],
)
def test_scores_are_those_in_memory(stores, arrays, block, side, monkeypatch):
    monkeypatch.setattr(in_blocks, "_MARGIN", 2)
    expected = score_case("truth", arrays[0], arrays[1], rule(**block), Spacing.of(STEPS, "nm"))
    found = score_stored(open_pair(*stores), rule(**block), side)
    same(plain(found), plain(expected))
    assert found.classes["two"].values["mfd_hausdorff"] > 3 or block.get("score_unit")


def test_empty_and_ignored_volumes(tmp_path):
    truth, prediction = np.zeros((4, 8, 8), np.uint16), np.zeros((4, 8, 8), np.uint8)
    prediction[1, 2, 3] = 1
    write(tmp_path / "p.zarr", prediction, chunks=(4, 4, 4))
    for number, value in enumerate((0, 3)):
        store = write(tmp_path / f"t{number}.zarr", truth + np.uint16(value), chunks=(4, 4, 4))
        chosen = rule(distance_tolerance=2)
        found = score_stored(open_pair(tmp_path / "p.zarr", store), chosen)
        expected = score_case(f"t{number}", prediction, truth + value, chosen, Spacing.of((1, 1, 1), "nm"))
        same(plain(found), plain(expected))
        assert combine([found], chosen).excluded == combine([expected], chosen).excluded
        assert math.isnan(found.mean["mfd_mean"])


def test_few_voxels_are_read_at_once(tmp_path, monkeypatch):
    """A near miss of every object: with a first margin that holds it, no more than a block and that margin is read."""
    truth = np.zeros((8, 48, 160), np.uint8)
    truth[2:5, 6:42:12, 4:156:12] = 1
    prediction = np.roll(truth, 2, axis=1)
    stores = [write(tmp_path / f"{name}.zarr", array, chunks=(8, 16, 16))
              for name, array in (("p", prediction), ("t", truth))]  # fmt: skip
    sizes = []
    read = StoredPair.read

    def counting(self, box):
        sizes.append(prod(part.stop - part.start for part in box))
        return read(self, box)

    monkeypatch.setattr(StoredPair, "read", counting)
    monkeypatch.setattr(in_blocks, "_MARGIN", 4)
    found = score_stored(open_pair(*stores), rule(distance_tolerance=1), (8, 16, 16))
    assert max(sizes) <= 8 * 24 * 24 < truth.size / 13
    same(
        plain(found), plain(score_case("t", prediction, truth, rule(distance_tolerance=1), Spacing.of((1, 1, 1), "nm")))
    )
    sizes.clear()
    score_stored(open_pair(*stores), rule(score_unit="slice"), (1, 1, 1))
    assert max(sizes) == 48 * 160


def test_blocks_are_whole_chunks(stores, monkeypatch):
    pair = open_pair(*stores)
    assert len(list(pair.blocks())) == 1, "small volumes at once"
    seen = np.zeros(SHAPE, int)
    for box in pair.blocks((5, 16, 16)):
        seen[box] += 1
    assert (seen == 1).all()


def evaluate(tmp_path, prediction, truth, *more, **block) -> int:
    (tmp_path / "dataset.json").write_text(json.dumps(dataset_json(LABELS, **block)))
    arguments = ["-p", prediction, "-g", truth, "-d", tmp_path / "dataset.json", "-o", tmp_path / "scores", *more]
    return command.main([str(argument) for argument in arguments])


def test_command(stores, arrays, tmp_path, capsys):
    assert evaluate(tmp_path, *stores, "--tolerance", "20") == 0
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    expected = score_case("truth", arrays[0], arrays[1], rule(distance_tolerance=20), Spacing.of(STEPS, "nm"))
    assert scores["mean"]["iou"] == expected.mean["iou"]
    assert scores["cases"]["truth"]["classes"]["one"]["cremi_adgt"] == pytest.approx(
        expected.classes["one"].values["cremi_adgt"]
    )
    write(tmp_path / "half.zarr", arrays[1][..., ::2, ::2], spacing=(8, 8, 8), chunks=(4, 8, 8))
    assert evaluate(tmp_path, f"{stores[0]}::1", tmp_path / "half.zarr", "--no-distances") == 0
    assert capsys.readouterr().err == ""


def test_refusals(stores, arrays, tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch):
    import zarr

    def refused(*arguments, **block) -> str:
        assert evaluate(tmp_path, *arguments, **block) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1 and "Traceback" not in shown
        return shown

    prediction, truth = stores
    assert "is a Zarr volume, " in refused(prediction, tmp_path)
    assert "no Zarr volume" in refused(prediction, tmp_path / "missing.zarr")
    assert "every score would be 1" in refused(truth, truth)
    assert "has no level 7; it has 0, 1" in refused(f"{prediction}::7", truth)
    shown = refused(f"{prediction}::1", truth)
    assert "has shape (12, 15, 22), the ground truth (12, 30, 44)" in shown
    other = write(tmp_path / "other.zarr", arrays[0], spacing=(8, 5, 4))
    assert "has spacing (8, 5, 4), the ground truth (8, 4, 4)" in refused(other, truth)
    image = write(tmp_path / "image.zarr", arrays[0].astype(np.float32), spacing=STEPS)
    assert "holds float32; expected whole numbers" in refused(image, truth)
    grey = write(tmp_path / "grey.zarr", arrays[0] * 100, spacing=STEPS)
    assert "holds the values 100, 200, which the data set lacks" in refused(grey, truth)
    group = zarr.open_group(str(write(tmp_path / "two.zarr", arrays[0])), mode="a")
    group.attrs["ome"] = {**group.attrs["ome"], "multiscales": group.attrs["ome"]["multiscales"] * 2}
    assert "holds 2 multiscales; expected one image" in refused(tmp_path / "two.zarr", truth)
    assert "mask_rule instance_match" in refused(prediction, truth, mask_rule="instance_match")
    for name, array in (("p", arrays[0]), ("t", arrays[1])):
        zarr.save_array(str(tmp_path / f"{name}.zarr"), array)
    bare = (tmp_path / "p.zarr", tmp_path / "t.zarr")
    assert "states its spacing, and CREMI's scores are in nm" in refused(*bare, distance_tolerance=20)
    assert evaluate(tmp_path, *bare) == 0
    assert evaluate(tmp_path, bare[0], truth, distance_tolerance=20) == 0, "the ground truth's spacing"
    capsys.readouterr()
    monkeypatch.setattr(in_blocks, "LARGEST", 1000)
    monkeypatch.setattr(in_blocks, "_MARGIN", 2)
    assert "voxels at once, more than 1,000. Score with --no-distances" in refused(prediction, truth)
    assert "scores whole images, and a slice of 30 x 44 pixels" in refused(prediction, truth, score_unit="slice")
