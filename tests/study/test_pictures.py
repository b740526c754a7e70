"""Test images under every system of a study, side by side."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from helpers.environment import blobs
from skimage.io import imsave

from nnunetv2_retina.display.sheets import OverlayRow, side_by_side
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.study.pictures import draw
from nnunetv2_retina.study.runs import RESULT, PlannedRun, Run

RUN = Run(
    dataset="Dataset905_small",
    system="A",
    seed=1,
    trainer="T",
    configuration="2d",
    plans="nnUNetPlans",
    fold="all",
    scored="test",
    iterations=(2, 4),
    training={},
    weights=None,
    mirroring=False,
    step_size=1.0,
)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch) -> Path:
    """A raw data set with three test images."""
    folder = tmp_path / "raw" / RUN.dataset
    labels = {"background": 0, "one": 1, "two": 2}
    for name in ("imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "EM"}, "labels": labels, "file_ending": ".png", "numTraining": 1})
    )
    for number in range(3):
        image, mask = blobs(number)
        imsave(folder / "imagesTs" / f"t{number}_0000.png", image, check_contrast=False)
        imsave(folder / "labelsTs" / f"t{number}.png", mask, check_contrast=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return folder


def finished(tmp_path: Path, raw: Path, system: str, seed: int) -> PlannedRun:
    """A run whose predictions are the ground truths."""
    planned = PlannedRun(replace(RUN, system=system, seed=seed), tmp_path / "out" / f"{system}{seed}", None)
    planned.begin()
    (planned.folder / RESULT).write_text(json.dumps({"iterations": [2, 4]}))
    target = planned.folder / "predictions" / "4"
    target.mkdir(parents=True)
    for path in (raw / "labelsTs").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return planned


def test_each_system_is_shown_by_its_first_seed_on_the_case_in_the_middle(tmp_path, raw, monkeypatch) -> None:
    runs = [finished(tmp_path, raw, system, seed) for system in "BA" for seed in (2, 1)]
    seen = []
    monkeypatch.setattr(
        "nnunetv2_retina.study.pictures.side_by_side",
        lambda path, row, predictions, *more: seen.append((row, predictions)),
    )
    sheets = draw(runs, ["A", "B", "C"], tmp_path / "report")
    assert list(sheets) == ["Dataset905_small: t1"]
    ((row, predictions),) = seen
    assert list(predictions) == ["A, seed 1", "B, seed 1"]
    assert np.array_equal(row.truth, iio.imread(raw / "labelsTs" / "t1.png"))
    assert np.array_equal(predictions["B, seed 1"], row.truth)


def test_runs_without_predictions_are_left_out(tmp_path, raw) -> None:
    planned = finished(tmp_path, raw, "A", 1)
    other = finished(tmp_path, raw, "B", 1)
    for path in (other.folder / "predictions" / "4").iterdir():
        path.unlink()
    (other.folder / "predictions" / "4").rmdir()
    (path,) = draw([other, planned], ["A", "B"], tmp_path / "report").values()
    picture = iio.imread(path)
    assert (picture[..., :3].std(axis=(0, 1)) > 20).all()  # there is something on it
    for path in (raw / "imagesTs").iterdir():  # nor are the images needed then
        path.unlink()
    assert draw([other], ["A", "B"], tmp_path / "report") == {}


def test_a_case_that_all_shown_runs_have_is_chosen(tmp_path, raw) -> None:
    first, second, empty = (finished(tmp_path, raw, system, 1) for system in "ABC")
    (first.folder / "predictions" / "4" / "t1.png").unlink()
    for path in (empty.folder / "predictions" / "4").iterdir():
        path.unlink()
    assert list(draw([first, second, empty], ["A", "B", "C"], tmp_path / "report")) == ["Dataset905_small: t2"]
    for name in ("t0", "t2"):
        (first.folder / "predictions" / "4" / f"{name}.png").unlink()
    assert list(draw([first, second], ["A", "B"], tmp_path / "report")) == ["Dataset905_small: t1"]
    (second.folder / "predictions" / "4" / "t1.png").unlink()
    lacking = finished(tmp_path, raw, "D", 1)
    for name in ("t0", "t2"):
        (lacking.folder / "predictions" / "4" / f"{name}.png").unlink()
    assert draw([second, lacking], ["B", "D"], tmp_path / "report") == {}


def test_panels_are_filled_row_by_row_and_shapes_must_agree(tmp_path) -> None:
    image, mask = blobs(0)
    row = OverlayRow("case", image, mask, mask, Spacing(None, 1, 1))
    for number, lines in ((2, 1), (3, 2)):
        side_by_side(tmp_path / "sheet.png", row, {f"system {i}": mask for i in range(number)}, {1: "one", 2: "two"})
        height, width = iio.imread(tmp_path / "sheet.png").shape[:2]
        assert height / width == pytest.approx(lines / 4, rel=0.35)
        # The middle of every panel that is used is dark or coloured, not paper.
        grey = iio.imread(tmp_path / "sheet.png")[..., :3].mean(axis=-1)
        assert grey[height // (2 * lines), width // 8] < 250
    with pytest.raises(RetinaError, match=r"system: image, truth and prediction are .*; expected one \(y, x\) shape"):
        side_by_side(tmp_path / "sheet.png", row, {"system": mask[1:]}, {1: "one"})
