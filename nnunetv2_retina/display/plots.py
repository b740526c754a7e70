"""Plots of numbers. Colours and the way figures are made are those of ``reporting``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import fill

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00")
_LINE_STYLES = ("-", "--", "-.", ":")


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
            style = _LINE_STYLES[number // len(_LINE_COLOURS) % len(_LINE_STYLES)]
            marker = "." if len(line.x) < 30 else None
            axis.plot(line.x, line.y, label=line.name, color=colour, linestyle=style, marker=marker)
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


@dataclass(frozen=True)
class Bar:
    """One class of a bar plot."""

    name: str
    values: Sequence[float]
    """A score from 0 to 1 for each case; NaN where undefined."""
    mean: float | None = None
    """Length of the bar; None: the mean of the defined values."""


def class_bars(path: str | Path, groups: Mapping[str, Sequence[Bar]]) -> None:
    """Write a PNG with a panel beside the other, a bar for each class, and each of its cases as a point.

    Beside a bar stands its length; and how many cases have a value, if not all have.

    Args:
        path: file to write; its folder exists.
        groups: title of a panel, such as ``IoU`` -> its bars from top to bottom; the same classes in each.
    """
    most = max(len(bars) for bars in groups.values())
    size = (max(4.6 * len(groups), 6.0), 0.55 * most + 1.0)
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, (title, bars) in zip(panels, groups.items(), strict=True):
        for place, bar in enumerate(bars):
            defined = [value for value in bar.values if value == value]
            mean = bar.mean if bar.mean is not None else sum(defined) / len(defined) if defined else float("nan")
            known = "" if len(defined) == len(bar.values) else f"  ({len(defined)} of {len(bar.values)})"
            told = f"{mean:.3f}{known}" if mean == mean else f"undefined{known}"
            axis.barh(place, 0.0 if mean != mean else mean, height=0.72, color="#56B4E9", alpha=0.55)
            # Multiples of the golden ratio fill the height of the bar evenly, whatever the number of points.
            heights = [place + 0.54 * ((number * 0.618034 + 0.5) % 1 - 0.5) for number in range(len(defined))]
            sharp = 0.75 if len(defined) <= 40 else 0.4
            axis.scatter(defined, heights, s=14, color="#000000", alpha=sharp, linewidths=0, zorder=3, clip_on=False)
            axis.text(1.06, place, told, transform=axis.get_yaxis_transform(), va="center", fontsize=9)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1)
        axis.set_ylim(most - 0.5, -0.5)
        axis.set_yticks(range(len(bars)), [bar.name for bar in bars])
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))


_SYSTEM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SYSTEM_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h")
_BAND_RUNS = 3
"""Fewer runs than these are drawn as lines of their own, not as a band."""


@dataclass(frozen=True)
class Spread:
    """The runs of one system over the same axis."""

    name: str
    x: Sequence[float]
    """Ascending."""
    runs: Sequence[Sequence[float]]
    """One a run, each as long as ``x``; NaN where a run has no value. None: nothing is drawn."""

    def over(self, take: Callable[[Sequence[float]], float]) -> list[float]:
        """``take`` of the defined values at each ``x``; NaN where there is none."""
        columns = [[value for value in column if value == value] for column in zip(*self.runs, strict=True)]
        return [take(column) if column else float("nan") for column in columns]


def convergence(path: str | Path, systems: Sequence[Spread], x_label: str, y_label: str) -> None:
    """Write the PNG of ``convergence_figure``; the folder exists."""
    FigureCanvasAgg(convergence_figure(systems, x_label, y_label)).print_png(str(path))


def convergence_figure(systems: Sequence[Spread], x_label: str, y_label: str) -> Figure:
    """The mean of each system as a line, and a band from its worst run to its best.

    Fewer than three runs are thin lines instead of a band. A number in the order of ``systems`` has the same colour,
    line and marker in every figure; up to 28 can be told apart. The horizontal axis is logarithmic where its values
    span more than a factor of ten.
    """
    figure = Figure(figsize=(9, max(4.2, 0.3 * len(systems) + 1)), layout="constrained", dpi=120)
    axis = figure.subplots()
    for number, system in enumerate(systems):
        if not system.runs:
            continue
        colour = _SYSTEM_COLOURS[number % len(_SYSTEM_COLOURS)]
        line = _LINE_STYLES[number % len(_LINE_STYLES)]
        marker = _SYSTEM_MARKERS[number % len(_SYSTEM_MARKERS)]
        if len(system.runs) >= _BAND_RUNS:
            axis.fill_between(system.x, system.over(min), system.over(max), color=colour, alpha=0.13, linewidth=0)
        elif len(system.runs) > 1:
            for run in system.runs:
                axis.plot(system.x, run, color=colour, linestyle=line, linewidth=0.6, alpha=0.7)
        axis.plot(
            system.x, system.over(fmean), label=system.name, color=colour, linestyle=line, marker=marker, markersize=5
        )
    places = sorted({x for system in systems for x in system.x})
    if places and places[0] > 0 and places[-1] > 10 * places[0]:
        axis.set_xscale("log")
        axis.set_xticks([], minor=True)
        axis.set_xticks(_apart(places, 1.4), [f"{place:g}" for place in _apart(places, 1.4)])
    elif 0 < len(places) <= 8:
        axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False, handlelength=3.2)
    return figure


@dataclass(frozen=True)
class Box:
    """The runs of one system."""

    name: str
    values: Sequence[float]
    """Defined scores, one a run; may be empty."""
    note: str = ""
    """What stands above the box, such as a p value; lines are kept."""
    emphasised: bool = False


def boxes(path: str | Path, systems: Sequence[Box], y_label: str) -> None:
    """Write the PNG of ``boxes_figure``; the folder exists."""
    FigureCanvasAgg(boxes_figure(systems, y_label)).print_png(str(path))


def boxes_figure(systems: Sequence[Box], y_label: str) -> Figure:
    """A box plot per system and every run as a point.

    Boxes reach from the first to the third quartile, with a line at the median; whiskers reach to the furthest run
    within 1.5 times the box's height. A system of fewer than three runs has points only.
    """
    figure = Figure(figsize=(max(5.0, 1.15 * len(systems) + 1), 4.8), layout="constrained", dpi=120)
    axis = figure.subplots()
    for place, system in enumerate(systems):
        colour = _SYSTEM_COLOURS[0] if system.emphasised else "#777777"
        if len(system.values) >= _BAND_RUNS:
            drawn = axis.boxplot([list(system.values)], positions=[place], widths=0.55, showfliers=False)
            for kind, artists in drawn.items():
                for artist in artists:
                    artist.set(color=colour, linewidth=2.2 if kind == "medians" else 1.2)
        offsets = [0.3 * ((number * 0.618034 + 0.5) % 1 - 0.5) for number in range(len(system.values))]
        axis.scatter(
            [place + offset for offset in offsets], system.values, s=22, color=colour, alpha=0.8, linewidths=0, zorder=3
        )
        if system.values:
            axis.annotate(
                system.note,
                (place, max(system.values)),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
        else:
            axis.text(place, 0.5, "no score", transform=axis.get_xaxis_transform(), ha="center", fontsize=8)
    low, high = axis.get_ylim()
    most = max((system.note.count("\n") + 1 for system in systems if system.note), default=0)
    axis.set_ylim(low, high + (high - low) * 0.05 * most)
    axis.set_xlim(-0.6, len(systems) - 0.4)
    names = [f"{fill(system.name, 16)}\nn = {len(system.values)}" for system in systems]
    axis.set_xticks(range(len(systems)), names, fontsize=8)
    axis.set_ylabel(y_label)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _apart(places: Sequence[float], factor: float) -> list[float]:
    """Of ascending values, the first and every one that is at least ``factor`` times the one kept before."""
    kept: list[float] = []
    for place in places:
        if not kept or place >= factor * kept[-1]:
            kept.append(place)
    return kept
