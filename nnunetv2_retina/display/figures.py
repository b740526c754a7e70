"""Figures: made without pyplot, so that nothing depends on a display or on global state; matplotlib is imported late.

Colours are from the palette of Okabe and Ito, which stays apart for every kind of colour vision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAR_SHARE = 0.3
"""A scale bar takes at most this much of the picture's width."""


def new_figure(width: float, height: float, dpi: float | None = None) -> Figure:
    """Return an empty figure of that many inches; ``dpi``: pixels an inch, None: matplotlib's default."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=dpi)


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, whatever the name says; the folder exists."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(str(path))


def literal(text: str) -> str:
    """Return a user's text as matplotlib is to be given it: dollars begin no formula."""
    return text.replace("$", r"\$")


def legend(figure: Figure, entries: Iterable[tuple[str, str]], place: str, columns: int) -> None:
    """Put names and their colours outside the panels, at a place such as ``lower left``."""
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=literal(name)) for name, colour in entries]
    figure.legend(handles=patches, loc=f"outside {place}", ncols=columns, frameon=False)


def scale_bar(width: int, step: float | None) -> tuple[float, str]:
    """Choose a round length, 1, 2 or 5 times a power of ten, that takes at most 30 % of a picture's width.

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


def draw_scale_bar(axis: Any, width: int, step: float | None) -> None:
    """Draw it at the lower left, white with a black edge, to be seen on bright and on dark images."""
    from matplotlib.patheffects import withStroke

    length, label = scale_bar(width, step)
    where = {"transform": axis.get_xaxis_transform(), "clip_on": False, "solid_capstyle": "butt"}
    left = 0.04 * width - 0.5
    for colour, thickness, over in (("black", 6.0, 0.006 * width), ("white", 3.5, 0.0)):
        axis.plot([left - over, left + length + over], [0.05, 0.05], color=colour, linewidth=thickness, **where)
    edge = [withStroke(linewidth=2.5, foreground="black")]
    text = {"color": "white", "fontsize": 9, "ha": "center", "va": "bottom", "path_effects": edge}
    axis.text(left + length / 2, 0.075, label, transform=axis.get_xaxis_transform(), **text)
    axis.set_xlim(-0.5, width - 0.5)
