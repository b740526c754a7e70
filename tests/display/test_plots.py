"""What is drawn, read back from the figures."""

import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection

from nnunetv2_retina.display import plots
from nnunetv2_retina.display.plots import Box, Curve, Spread, boxes, boxes_figure, convergence, convergence_figure

RUNS = [[0.2, 0.5, 0.6], [0.4, 0.5, 0.9], [0.3, 0.2, math.nan]]


def test_convergence_draws_the_means_and_a_band_from_worst_to_best() -> None:
    axis = convergence_figure([Spread("ours", [50, 100, 200], RUNS)], "iterations", "IoU").axes[0]
    (line,) = axis.lines
    np.testing.assert_allclose(np.asarray(line.get_xydata()), [[50, 0.3], [100, 0.4], [200, 0.75]])
    (band,) = axis.collections
    assert isinstance(band, PolyCollection)
    corners = np.asarray(band.get_paths()[0].vertices)
    for x, low, high in ((50, 0.2, 0.4), (100, 0.2, 0.5), (200, 0.6, 0.9)):
        heights = corners[corners[:, 0] == x][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))
    assert axis.get_xscale() == "linear" and axis.get_ylabel() == "IoU"


def test_fewer_than_three_runs_are_lines_of_their_own() -> None:
    axis = convergence_figure([Spread("ours", [50, 100, 200], RUNS[:2])], "iterations", "IoU").axes[0]
    assert not axis.collections
    drawn = [np.asarray(line.get_ydata()).tolist() for line in axis.lines]
    assert drawn[:2] == RUNS[:2] and drawn[2] == pytest.approx([0.3, 0.5, 0.75])
    assert axis.lines[0].get_linewidth() < axis.lines[2].get_linewidth()


def test_axis_is_logarithmic_beyond_a_factor_of_ten() -> None:
    system = Spread("default", [250000], [[0.6]])
    axis = convergence_figure([Spread("ours", [50, 60, 200], RUNS), system], "iterations", "IoU").axes[0]
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels()] == ["50", "200", "250000"]


def test_systems_can_be_told_apart_and_keep_their_style() -> None:
    systems = [Spread(f"system {number}", [1, 2], [[0.1, 0.2]]) for number in range(28)]
    lines = convergence_figure(systems, "iterations", "IoU").axes[0].lines
    styles = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(set(styles)) == 28
    absent = [Spread("system 0", [], []), *systems[1:]]
    figure = convergence_figure(absent, "iterations", "IoU")
    assert [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines] == styles[1:]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [system.name for system in systems[1:]]


def test_boxes_draw_quartiles_every_run_and_the_notes() -> None:
    systems = [
        Box("ours", [0.5, 0.6, 0.7, 0.8, 0.9], "reference", True),
        Box("two", [0.3, 0.4], "p = 0.1"),
        Box("none", []),
    ]
    axis = boxes_figure(systems, "IoU").axes[0]
    box = np.asarray(axis.lines[0].get_ydata())  # a closed line around the box, at the quartiles
    assert (box.min(), box.max()) == pytest.approx((0.6, 0.8))
    median = next(line for line in axis.lines if line.get_linewidth() > 2)
    np.testing.assert_allclose(np.asarray(median.get_ydata()), 0.7)
    points = [entry for entry in axis.collections if isinstance(entry, PathCollection)]
    drawn = [np.asarray(entry.get_offsets()) for entry in points]
    for place, system in enumerate(systems):
        np.testing.assert_allclose(drawn[place][:, 1], system.values)
        assert np.all(np.abs(drawn[place][:, 0] - place) < 0.3)
    assert [text.get_text() for text in axis.texts] == ["reference", "p = 0.1", "no score"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["ours\nn = 5", "two\nn = 2", "none\nn = 0"]
    assert axis.get_ylim()[1] > 0.9


def test_one_epoch_is_a_dot_on_axes_that_mean_something(tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.curves(
        tmp_path / "a", {"loss": [Curve("training", [1], [0.7])], "rate": [Curve("", [1, 2], [0, 0])]}, "epoch"
    )
    loss, rate = drawn[0].axes
    assert loss.lines[0].get_marker() == "o"
    assert loss.get_ylim() == pytest.approx((0, 0.84)) and rate.get_ylim() == (0, 1)
    drawn[0].canvas.draw()
    shown = [place for place in rate.get_xticks() if 0 <= place <= rate.get_xlim()[1]]
    assert shown and all(float(place).is_integer() for place in shown)


def test_both_are_written_as_pictures(tmp_path: Path) -> None:
    convergence(tmp_path / "a", [Spread("ours", [50, 100, 200], RUNS)], "iterations", "IoU")
    boxes(tmp_path / "b", [Box("ours", RUNS[0])], "IoU")
    for name in ("a", "b"):
        picture = iio.imread(tmp_path / name)
        assert picture.ndim == 3 and picture.std() > 10
