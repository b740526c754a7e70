"""The best global grey-level threshold: the baseline that a trained network is shown beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunetv2_retina.errors import RetinaError

LevelCounts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """One grey level for one class."""

    train_iou: float
    """Mean IoU of the training images, which it was chosen on."""
    level: float
    """Grey level; voxels beyond it are taken for the class."""
    dark: bool
    """True: voxels at or below the level; False: at or above."""
    sigma: float
    """Width of the Gaussian smoothing before the threshold, in pixels; 0: none."""

    def apply(self, image: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the class is, of a grey image (Y, X) or (Z, Y, X)."""
        smooth = _smooth(image, self.sigma)
        mask: NDArray[np.bool_] = smooth <= self.level if self.dark else smooth >= self.level
        return mask

    def describe(self) -> str:
        """Put it into words: ``grey levels at or below 90 after smoothing by 2 px``."""
        smooth = f" after smoothing by {self.sigma:g} px" if self.sigma else ""
        return f"grey levels at or {'below' if self.dark else 'above'} {self.level:.0f}{smooth}"


def best_threshold(
    images: Sequence[NDArray[Any]],
    masks: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[np.bool_]] | None = None,
    sigmas: Sequence[float] = (0, 1, 2, 4, 8),
    levels: int = 512,
) -> Threshold:
    """Choose the threshold with the best mean IoU: the least that a trained network has to beat.

    Every level, both polarities and every smoothing are tried.

    Args:
        images: Training images, grey, (Y, X) or (Z, Y, X), any real type; smoothed within (Y, X).
        masks: True, or not 0, where the class is; same shapes.
        valid: True where an image is annotated, the rest does not count; same shapes. None: everywhere.
        sigmas: Widths of the Gaussian smoothing to try, in pixels; 0 is none.
        levels: Number of grey levels to try, evenly from the smallest to the largest value of the images.

    Raises:
        RetinaError: if there are no images or no sigmas, or an image and its masks differ in shape.
    """
    if not images or not sigmas:
        raise RetinaError("a threshold is chosen on training images; give at least one, and at least one sigma.")
    valid = valid if valid is not None else [np.ones(image.shape, bool) for image in images]
    for image, *both in zip(images, masks, valid, strict=True):
        for mask in both:
            if image.shape != mask.shape:
                raise RetinaError(f"image of shape {image.shape} with a mask of shape {mask.shape}; make them equal.")
    edges = np.linspace(min(float(i.min()) for i in images), max(float(i.max()) for i in images), levels)
    candidates = []
    for sigma in sigmas:
        counts = [
            _level_counts(_smooth(image, sigma), mask, where, edges)
            for image, mask, where in zip(images, masks, valid, strict=True)
        ]
        for dark in (True, False):
            ious = _mean([_ious(*of_image, dark) for of_image in counts])
            level = edges[np.argmax(ious)] + _step(edges) / (2 if dark else -2)  # half-way to the next that is out
            candidates.append(Threshold(float(ious.max()), float(level), dark, sigma))
    return max(candidates, key=lambda candidate: candidate.train_iou)


def _smooth(image: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    smooth = image.astype(np.float32)
    return gaussian_filter(smooth, (*[0.0] * (image.ndim - 2), sigma, sigma)) if sigma > 0 else smooth


def _step(edges: Floats) -> float:
    return float(edges[-1] - edges[0]) / (len(edges) - 1) or 1.0


def _level_counts(
    smooth: NDArray[np.float32], mask: NDArray[Any], valid: NDArray[np.bool_], edges: Floats
) -> tuple[LevelCounts, LevelCounts]:
    """Count the annotated voxels nearest to each level: those of the class, and all."""
    level = np.clip(np.rint((smooth - edges[0]) / _step(edges)), 0, len(edges) - 1).astype(np.intp)
    inside = np.bincount(level[mask.astype(bool) & valid], minlength=len(edges))
    return inside, np.bincount(level[valid], minlength=len(edges))


def _ious(inside: LevelCounts, everything: LevelCounts, dark: bool) -> Floats:
    """Return the IoU of the threshold at each level; NaN where it claims nothing and the class is not there."""
    if not dark:
        return _ious(inside[::-1], everything[::-1], True)[::-1]
    tp, claimed = np.cumsum(inside), np.cumsum(everything)
    union = claimed + inside.sum() - tp
    ious: Floats = np.divide(tp, union, out=np.full(len(tp), np.nan), where=union > 0)
    return ious


def _mean(ious: Sequence[Floats]) -> Floats:
    """Return the mean of the defined values at each level; 0 where there is none."""
    table = np.stack(ious)
    defined = np.count_nonzero(~np.isnan(table), axis=0)
    mean: Floats = np.divide(np.nansum(table, axis=0), defined, out=np.zeros(table.shape[1]), where=defined > 0)
    return mean
