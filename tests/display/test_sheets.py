"""Overlay sheets and the HTML report."""

import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from helpers.checks import noting
from matplotlib.axes import Axes

from nnunetv2_retina.display.figures import scale_bar
from nnunetv2_retina.display.plots import Bar, Curve, class_bars, curves
from nnunetv2_retina.display.sheets import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED,
    RIGHT,
    LabelledSlice,
    OverlayRow,
    compare,
    grey_sheet,
    label_sheet,
    overlay_sheet,
    side_by_side,
)
from nnunetv2_retina.display.tints import colour_in, stretch
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing


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


@pytest.mark.parametrize(
    ("width", "step", "length", "label"),
    [
        (1024, 8.0, 250.0, "2 µm"),
        (400, 4.0, 50.0, "200 nm"),
        (1000, 6.0, 1000 / 6, "1 µm"),
        (100, 0.5, 20.0, "10 nm"),
        (1024, None, 200.0, "200 px"),
        (2, None, 1.0, "1 px"),
    ],
)
def test_scale_bar_is_a_round_length(width: int, step: float | None, length: float, label: str) -> None:
    drawn, text = scale_bar(width, step)
    assert drawn == pytest.approx(length) and text == label


def bar_length(path: Path) -> tuple[int, int]:
    """Length of the longest white run of a sheet of flat grey, and the width of its first picture, in its pixels."""
    sheet = iio.imread(path)[..., :3].astype(int)
    grey = np.all(np.abs(sheet - 127) <= 2, axis=-1)
    top, bottom = np.flatnonzero(grey.mean(axis=1) > 0.5)[[0, -1]]
    columns = grey[top]
    left = int(np.argmax(columns))
    width = int(np.argmin(columns[left:]))
    white = np.all(sheet[top:bottom, left : left + width] > 250, axis=-1)
    return max(len(run) for row in white for run in "".join(map(str, row.astype(int))).split("0")), width


@pytest.mark.parametrize(
    "spacing", [Spacing(None, 8, 4, NANOMETRES), Spacing(40, 8, 4, NANOMETRES), Spacing(None, 1, 1)]
)
def test_scale_bar_is_as_long_as_it_says(tmp_path: Path, spacing: Spacing) -> None:
    image, empty = np.zeros((100, 200)), np.zeros((100, 200), int)
    overlay_sheet(tmp_path / "sheet.png", [OverlayRow("a", image, empty, empty, spacing)], {1: "mitochondria"})
    length, width = bar_length(tmp_path / "sheet.png")
    assert length / width == pytest.approx(0.25, abs=0.01)  # 200 nm, 50 px


def test_anisotropic_pixels_have_their_proportions(tmp_path: Path) -> None:
    image, empty = np.zeros((100, 100)), np.zeros((100, 100), int)
    heights = {}
    for name, spacing in (("square", None), ("tall", Spacing(None, 8, 4))):
        overlay_sheet(tmp_path / "sheet.png", [OverlayRow("a", image, empty, empty, spacing)], {1: "mitochondria"})
        grey = np.all(np.abs(iio.imread(tmp_path / "sheet.png")[..., :3].astype(int) - 127) <= 2, axis=-1)
        heights[name] = grey.any(axis=1).sum()
    assert heights["tall"] / heights["square"] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(("classes", "cases"), [(1, 1), (8, 200)])
def test_class_bars(tmp_path: Path, classes: int, cases: int, monkeypatch) -> None:
    texts: list[str] = []
    points: list[tuple[list[float], list[float]]] = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **_: texts.append(text))
    monkeypatch.setattr(Axes, "scatter", noting(points, lambda self, x, y, **_: (x, y), Axes.scatter))
    values = np.random.default_rng(0).uniform(0.2, 1, cases).tolist()
    bars = [Bar(f"a long name of class {number}", values) for number in range(classes - 1)]
    bars.append(Bar("partly", [*values, float("nan")]))
    class_bars(tmp_path / "bars.png", {"IoU": bars, "F": [*bars[:-1], Bar("none", [float("nan")])]})
    assert texts[classes - 1] == f"{np.mean(values):.3f}  ({cases} of {cases + 1})"
    assert texts[-1] == "undefined  (0 of 1)"
    found, heights = points[classes - 1]
    assert found == values and max(abs(height - (classes - 1)) for height in heights) < 0.36
    assert iio.imread(tmp_path / "bars.png")[..., :3].std() > 10


def test_class_bar_of_a_given_mean(tmp_path: Path, monkeypatch) -> None:
    lengths: list[float] = []
    monkeypatch.setattr(Axes, "barh", noting(lengths, lambda self, y, width, **_: width, Axes.barh))
    class_bars(tmp_path / "bars.png", {"IoU": [Bar("a", [0.5, 1.0], 0.6), Bar("b", [0.5, 1.0])]})
    assert lengths == [0.6, 0.75]


def test_sheet_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match="needs at least one image"):
        overlay_sheet(tmp_path / "sheet.png", [], {1: "mitochondria"})


def test_errors_and_differences_do_not_set_the_grey_scale(tmp_path: Path, monkeypatch) -> None:
    """Beside them an image was black and white."""
    limits: list[tuple[float, ...]] = []
    shown = noting(limits, lambda *_, vmin, vmax, **__: (round(float(vmin)), round(float(vmax))), Axes.imshow)
    monkeypatch.setattr(Axes, "imshow", shown)
    image, error = np.linspace(-200, 200, 4096).reshape(1, 64, 64), np.full((1, 64, 64), 7.0)
    columns = {"input": image, "|output - target|": abs(image), "error of the tokens": error}
    grey_sheet(tmp_path / "a.png", columns, [""])
    assert limits == [(-198, 198), (0, 396), (0, 7)]


def test_names_may_hold_dollars(tmp_path: Path) -> None:
    image, name = np.arange(64.0).reshape(8, 8), "a $10^{-3$"
    labels = (image > 30).astype(np.uint8)
    row = OverlayRow(name, image, labels, labels)
    overlay_sheet(tmp_path / "a.png", [row], {1: name})
    side_by_side(tmp_path / "b.png", row, {name: labels}, {1: name})
    label_sheet(tmp_path / "c.png", [LabelledSlice(name, image, labels)], {1: name})
    grey_sheet(tmp_path / "d.png", {name: image[None]}, [name])
    class_bars(tmp_path / "e.png", {"IoU": [Bar(name, [0.5])]})
    curves(tmp_path / "f.png", {"loss": [Curve(name, [1, 2], [1, 2]), Curve("b", [1, 2], [1, 2])]}, "epoch")
    assert len(list(tmp_path.glob("*.png"))) == 6


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
    modules = ", ".join(f"nnunetv2_retina.display.{name}" for name in ("figures", "pages", "plots", "sheets", "tints"))
    heavy = {"nnunetv2", "torch", "matplotlib"}  # matplotlib is imported when something is drawn
    code = f"import sys, {modules}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
