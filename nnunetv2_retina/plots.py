"""Plots of numbers. Colours and the way figures are made are those of ``reporting``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00")


@dataclass(frozen=True)
class Curve:
    """A line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    """As long as ``x``; NaN leaves a gap."""


def curves(
    path: str | Path, panels: Mapping[str, Sequence[Curve]], x_label: str, logarithmic: Collection[str] = ()
) -> None:
    """Write a PNG with a panel above the other, all over the same axis, which begins at 0.

    Args:
        path: file to write; its folder exists.
        panels: label of the vertical axis -> the panel's lines.
        x_label: of the common axis.
        logarithmic: labels of the panels whose axis is logarithmic, where all values are above 0.
    """
    figure = Figure(figsize=(8, 2.6 * len(panels)), layout="constrained")
    for axis, (label, lines) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        for number, line in enumerate(lines):
            colour = _LINE_COLOURS[number % len(_LINE_COLOURS)]
            axis.plot(line.x, line.y, label=line.name, color=colour, marker="." if len(line.x) < 30 else None)
        if label in logarithmic and all(value > 0 for line in lines for value in line.y if value == value):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend(fontsize=8)
        axis.set_xlim(left=0)
    axis.set_xlabel(x_label)
    FigureCanvasAgg(figure).print_png(str(path))
