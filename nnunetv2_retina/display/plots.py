"""Plots of numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

from nnunetv2_retina.display.figures import literal, new_figure, save

if TYPE_CHECKING:
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
    """Write a PNG with panels one above the other, all over the same axis of whole numbers, which begins at 0.

    Args:
        path: file to write; its folder exists.
        panels: label of the vertical axis -> the panel's lines.
        x_label: of the common axis.
        logarithmic: labels of the panels whose axis is logarithmic, where all values are above 0.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 2.6 * len(panels))
    for axis, (label, lines) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        values = [value for line in lines for value in line.y if value == value]
        _draw_lines(axis, lines)
        if label in logarithmic and all(value > 0 for value in values):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _leave_room(axis, values)
    axis.set_xlabel(x_label)
    save(figure, path)


def _leave_room(axis: Any, values: Sequence[float]) -> None:
    """Let the vertical axis of equal values begin at 0: around them it would show digits that mean nothing."""
    if values and min(values) == max(values) and axis.get_yscale() == "linear":
        axis.set_ylim(min(0.0, 1.2 * values[0]), max(0.0, 1.2 * values[0]) or 1.0)


def _draw_lines(axis: Any, lines: Sequence[Curve]) -> None:
    for number, line in enumerate(lines):
        colour = _LINE_COLOURS[number % len(_LINE_COLOURS)]
        style = _LINE_STYLES[number // len(_LINE_COLOURS) % len(_LINE_STYLES)]
        marker = "o" if len(line.x) == 1 else "." if len(line.x) < 30 else None
        axis.plot(line.x, line.y, label=literal(line.name), color=colour, linestyle=style, marker=marker)
    if len(lines) > 1:
        axis.legend(fontsize=8)


@dataclass(frozen=True)
class Bar:
    """One class of a bar plot."""

    name: str
    values: Sequence[float]
    """A score from 0 to 1 for each case; NaN where undefined."""
    mean: float | None = None
    """Length of the bar; None: the mean of the defined values."""

    @property
    def defined(self) -> list[float]:
        """Return the values that are not NaN."""
        return [value for value in self.values if value == value]

    @property
    def length(self) -> float:
        """Return the length of the bar; NaN if there is none."""
        if self.mean is not None:
            return self.mean
        return sum(self.defined) / len(self.defined) if self.defined else float("nan")

    @property
    def label(self) -> str:
        """Return the length, and how many cases have a value, if not all have."""
        known = "" if len(self.defined) == len(self.values) else f"  ({len(self.defined)} of {len(self.values)})"
        return f"{self.length:.3f}{known}" if self.length == self.length else f"undefined{known}"


def class_bars(path: str | Path, groups: Mapping[str, Sequence[Bar]]) -> None:
    """Write a PNG with panels side by side, a bar for each class, and each of its cases as a point.

    Beside a bar stands its length; and how many cases have a value, if not all have.

    Args:
        path: file to write; its folder exists.
        groups: title of a panel, such as ``IoU`` -> its bars from top to bottom; the same classes in each.
    """
    most = max(len(bars) for bars in groups.values())
    figure = new_figure(max(4.6 * len(groups), 6.0), 0.55 * most + 1.0, dpi=150)
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, (title, bars) in zip(panels, groups.items(), strict=True):
        for place, bar in enumerate(bars):
            _draw_bar(axis, place, bar)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1)
        axis.set_ylim(most - 0.5, -0.5)
        axis.set_yticks(range(len(bars)), [literal(bar.name) for bar in bars])
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _draw_bar(axis: Any, place: int, bar: Bar) -> None:
    axis.barh(place, 0.0 if bar.length != bar.length else bar.length, height=0.72, color="#56B4E9", alpha=0.55)
    heights = [place + offset for offset in _scattered(len(bar.defined), 0.54)]
    opacity = 0.75 if len(bar.defined) <= 40 else 0.4
    if len(bar.values) > 1:  # else the point is the bar's end
        axis.scatter(bar.defined, heights, s=14, color="#000000", alpha=opacity, linewidths=0, zorder=3, clip_on=False)
    axis.text(1.06, place, bar.label, transform=axis.get_yaxis_transform(), va="center", fontsize=9)


def _scattered(number: int, width: float) -> list[float]:
    """Return offsets that fill a width around 0 evenly, however many: multiples of the golden ratio do."""
    return [width * ((index * 0.618034 + 0.5) % 1 - 0.5) for index in range(number)]


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
    """One for each run, as long as ``x``; NaN where a run has no value. If there are none, nothing is drawn."""

    def over(self, take: Callable[[Sequence[float]], float]) -> list[float]:
        """Return ``take`` of the defined values at each ``x``; NaN where there is none."""
        columns = [[value for value in column if value == value] for column in zip(*self.runs, strict=True)]
        return [take(column) if column else float("nan") for column in columns]


