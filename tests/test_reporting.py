"""Overlay sheets and the HTML report."""

import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.reporting import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED,
    RIGHT,
    LabelledSlice,
    OverlayRow,
    colour_in,
    compare,
    label_sheet,
    overlay_sheet,
    stretch,
)


def test_outcome_of_every_pixel() -> None:
    truth = np.array([0, 1, 1, 0, 1, 255])
    prediction = np.array([0, 1, 0, 1, 2, 1])
    expected = [0, RIGHT, FALSE_NEGATIVE, FALSE_POSITIVE, FALSE_POSITIVE, IGNORED]
    np.testing.assert_array_equal(compare(prediction, truth, ignore=255), expected)


def test_stretch_fills_the_range_of_any_type() -> None:
    grey = stretch(np.arange(1000, dtype=np.uint16).reshape(10, 100))
    assert grey.min() == 0 and grey.max() == 1 and grey.dtype == np.float32
    np.testing.assert_array_equal(stretch(np.full((2, 2), 9)), 0.5)


def test_only_the_given_labels_are_tinted() -> None:
    tinted = colour_in(np.full((1, 2), 0.5, np.float32), np.array([[0, 1]]), {1: "#FF0000"})
    np.testing.assert_allclose(tinted, [[[0.5, 0.5, 0.5], [0.75, 0.25, 0.25]]])


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (60, 20)])
def test_sheet_is_a_picture_with_a_row_per_image(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    truth = (image > 200).astype(np.uint8)
    row = OverlayRow("case <1>", image, truth, truth)
    overlay_sheet(tmp_path / "one.png", [row], {1: "mitochondria"})
    overlay_sheet(tmp_path / "three.png", [row] * 3, {1: "mitochondria", 2: "vesicles"}, ignore=255)
    one, three = (iio.imread(tmp_path / name) for name in ("one.png", "three.png"))
    assert one.shape[1] == three.shape[1] and three.shape[0] > 1.5 * one.shape[0]
    assert one.std() > 10


def test_sheet_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match="needs at least one image"):
        overlay_sheet(tmp_path / "sheet.png", [], {1: "mitochondria"})


def test_sheet_with_unequal_shapes_is_refused(tmp_path: Path) -> None:
    row = OverlayRow("case_1", np.zeros((4, 4)), np.zeros((4, 5), int), np.zeros((4, 4), int))
    with pytest.raises(RetinaError, match=r"case_1: image, truth and prediction .* expected one \(y, x\) shape"):
        overlay_sheet(tmp_path / "sheet.png", [row], {1: "mitochondria"})


def test_label_sheet_has_two_slices_a_row_and_shows_what_is_ignored(tmp_path: Path) -> None:
    image, label = np.arange(600).reshape(20, 30), np.zeros((20, 30), np.uint8)
    label[:, 20:] = 2
    entries = [LabelledSlice(f"slice {i}", image, label) for i in range(3)]
    label_sheet(tmp_path / "one.png", entries[:1], {1: "mitochondria"}, ignore=2)
    label_sheet(tmp_path / "two.png", entries[:2], {1: "mitochondria"}, ignore=2)
    label_sheet(tmp_path / "three.png", entries, {1: "mitochondria"})
    one, two, three = (iio.imread(tmp_path / f"{name}.png")[..., :3].astype(int) for name in ("one", "two", "three"))
    assert one.shape == two.shape and three.shape[0] > 1.5 * two.shape[0]
    magenta = [((sheet[..., 0] - sheet[..., 1] > 60) & (sheet[..., 2] > 100)).sum() for sheet in (one, two, three)]
    assert 1.5 * magenta[0] < magenta[1] and magenta[2] == 0


def test_label_sheet_refuses_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match="needs at least one labelled slice"):
        label_sheet(tmp_path / "sheet.png", [], {1: "mitochondria"})
    entry = LabelledSlice("case_1", np.zeros((4, 4)), np.zeros((4, 5), int))
    with pytest.raises(RetinaError, match=r"case_1: image and label are \(4, 4\) and \(4, 5\); expected one \(y, x\)"):
        label_sheet(tmp_path / "sheet.png", [entry], {1: "mitochondria"})


def test_pictures_and_pages_import_nothing_of_nnunet() -> None:
    modules = ", ".join(f"nnunetv2_retina.{name}" for name in ("pages", "plots", "reporting"))
    code = f"import sys, {modules}; sys.exit('nnunetv2' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
