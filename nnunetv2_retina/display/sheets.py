"""Sheets of images: overlays of labels and outcomes, grey levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.figures import draw_scale_bar, legend, literal, new_figure, save
from nnunetv2_retina.display.tints import IGNORE_COLOUR, class_colours, colour_in, stretch
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, FALSE_POSITIVE, FALSE_NEGATIVE, IGNORED = 1, 2, 3, 4
OUTCOMES = {
    RIGHT: ("true positive", "#56B4E9"),
    FALSE_POSITIVE: ("false positive", "#D55E00"),
    FALSE_NEGATIVE: ("false negative", "#F0E442"),
    IGNORED: ("not evaluated", "#000000"),
}
ClassNames = Mapping[int, str]
"""Foreground label value -> its name for the legend."""

_COMPARISON_OPACITY = 0.7
_DPI = 150
_PANEL_INCHES = 3.2
_COLUMNS = 4
_LONGEST = 50
"""Characters of a name beside a picture; of longer ones the end is shown."""


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
    spacing: Spacing | None = None
    """Size of a pixel, which gives the picture its proportions; None: square pixels, no scale bar. Where its unit is
    not known, the scale bar counts pixels along x."""

    @property
    def aspect(self) -> float:
        """Return the height of a pixel as a share of its width."""
        return self.spacing.y / self.spacing.x if self.spacing else 1.0

    @property
    def height(self) -> float:
        """Return the height of its pictures as a share of their width."""
        rows, columns = self.image.shape
        return float(rows * self.aspect / columns)


@dataclass(frozen=True)
class LabelledSlice:
    """One entry of a label sheet; the arrays are (Y, X) and of one shape."""

    title: str
    image: NDArray[Any]
    """Grey levels of any real type; the contrast is stretched for display."""
    label: NDArray[Any]
    """Label values, whole numbers; 0 is background."""


def compare(prediction: NDArray[Any], truth: NDArray[Any], ignore: int | None = None) -> NDArray[np.uint8]:
    """Return the outcome of every pixel, uint8: 0 true negative, else one of the keys of ``OUTCOMES``.

    A foreground pixel of the wrong class counts as a false positive.
    """
    outcome = np.zeros(truth.shape, np.uint8)
    outcome[(truth > 0) & (prediction == 0)] = FALSE_NEGATIVE
    outcome[(prediction > 0) & (prediction != truth)] = FALSE_POSITIVE
    outcome[(truth > 0) & (prediction == truth)] = RIGHT
    if ignore is not None:
        outcome[truth == ignore] = IGNORED
    return outcome


def overlay_sheet(path: Path, rows: Sequence[OverlayRow], class_names: ClassNames, ignore: int | None = None) -> None:
    """Write a PNG with a row per image: the image, the ground truth, the prediction, and where they differ.

    Args:
        path: file to write; its folder exists.
        rows: what to show, from top to bottom.
        class_names: for the legend.
        ignore: label value of the ground truth that is not evaluated; None: no such value.

    Raises:
        RetinaError: if there is no row, or the arrays of one do not have one (Y, X) shape.
    """
    _check_rows(rows)
    colours = class_colours(class_names)
    outcomes = {key: entry for key, entry in OUTCOMES.items() if key != IGNORED or ignore is not None}
    # Half the width is for the names of the classes; a letter takes some 0.07 inches, and what is beside it as six do.
    fitting = int(2 * _PANEL_INCHES / (0.07 * (6 + max(map(len, class_names.values()), default=0))))
    columns = max(1, min(len(class_names), fitting, 4))
    heights = [row.height for row in rows]
    figure, panels = _grid(heights, 0.3 * len(rows) + 0.3 + 0.2 * math.ceil(len(class_names) / columns))
    tints = {key: colour for key, (_, colour) in outcomes.items()}
    for row, axes in zip(rows, panels, strict=True):
        grey = stretch(row.image)
        difference = colour_in(grey, compare(row.prediction, row.truth, ignore), tints, _COMPARISON_OPACITY)
        pictures = {
            row.name: colour_in(grey, row.truth, {}),
            "ground truth": colour_in(grey, row.truth, colours),
            "prediction": colour_in(grey, row.prediction, colours),
            "comparison": difference,
        }
        _draw(axes, row, pictures, 10)
    legend(figure, [(class_names[label], colour) for label, colour in colours.items()], "lower left", columns)
    legend(figure, outcomes.values(), "lower right", len(outcomes))
    save(figure, path)


def side_by_side(
    path: Path,
    row: OverlayRow,
    predictions: Mapping[str, NDArray[Any]],
    class_names: ClassNames,
    ignore: int | None = None,
) -> None:
    """Write a PNG of one image under several predictions, four panels a row: image, ground truth, each prediction.

    Args:
        path: file to write; its folder exists.
        row: image, ground truth and spacing; its own prediction is not shown.
        predictions: title -> label values, (Y, X).
        class_names: for the legend.
        ignore: label value of pixels nobody annotated; None: no such value.

    Raises:
        RetinaError: if the arrays do not have one (Y, X) shape.
    """
    _check_rows([replace(row, name=title, prediction=labels) for title, labels in predictions.items()])
    colours, grey = class_colours(class_names), stretch(row.image)
    pictures = {
        row.name: colour_in(grey, row.truth, {}),
        "ground truth": colour_in(grey, row.truth, _with_ignored(colours, ignore)),
        **{title: colour_in(grey, labels, colours) for title, labels in predictions.items()},
    }
    lines = math.ceil(len(pictures) / _COLUMNS)
    figure, panels = _grid([row.height] * lines, 0.3 * lines + 0.5)
    _draw(list(panels.flat), row, pictures, 9)
    _class_legend(figure, class_names, colours, ignore)
    save(figure, path)


def label_sheet(
    path: Path, slices: Sequence[LabelledSlice], class_names: ClassNames, ignore: int | None = None
) -> None:
    """Write a PNG with two entries a row, each the image and the image under its labels.

    Args:
        path: file to write; its folder exists.
        slices: what to show, row by row.
        class_names: for the legend.
        ignore: label value of pixels nobody annotated; None: no such value.

    Raises:
        RetinaError: if there is no slice, or image and label of one differ in shape.
    """
    if not slices:
        raise RetinaError("a label sheet needs at least one labelled slice.")
    for entry in slices:
        if entry.image.ndim != 2 or entry.image.shape != entry.label.shape:
            shapes = f"{entry.image.shape} and {entry.label.shape}"
            raise RetinaError(f"{entry.title}: image and label are {shapes}; expected one (y, x) shape.")
    colours = class_colours(class_names)
    rows = [slices[i : i + 2] for i in range(0, len(slices), 2)]
    heights = [max(entry.image.shape[0] / entry.image.shape[1] for entry in row) for row in rows]
    figure, panels = _grid(heights, 0.3 * len(rows) + 0.5)
    for axes, entry in zip(panels.reshape(-1, 2), slices, strict=False):
        grey = stretch(entry.image)
        axes[0].imshow(colour_in(grey, entry.label, {}), interpolation="nearest")
        axes[1].imshow(colour_in(grey, entry.label, _with_ignored(colours, ignore)), interpolation="nearest")
        axes[0].set_title(literal(entry.title), fontsize=10, loc="left")
    _class_legend(figure, class_names, colours, ignore)
    save(figure, path)


def grey_sheet(path: str | Path, columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> None:
    """Write a PNG with a row per image and a titled column per kind of picture.

    The columns of a row share one grey scale, that of the last picture of grey levels. Titles tell what are none:
    differences (``|...``) are shown from 0, white, to the width of that scale, black; errors (``error ...``) from 0,
    black, to their largest, white.

    Args:
        path: file to write; its folder exists.
        columns: title -> (rows, Y, X), any real type, at least one; or (rows, Y, X, 3), colours from 0 to 1.
        names: one a row.
    """
    figure = new_figure(2.6 * len(columns), 2.75 * len(names))
    panels = figure.subplots(len(names), len(columns), squeeze=False)
    levels = [stack for title, stack in columns.items() if not title.startswith(("|", "error")) and stack.ndim == 3]
    for row, (name, axes) in enumerate(zip(names, panels, strict=True)):
        low, high = np.percentile(levels[-1][row], (0.5, 99.5))
        for axis, (title, stack) in zip(axes, columns.items(), strict=True):
            scale, least, most = "gray", low, high
            if title.startswith("|"):
                scale, least, most = "gray_r", 0, high - low
            elif title.startswith("error"):
                least, most = 0, stack[row].max()
            axis.imshow(stack[row], cmap=scale, vmin=least, vmax=most, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(literal(title), fontsize=10)
        axes[0].set_ylabel(literal(name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"), fontsize=6)
    save(figure, path)


def _check_rows(rows: Sequence[OverlayRow]) -> None:
    if not rows:
        raise RetinaError("an overlay sheet needs at least one image.")
    for row in rows:
        shapes = [array.shape for array in (row.image, row.truth, row.prediction)]
        if len(shapes[0]) != 2 or len(set(shapes)) != 1:
            raise RetinaError(f"{row.name}: image, truth and prediction are {shapes}; expected one (y, x) shape.")


def _grid(heights: Sequence[float], more: float) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with rows of four panels without axes.

    Args:
        heights: of the rows, as shares of a panel's width.
        more: inches for titles and legend.
    """
    figure = new_figure(_COLUMNS * _PANEL_INCHES, sum(heights) * _PANEL_INCHES + more, _DPI)
    panels: NDArray[Any] = figure.subplots(
        len(heights), _COLUMNS, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis in panels.flat:
        axis.set_axis_off()
    return figure, panels


def _draw(axes: Sequence[Any], row: OverlayRow, pictures: Mapping[str, NDArray[Any]], size: float) -> None:
    """Draw titled pictures of one image, and a scale bar into the first."""
    for axis, (title, picture) in zip(axes, pictures.items(), strict=False):
        axis.imshow(picture, interpolation="antialiased", aspect=row.aspect)
        axis.set_title(literal(title), fontsize=size)
    if row.spacing:
        draw_scale_bar(axes[0], row.image.shape[1], row.spacing.x if row.spacing.unit else None)


def _with_ignored(colours: Mapping[int, str], ignore: int | None) -> dict[int, str]:
    return dict(colours) if ignore is None else {**colours, ignore: IGNORE_COLOUR}


def _class_legend(figure: Figure, class_names: ClassNames, colours: Mapping[int, str], ignore: int | None) -> None:
    entries = [(class_names[label], colour) for label, colour in colours.items()]
    if ignore is not None:
        entries.append(("ignored (not annotated)", IGNORE_COLOUR))
    legend(figure, entries, "lower center", min(len(entries), 6))
