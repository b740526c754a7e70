"""Histograms of what was measured of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.figures import legend, literal, new_figure, save

_WHOLE, _CUT = "#0072B2", "#E69F00"
_BINS = (6, 40)


@dataclass(frozen=True)
class Histogram:
    """One panel."""

    label: str
    """Of the horizontal axis, with the unit."""
    whole: Sequence[float]
    cut: Sequence[float]
    """Those of objects that the image's border cuts, drawn on top of the others."""
    logarithmic: bool = False
    """Where all values are above 0."""


def histograms(path: str | Path, lines: Mapping[str, Sequence[Histogram]], names: tuple[str, str]) -> None:
    """Write a PNG with a line of panels for each class.

    Args:
        path: file to write; its folder exists.
        lines: title of a line -> its panels, as many in each; at least one line.
        names: of the two colours, for the legend.
    """
    most = max(len(panels) for panels in lines.values())
    figure = new_figure(3.3 * most, 2.5 * len(lines) + 0.5, dpi=120)
    grid = figure.subplots(len(lines), most, squeeze=False)
    for axes, (title, panels) in zip(grid, lines.items(), strict=True):
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel)
        axes[0].set_ylabel(f"{literal(title)}\nobjects")
    legend(figure, list(zip(names, (_WHOLE, _CUT), strict=True)), "lower center", 2)
    save(figure, path)


def _draw(axis: Any, panel: Histogram) -> None:
    whole, cut = np.asarray(panel.whole, float), np.asarray(panel.cut, float)
    values = np.concatenate([whole, cut])
    axis.set_xlabel(panel.label)
    axis.spines[["top", "right"]].set_visible(False)
    if not len(values):
        axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    logarithmic = panel.logarithmic and bool(values.min() > 0) and bool(values.max() > 3 * values.min())
    axis.hist([whole, cut], edges(values, logarithmic), stacked=True, color=[_WHOLE, _CUT])
    if logarithmic:
        axis.set_xscale("log")
        wide = values.max() > 100 * values.min()
        axis.xaxis.get_major_locator().set_params(subs=(1.0,) if wide else (1.0, 2.0, 5.0))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="y", alpha=0.3)


def edges(values: NDArray[np.float64], logarithmic: bool) -> NDArray[np.float64]:
    """Return the ends of the bins for some values, at least one: about the square root of their number."""
    count = min(max(ceil(sqrt(len(values))), _BINS[0]), _BINS[1])
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    return np.geomspace(low, high, count + 1) if logarithmic else np.linspace(low, high, count + 1)
