"""Sheets of images: overlays of labels and outcomes, grey levels. Uses matplotlib, as ``plots`` does and nothing else.

Colours are from the palette of Okabe and Ito, which stays apart for every kind of colour vision. Figures are drawn
without pyplot, so nothing depends on a display or on global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError

RIGHT, FALSE_POSITIVE, FALSE_NEGATIVE, IGNORED = 1, 2, 3, 4
OUTCOMES = {
    RIGHT: ("true positive", "#56B4E9"),
    FALSE_POSITIVE: ("false positive", "#D55E00"),
    FALSE_NEGATIVE: ("false negative", "#F0E442"),
    IGNORED: ("not evaluated", "#000000"),
}
CLASS_COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#0072B2", "#F0E442", "#D55E00", "#56B4E9")
"""One for each foreground class, repeated if there are more."""

NANOMETRES, PIXELS = "nm", "px"
"""Units of a scale bar."""

_IGNORE_COLOUR = "#FF00FF"
_OPACITY, _COMPARISON_OPACITY = 0.5, 0.7
_BAR_SHARE = 0.3
"""A scale bar takes at most this much of the picture's width."""
_SHEET_DPI = 150
_PANEL_INCHES = 3.2


@dataclass(frozen=True)
class OverlayRow:
    """One row of an overlay sheet; the arrays are (Y, X) and of one shape."""

    name: str
    image: NDArray[Any]
    """Grey levels of any real type; the contrast is stretched for display."""
    truth: NDArray[Any]
    """Label values, whole numbers; 0 is background."""
    prediction: NDArray[Any]
    """Label values, whole numbers; 0 is background."""
    spacing: tuple[float, float] | None = None
    """Size of a pixel along y and x, which gives the picture its proportions; None: square pixels, no scale bar."""
    unit: str = NANOMETRES
    """Of the spacing: ``NANOMETRES``; or ``PIXELS`` where it is not known, and the scale bar counts pixels along x."""


@dataclass(frozen=True)
class LabelledSlice:
    """One entry of a label sheet; the arrays are (Y, X) and of one shape."""

    title: str
    image: NDArray[Any]
    """Grey levels of any real type; the contrast is stretched for display."""
    label: NDArray[Any]
    """Label values, whole numbers; 0 is background."""


def compare(prediction: NDArray[Any], truth: NDArray[Any], ignore: int | None = None) -> NDArray[np.uint8]:
    """Outcome of every pixel, uint8: 0 true negative, else one of the keys of ``OUTCOMES``.

    A foreground pixel of the wrong class counts as a false positive.
    """
    outcome = np.zeros(truth.shape, np.uint8)
    outcome[(truth > 0) & (prediction == 0)] = FALSE_NEGATIVE
    outcome[(prediction > 0) & (prediction != truth)] = FALSE_POSITIVE
    outcome[(truth > 0) & (prediction == truth)] = RIGHT
    if ignore is not None:
        outcome[truth == ignore] = IGNORED
    return outcome


