"""The score of the best global grey-level threshold: the baseline that a trained network is shown beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunetv2_retina.errors import RetinaError

LevelCounts = NDArray[np.int64]


class Threshold(NamedTuple):
    """The best single grey-level threshold for one class, and what it reaches."""

    iou: float
    """IoU over all test images."""
    train_iou: float
    """IoU over all training images, which it was chosen on."""
    level: float
    """Grey level; voxels at this level or beyond are taken for the class."""
    dark: bool
    """True: voxels at or below the level; False: at or above."""
    sigma: float
    """Width of the Gaussian smoothing before the threshold, in pixels; 0: none."""


def best_threshold_iou(
    train_images: Sequence[NDArray[Any]],
    train_masks: Sequence[NDArray[Any]],
    test_images: Sequence[NDArray[Any]],
    test_masks: Sequence[NDArray[Any]],
    sigmas: Sequence[float] = (0, 1, 2, 4, 8),
    levels: int = 512,
) -> Threshold:
    """What one global grey-level threshold reaches: the least that a trained network has to beat.

    Every level, both polarities and every smoothing are tried on the training images; the best is scored on the test
    images.

    Args:
        train_images: Grey images (Y, X) or (Z, Y, X), any real type; smoothed within (Y, X).
        train_masks: True, or not 0, where the class is; same shapes.
        test_images: Like ``train_images``.
        test_masks: Like ``train_masks``.
        sigmas: Widths of the Gaussian smoothing to try, in pixels; 0 is none.
        levels: Number of grey levels to try, evenly from the smallest to the largest value of the training images.

    Raises:
        RetinaError: if there are no training images or no sigmas, or an image and its mask differ in shape.
    """
    if not train_images or not sigmas:
        raise RetinaError("a threshold is chosen on training images; give at least one, and at least one sigma.")
    for image, mask in [*zip(train_images, train_masks, strict=True), *zip(test_images, test_masks, strict=True)]:
        if image.shape != mask.shape:
            raise RetinaError(f"image of shape {image.shape} with a mask of shape {mask.shape}; they must be equal.")
    edges = np.linspace(min(float(i.min()) for i in train_images), max(float(i.max()) for i in train_images), levels)
    candidates = []
    for sigma in sigmas:
        counts = _level_counts(train_images, train_masks, sigma, edges)
        for dark in (True, False):
            ious = _ious(*counts, dark)
            index = int(np.argmax(ious))
            candidates.append((float(ious[index]), sigma, dark, index))
    train_iou, sigma, dark, index = max(candidates, key=lambda candidate: candidate[0])
    test_iou = float(_ious(*_level_counts(test_images, test_masks, sigma, edges), dark)[index])
    return Threshold(test_iou, train_iou, float(edges[index]), dark, sigma)


def _level_counts(
    images: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]], sigma: float, edges: NDArray[np.float64]
) -> tuple[LevelCounts, LevelCounts]:
    """Voxels nearest to each level: those of the class, and all."""
    inside, everything = np.zeros(len(edges), np.int64), np.zeros(len(edges), np.int64)
    step = (edges[-1] - edges[0]) / (len(edges) - 1) or 1.0
    for image, mask in zip(images, masks, strict=True):
        smooth = image.astype(np.float32)
        if sigma > 0:
            smooth = gaussian_filter(smooth, (*[0.0] * (image.ndim - 2), sigma, sigma))
        level = np.clip(np.rint((smooth - edges[0]) / step), 0, len(edges) - 1).astype(np.intp)
        everything += np.bincount(level.ravel(), minlength=len(edges))
        inside += np.bincount(level[mask.astype(bool)], minlength=len(edges))
    return inside, everything


def _ious(inside: LevelCounts, everything: LevelCounts, dark: bool) -> NDArray[np.float64]:
    """IoU of the threshold at each level; 0 where nothing is claimed and nothing is there."""
    if not dark:
        return _ious(inside[::-1], everything[::-1], True)[::-1]
    tp, claimed = np.cumsum(inside), np.cumsum(everything)
    union = claimed + inside.sum() - tp
    return np.divide(tp, union, out=np.zeros(len(tp)), where=union > 0)