def convergence(path: str | Path, systems: Sequence[Spread], x_label: str, y_label: str) -> None:
    """Write the PNG of ``convergence_figure``; the folder exists."""
    save(convergence_figure(systems, x_label, y_label), path)


def convergence_figure(systems: Sequence[Spread], x_label: str, y_label: str) -> Figure:
    """Draw the mean of each system as a line, and a band from its worst run to its best.

    Fewer than three runs are thin lines instead of a band. The n-th of ``systems`` has the same colour, line and
    marker in every figure; up to 28 can be told apart. The horizontal axis is logarithmic where its values
    span more than a factor of ten.
    """
    figure = new_figure(9, max(4.2, 0.3 * len(systems) + 1), dpi=120)
    axis = figure.subplots()
    for number, system in enumerate(systems):
        if system.runs:
            _draw_spread(axis, number, system)
    _place_ticks(axis, sorted({x for system in systems for x in system.x}))
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False, handlelength=3.2)
    return figure


def _draw_spread(axis: Any, number: int, system: Spread) -> None:
    style = {
        "color": _SYSTEM_COLOURS[number % len(_SYSTEM_COLOURS)],
        "linestyle": _LINE_STYLES[number % len(_LINE_STYLES)],
    }
    if len(system.runs) >= _BAND_RUNS:
        low, high = system.over(min), system.over(max)
        axis.fill_between(system.x, low, high, color=style["color"], alpha=0.13, linewidth=0)
    elif len(system.runs) > 1:
        for run in system.runs:
            axis.plot(system.x, run, linewidth=0.6, alpha=0.7, **style)
    marker = _SYSTEM_MARKERS[number % len(_SYSTEM_MARKERS)]
    axis.plot(system.x, system.over(fmean), label=literal(system.name), marker=marker, markersize=5, **style)


def _place_ticks(axis: Any, places: Sequence[float]) -> None:
    if places and places[0] > 0 and places[-1] > 10 * places[0]:
        axis.set_xscale("log")
        axis.set_xticks([], minor=True)
        places = _apart(places, 1.4)
    elif not 0 < len(places) <= 8:
        return
    axis.set_xticks(places, [f"{place:g}" for place in places])


@dataclass(frozen=True)
class Box:
    """The runs of one system."""

    name: str
    values: Sequence[float]
    """Defined scores, one for each run; may be empty."""
    note: str = ""
    """Shown above the box, such as a p value; lines are kept."""
    emphasised: bool = False


def boxes(path: str | Path, systems: Sequence[Box], y_label: str) -> None:
    """Write the PNG of ``boxes_figure``; the folder exists."""
    save(boxes_figure(systems, y_label), path)


def boxes_figure(systems: Sequence[Box], y_label: str) -> Figure:
    """Draw a box plot per system and every run as a point.

    Boxes reach from the first to the third quartile, with a line at the median; whiskers reach to the furthest run
    within 1.5 times the box's height. A system of fewer than three runs has points only.
    """
    figure = new_figure(max(5.0, 1.15 * len(systems) + 1), 4.8, dpi=120)
    axis = figure.subplots()
    for place, system in enumerate(systems):
        _draw_box(axis, place, system)
    low, high = axis.get_ylim()
    most = max((system.note.count("\n") + 1 for system in systems if system.note), default=0)
    axis.set_ylim(low, high + (high - low) * 0.05 * most)
    axis.set_xlim(-0.6, len(systems) - 0.4)
    names = [f"{literal(fill(system.name, 16))}\nn = {len(system.values)}" for system in systems]
    axis.set_xticks(range(len(systems)), names, fontsize=8)
    axis.set_ylabel(y_label)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_box(axis: Any, place: int, system: Box) -> None:
    colour = _SYSTEM_COLOURS[0] if system.emphasised else "#777777"
    if len(system.values) >= _BAND_RUNS:
        drawn = axis.boxplot([list(system.values)], positions=[place], widths=0.55, showfliers=False)
        for kind, artists in drawn.items():
            for artist in artists:
                artist.set(color=colour, linewidth=2.2 if kind == "medians" else 1.2)
    places = [place + offset for offset in _scattered(len(system.values), 0.3)]
    axis.scatter(places, system.values, s=22, color=colour, alpha=0.8, linewidths=0, zorder=3)
    if not system.values:
        axis.text(place, 0.5, "no score", transform=axis.get_xaxis_transform(), ha="center", fontsize=8)
        return
    above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    axis.annotate(system.note, (place, max(system.values)), fontsize=8, **above)


def _apart(places: Sequence[float], factor: float) -> list[float]:
    """Return the first of ascending values, and every one that is at least ``factor`` times the one kept before."""
    kept: list[float] = []
    for place in places:
        if not kept or place >= factor * kept[-1]:
            kept.append(place)
    return kept
