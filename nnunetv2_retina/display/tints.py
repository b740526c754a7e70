"""Grey images with labels tinted in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASS_COLOURS = ("#009E73", "#E69F00", "#CC79A7", "#0072B2", "#F0E442", "#D55E00", "#56B4E9")
"""One for each foreground class, repeated if there are more."""
IGNORE_COLOUR = "#FF00FF"
OPACITY = 0.5


def class_colours(labels: Iterable[int]) -> dict[int, str]:
    """Return the colour of each foreground label value."""
    return {label: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, label in enumerate(sorted(labels))}


def stretch(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return grey levels 0 to 1 for display: the middle 99 % of the values fill the range. A flat image becomes 0.5."""
    low, high = np.percentile(image, (0.5, 99.5))
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    grey: NDArray[np.float32] = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float32)
    return grey


def colour_in(
    grey: NDArray[np.float32], labels: NDArray[Any], colours: Mapping[int, str], opacity: float = OPACITY
) -> NDArray[np.float32]:
    """Return a grey image (Y, X), 0 to 1, as float32 (Y, X, 3) with labels tinted; opacity 1 hides the grey."""
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label, colour in colours.items():
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        where = labels == label
        picture[where] = (1 - opacity) * picture[where] + opacity * rgb
    return picture
