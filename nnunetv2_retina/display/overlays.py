"""One image under its labels, as a picture to look at: at its own resolution, or some slices of a volume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.figures import draw_scale_bar, legend, new_figure, save
from nnunetv2_retina.display.tints import class_colours, colour_in, stretch
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

_DPI = 100
_SLICES, _COLUMNS = 6, 3
_LEAST, _MOST, _PANEL = 600, 2400, 480
"""Pixels along the picture of one image, and along a panel of several."""


def write_overlay(
    path: Path,
    image: NDArray[Any],
    labels: NDArray[Any],
    names: Mapping[int, str],
    spacing: Spacing | None = None,
) -> None:
    """Write a PNG of an image under its labels, or of up to six slices of a volume, evenly from the first to the last.

    Args:
        path: file to write; its folder exists.
        image: (Z, Y, X) grey levels of any real type; the contrast is stretched for display.
        labels: (Z, Y, X) label values; 0 is background.
        names: label value -> class name, for colours and legend.
        spacing: of a voxel; None: square pixels, and a scale bar in pixels.

    Raises:
        RetinaError: if image and labels differ in shape.
    """
    if image.ndim != 3 or image.shape != labels.shape:
        raise RetinaError(f"image and labels are {image.shape} and {labels.shape}; expected one (z, y, x) shape")
    depth, rows, columns = image.shape
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _SLICES)).round().astype(int))
    across = min(len(chosen), _COLUMNS)
    down = math.ceil(len(chosen) / across)
    aspect = spacing.y / spacing.x if spacing else 1.0
    width = (_PANEL if len(chosen) > 1 else min(max(columns, _LEAST), _MOST)) / _DPI
    height = width * rows * aspect / columns
    colours, shown = class_colours(names), stretch(image[chosen])
    figure = new_figure(across * width, down * (height + (0.3 if len(chosen) > 1 else 0)) + 0.4, _DPI)
    panels = figure.subplots(down, across, squeeze=False)
    for axis in panels.flat:
        axis.set_axis_off()
    for axis, number, grey in zip(panels.flat, chosen, shown, strict=False):
        axis.imshow(colour_in(grey, labels[number], colours), interpolation="antialiased", aspect=aspect)
        if len(chosen) > 1:
            axis.set_title(f"slice {number + 1} of {depth}", fontsize=9)
    known = spacing is not None and spacing.unit == NANOMETRES
    draw_scale_bar(panels[0, 0], columns, spacing.x if spacing is not None and known else None)
    legend(figure, [(names[label], colour) for label, colour in colours.items()], "lower center", min(len(names), 6))
    save(figure, path)
