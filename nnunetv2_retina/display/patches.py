"""Small pictures of labelled patches, made without matplotlib, in milliseconds: for a training that is watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.tints import IGNORE_COLOUR, class_colours, colour_in, stretch

PICTURE = "validation_patches.png"
"""In a fold's folder: the same validation patches, of the latest epoch that was drawn."""
GAP = 4
"""White pixels between patches."""


def patch_rows(
    images: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[Any]],
    predictions: Sequence[NDArray[Any]],
    labels: Sequence[int],
    ignore: int | None = None,
) -> NDArray[np.uint8]:
    """Draw a row for each patch: the image, its labels, the prediction.

    Args:
        images: grey levels of any real type, (Y, X), all of one shape; the contrast of each is stretched.
        truths: label values of the same shape.
        predictions: label values of the same shape.
        labels: foreground values, which get the colours of our reports.
        ignore: value of unannotated pixels in ``truths``; None: no such value.

    Returns:
        (N Y + (N - 1) GAP, 3 X + 2 GAP, 3) uint8.
    """
    colours = class_colours(labels)
    annotated = colours if ignore is None else {**colours, ignore: IGNORE_COLOUR}
    rows = []
    for image, truth, prediction in zip(images, truths, predictions, strict=True):
        grey = stretch(image)
        panels = [colour_in(grey, truth, {}), colour_in(grey, truth, annotated), colour_in(grey, prediction, colours)]
        rows.append(_joined(panels, axis=1))
    return (255 * _joined(rows, axis=0) + 0.5).astype(np.uint8)


def _joined(panels: Sequence[NDArray[np.float32]], axis: int) -> NDArray[np.float32]:
    gap = np.ones([GAP if i == axis else size for i, size in enumerate(panels[0].shape)], np.float32)
    spaced = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(spaced, axis)
