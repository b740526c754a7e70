"""Sheets of images: overlays of labels and outcomes, grey levels. Uses matplotlib, as ``plots`` does and nothing else.

Colours are from the palette of Okabe and Ito, which stays apart for every kind of colour vision. Figures are drawn
without pyplot, so nothing depends on a display or on global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
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

_IGNORE_COLOUR = "#FF00FF"
_OPACITY = 0.5
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
        RetinaError: if there is no row, or the arrays of one do not have one (Y, X) shape.
    """
    if not rows:
        raise RetinaError("an overlay sheet needs at least one image.")
    for row in rows:
        shapes = [array.shape for array in (row.image, row.truth, row.prediction)]
        if len(shapes[0]) != 2 or len(set(shapes)) != 1:
            raise RetinaError(f"{row.name}: image, truth and prediction are {shapes}; expected one (y, x) shape.")
    colours = {label: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, label in enumerate(sorted(class_names))}
    outcomes = {key: (name, colour) for key, (name, colour) in OUTCOMES.items() if key != IGNORED or ignore is not None}
    heights = [row.image.shape[0] / row.image.shape[1] for row in rows]
    inches = (4 * _PANEL_INCHES, sum(heights) * _PANEL_INCHES + 0.15 * len(rows) + 0.5)
    figure = Figure(figsize=inches, layout="constrained")
    panels = figure.subplots(len(rows), 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, axes in zip(rows, panels, strict=True):
        grey = stretch(row.image)
        pictures = {
            row.name: colour_in(grey, row.truth, {}),
            "ground truth": colour_in(grey, row.truth, colours),
            "prediction": colour_in(grey, row.prediction, colours),
            "comparison": colour_in(
                grey, compare(row.prediction, row.truth, ignore), {k: c for k, (_, c) in outcomes.items()}
            ),
        }
        for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(name, fontsize=10)
            axis.set_axis_off()
    handles = [Patch(color=colour, label=class_names[label]) for label, colour in colours.items()]
    handles += [Patch(color=colour, label=name) for name, colour in outcomes.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


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


def stretch(image: NDArray[Any]) -> NDArray[np.float32]:
    """Grey levels 0 to 1 for display: the middle 99 % of the values fill the range. A flat image becomes 0.5."""
    low, high = np.percentile(image, (0.5, 99.5))
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    return np.clip((image.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float32)


def colour_in(grey: NDArray[np.float32], labels: NDArray[Any], colours: Mapping[int, str]) -> NDArray[np.float32]:
    """Grey image (Y, X), 0 to 1, with the given labels tinted: float32 (Y, X, 3), 0 to 1."""
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label, colour in colours.items():
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        where = labels == label
        picture[where] = (1 - _OPACITY) * picture[where] + _OPACITY * rgb
    return picture
