"""The picture of a package: a generated image beside what the model makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunetv2_retina.display.tints import class_colours, colour_in, stretch

_LEAST = 256
"""Height of the picture in pixels, at least."""


def write_cover(path: Path, image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write a PNG, twice as wide as high for a square image.

    Args:
        path: the file.
        image: (y, x).
        labels: (y, x); 0 is background.
    """
    grey = stretch(image)
    plain = np.repeat(grey[..., None], 3, axis=2)
    coloured = colour_in(grey, labels, class_colours(range(1, int(labels.max()) + 1)))
    both = (255 * np.clip(np.concatenate([plain, coloured], axis=1), 0, 1)).astype(np.uint8)
    factor = -(-_LEAST // image.shape[0])
    Image.fromarray(both).resize((both.shape[1] * factor, both.shape[0] * factor), Image.Resampling.NEAREST).save(path)