def overlay_sheet(
    path: Path, rows: Sequence[OverlayRow], class_names: Mapping[int, str], ignore: int | None = None
) -> None:
    """Write a PNG with a row per image: the image, the ground truth, the prediction, and where they differ.

    Args:
        path: File to write; its folder exists.
        rows: What to show, from top to bottom.
        class_names: Foreground label value -> its name for the legend.
        ignore: Label value of the ground truth that is not evaluated; None: no such value.

    Raises:
        RetinaError: if there is no row, the arrays of one do not have one (Y, X) shape, or its spacing is no size.
    """
    _check_rows(rows)
    colours = {label: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, label in enumerate(sorted(class_names))}
    outcomes = {key: (name, colour) for key, (name, colour) in OUTCOMES.items() if key != IGNORED or ignore is not None}
    heights = [_height(row) for row in rows]
    # Half the width is for the names of the classes; a letter takes some 0.07 inches, and what is beside it as six do.
    fitting = int(2 * _PANEL_INCHES / (0.07 * (6 + max(map(len, class_names.values()), default=0))))
    columns = max(1, min(len(class_names), fitting, 4))
    legend = 0.3 + 0.2 * math.ceil(len(class_names) / columns)
    inches = (4 * _PANEL_INCHES, sum(heights) * _PANEL_INCHES + 0.3 * len(rows) + legend)
    figure = Figure(figsize=inches, layout="constrained", dpi=_SHEET_DPI)
    panels = figure.subplots(len(rows), 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, axes in zip(rows, panels, strict=True):
        grey = stretch(row.image)
        pictures = {
            row.name: colour_in(grey, row.truth, {}),
            "ground truth": colour_in(grey, row.truth, colours),
            "prediction": colour_in(grey, row.prediction, colours),
            "comparison": colour_in(
                grey,
                compare(row.prediction, row.truth, ignore),
                {key: colour for key, (_, colour) in outcomes.items()},
                _COMPARISON_OPACITY,
            ),
        }
        aspect = row.spacing[0] / row.spacing[1] if row.spacing else 1.0
        for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
            axis.imshow(picture, interpolation="antialiased", aspect=aspect)
            axis.set_title(name, fontsize=10)
            axis.set_axis_off()
        if row.spacing:
            _draw_scale_bar(axes[0], row.image.shape[1], row.spacing[1] if row.unit == NANOMETRES else None)
    classes = [Patch(color=colour, label=class_names[label]) for label, colour in colours.items()]
    kinds = [Patch(color=colour, label=name) for name, colour in outcomes.values()]
    figure.legend(handles=classes, loc="outside lower left", ncols=columns, frameon=False)
    figure.legend(handles=kinds, loc="outside lower right", ncols=len(kinds), frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


def scale_bar(width: int, step: float | None) -> tuple[float, str]:
    """A round length, 1, 2 or 5 times a power of ten, that takes at most 30 % of a picture's width.

    Args:
        width: of the picture, in pixels.
        step: nm from pixel to pixel along it; None: not known, the length is in pixels.

    Returns:
        The bar's length in pixels, and its label, such as ``500 nm``, ``2 µm`` or ``200 px``.
    """
    longest = _BAR_SHARE * width * (step or 1.0)
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= longest * (1 + 1e-9))
    if step is None:
        length = max(length, 1.0)
        return length, f"{length:g} px"
    return length / step, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"


def _draw_scale_bar(axis: Any, width: int, step: float | None) -> None:
    """At the lower left: white with a black edge, to be seen on bright and on dark images."""
    length, label = scale_bar(width, step)
    where = {"transform": axis.get_xaxis_transform(), "clip_on": False, "solid_capstyle": "butt"}
    left = 0.04 * width - 0.5
    for colour, thickness, over in (("black", 6.0, 0.006 * width), ("white", 3.5, 0.0)):
        axis.plot([left - over, left + length + over], [0.05, 0.05], color=colour, linewidth=thickness, **where)
    edge = [withStroke(linewidth=2.5, foreground="black")]
    text = {"color": "white", "fontsize": 9, "ha": "center", "va": "bottom", "path_effects": edge}
    axis.text(left + length / 2, 0.075, label, transform=axis.get_xaxis_transform(), **text)
    axis.set_xlim(-0.5, width - 0.5)


def _check_rows(rows: Sequence[OverlayRow]) -> None:
    if not rows:
        raise RetinaError("an overlay sheet needs at least one image.")
    for row in rows:
        shapes = [array.shape for array in (row.image, row.truth, row.prediction)]
        if len(shapes[0]) != 2 or len(set(shapes)) != 1:
            raise RetinaError(f"{row.name}: image, truth and prediction are {shapes}; expected one (y, x) shape.")
        if row.spacing is not None and not all(0 < step < math.inf for step in row.spacing):
            raise RetinaError(f"{row.name}: spacing {row.spacing}; expected two sizes above 0, of a pixel along y, x.")


def _height(row: OverlayRow) -> float:
    """Of its pictures, as a share of their width."""
    step_y, step_x = row.spacing or (1.0, 1.0)
    return row.image.shape[0] * step_y / (row.image.shape[1] * step_x)


def grey_sheet(path: str | Path, columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> None:
    """Write a PNG with a row per image and a titled column per kind of picture.

    The columns of a row share one grey scale, that of the last picture whose title is not a difference (begins with
    ``|``); differences are shown from 0, white, to the width of that scale, black.

    Args:
        path: file to write; its folder exists.
        columns: title -> (rows, Y, X), any real type.
        names: one a row.
    """
    figure = Figure(figsize=(2.6 * len(columns), 2.75 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(columns), squeeze=False)
    reference = [stack for title, stack in columns.items() if not title.startswith("|")][-1]
    for row, (name, axes) in enumerate(zip(names, panels, strict=True)):
        low, high = np.percentile(reference[row], (0.5, 99.5))
        for axis, (title, stack) in zip(axes, columns.items(), strict=True):
            limits = ("gray_r", 0, high - low) if title.startswith("|") else ("gray", low, high)
            axis.imshow(stack[row], cmap=limits[0], vmin=limits[1], vmax=limits[2], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=10)
        axes[0].set_ylabel(name, fontsize=6)
    FigureCanvasAgg(figure).print_png(str(path))


def label_sheet(
    path: Path, slices: Sequence[LabelledSlice], class_names: Mapping[int, str], ignore: int | None = None
) -> None:
    """Write a PNG with two entries a row, each the image and the image under its labels.

    Args:
        path: File to write; its folder exists.
        slices: What to show, row by row.
        class_names: Foreground label value -> its name for the legend.
        ignore: Label value of pixels nobody annotated; None: no such value.

    Raises:
        RetinaError: if there is no slice, or image and label of one differ in shape.
    """
    if not slices:
        raise RetinaError("a label sheet needs at least one labelled slice.")
    for entry in slices:
        if entry.image.ndim != 2 or entry.image.shape != entry.label.shape:
            shapes = f"{entry.image.shape} and {entry.label.shape}"
            raise RetinaError(f"{entry.title}: image and label are {shapes}; expected one (y, x) shape.")
    colours = {label: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, label in enumerate(sorted(class_names))}
    handles = [Patch(color=colour, label=class_names[label]) for label, colour in colours.items()]
    if ignore is not None:
        colours |= {ignore: _IGNORE_COLOUR}
        handles.append(Patch(color=_IGNORE_COLOUR, label="ignored (not annotated)"))
    rows = [slices[i : i + 2] for i in range(0, len(slices), 2)]
    heights = [max(entry.image.shape[0] / entry.image.shape[1] for entry in row) for row in rows]
    inches = (4 * _PANEL_INCHES, sum(heights) * _PANEL_INCHES + 0.3 * len(rows) + 0.5)
    figure = Figure(figsize=inches, layout="constrained")
    panels = figure.subplots(len(rows), 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis in panels.flat:
        axis.set_axis_off()
    for row, axes in zip(rows, panels, strict=True):
        for i, entry in enumerate(row):
            grey = stretch(entry.image)
            axes[2 * i].imshow(colour_in(grey, entry.label, {}), interpolation="nearest")
            axes[2 * i + 1].imshow(colour_in(grey, entry.label, colours), interpolation="nearest")
            axes[2 * i].set_title(entry.title, fontsize=10, loc="left")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.set_dpi(_SHEET_DPI)
    FigureCanvasAgg(figure).print_png(str(path))


def side_by_side(
    path: Path,
    row: OverlayRow,
    predictions: Mapping[str, NDArray[Any]],
    class_names: Mapping[int, str],
    ignore: int | None = None,
) -> None:
    """Write a PNG of one image under several predictions, four panels a row: image, ground truth, each prediction.

    Args:
        path: file to write; its folder exists.
        row: image, ground truth and spacing; its own prediction is not shown.
        predictions: title -> label values, (Y, X).
        class_names: foreground label value -> its name for the legend.
        ignore: label value of pixels nobody annotated; None: no such value.

    Raises:
        RetinaError: if the arrays do not have one (Y, X) shape.
    """
    _check_rows([replace(row, name=title, prediction=labels) for title, labels in predictions.items()])
    colours = {label: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, label in enumerate(sorted(class_names))}
    handles = [Patch(color=colour, label=class_names[label]) for label, colour in colours.items()]
    marked = dict(colours)
    if ignore is not None:
        marked |= {ignore: _IGNORE_COLOUR}
        handles.append(Patch(color=_IGNORE_COLOUR, label="ignored (not annotated)"))
    panels: dict[str, tuple[NDArray[Any], Mapping[int, str]]] = {
        row.name: (row.truth, {}),
        "ground truth": (row.truth, marked),
        **{title: (labels, colours) for title, labels in predictions.items()},
    }
    lines = -(-len(panels) // 4)
    size = (4 * _PANEL_INCHES, lines * (_height(row) * _PANEL_INCHES + 0.3) + 0.5)
    figure = Figure(figsize=size, layout="constrained", dpi=_SHEET_DPI)
    axes = list(figure.subplots(lines, 4, squeeze=False).flat)
    grey = stretch(row.image)
    aspect = row.spacing[0] / row.spacing[1] if row.spacing else 1.0
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, (labels, tints)) in zip(axes, panels.items(), strict=False):
        axis.imshow(colour_in(grey, labels, tints), interpolation="antialiased", aspect=aspect)
        axis.set_title(title, fontsize=9)
    if row.spacing:
        _draw_scale_bar(axes[0], row.image.shape[1], row.spacing[1] if row.unit == NANOMETRES else None)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


def stretch(image: NDArray[Any]) -> NDArray[np.float32]:
    """Grey levels 0 to 1 for display: the middle 99 % of the values fill the range. A flat image becomes 0.5."""
    low, high = np.percentile(image, (0.5, 99.5))
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    return np.clip((image.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float32)


def colour_in(
    grey: NDArray[np.float32], labels: NDArray[Any], colours: Mapping[int, str], opacity: float = _OPACITY
) -> NDArray[np.float32]:
    """Grey image (Y, X), 0 to 1, with the given labels tinted: float32 (Y, X, 3), 0 to 1. Opacity 1 hides the grey."""
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label, colour in colours.items():
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        where = labels == label
        picture[where] = (1 - opacity) * picture[where] + opacity * rgb
    return picture
