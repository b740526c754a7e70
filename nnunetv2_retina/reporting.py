"""Pictures and pages for people: overlay sheets and a self-contained HTML report. The only module that uses matplotlib.

Colours are from the palette of Okabe and Ito, which stays apart for every kind of colour vision. Figures are drawn
without pyplot, so nothing depends on a display or on global state.
"""

from __future__ import annotations

import base64
import html
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

_OPACITY = 0.5
_PANEL_INCHES = 3.2
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "img{max-width:100%}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.3em 1em;text-align:left}"
    "pre{background:#f4f4f4;padding:1em;overflow-x:auto}"
)


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


def html_page(title: str, blocks: Sequence[str]) -> str:
    """A page that stands alone. Blocks are HTML: see ``paragraph``, ``table``, ``preformatted`` and ``picture``."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(blocks)
    return f"<!doctype html>\n<html><head>{head}</head><body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"


def heading(text: str) -> str:
    """A section heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text in which every line and space is kept, such as commands."""
    return f"<pre>{html.escape(text)}</pre>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def picture(path: Path, description: str) -> str:
    """A PNG file, embedded, with a description for those who cannot see it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/png;base64,{data}">'
