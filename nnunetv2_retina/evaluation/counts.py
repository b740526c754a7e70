"""Scores of a label image against a ground truth, from voxel counts.

Arrays may have any number of axes; the prediction and the ground truth have the same shape and hold whole numbers.
Counts add up: score a whole test set by adding the counts of its images. A score whose denominator is zero is undefined
and is NaN, never 0 or 1, so that it cannot slip into a mean unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunetv2_retina.errors import RetinaError

SMOOTHING = 1e-5
"""Added to intersection and union of a 2D image, as CEM500K's and RETINA's released evaluation does."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Voxels of one class: found (tp), wrongly claimed (fp) and missed (fn). Add two with ``+``.

    Scores follow RETINA's evaluation: ``iou = tp / (tp + fp + fn)``, ``f = 2 tp / (2 tp + fp + fn)``,
    ``precision = tp / (tp + fp)``, ``recall = tp / (tp + fn)``.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def iou(self) -> float:
        """Return the intersection over union, 0 to 1; NaN if the class is in neither image."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def smoothed_iou(self) -> float:
        """Return ``(I + 1e-5) / (U + 1e-5)``, 0 to 1: the IoU of a 2D image in the released evaluation of CEM500K
        and RETINA, which takes an image without the class, in which none was predicted, as 1."""
        return (self.tp + SMOOTHING) / (self.tp + self.fp + self.fn + SMOOTHING)

    @property
    def undefined(self) -> str:
        """Say why a score is NaN, in words; empty if none is."""
        if not self.tp + self.fp:
            return "in neither the prediction nor the ground truth" if not self.tp + self.fn else "nothing predicted"
        return "" if self.tp + self.fn else "none in the ground truth"

    @property
    def f(self) -> float:
        """Return the F-score (the Dice coefficient), 0 to 1; NaN if the class is in neither image."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Return the share of the prediction that is right, 0 to 1; NaN if nothing was predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Return the share of the ground truth that was found, 0 to 1; NaN if there is none."""
        return _ratio(self.tp, self.tp + self.fn)


def count_masks(predicted: Mask, actual: Mask) -> Counts:
    """Count the voxels of one class, given as two masks (bool, any axes, one shape)."""
    tp = int(np.count_nonzero(predicted & actual))
    return Counts(tp, int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(actual)) - tp)


def matched_objects(predicted: Mask, actual: Mask) -> Mask:
    """Return the predicted objects that share at least one voxel with the ground truth.

    An object is a connected component, neighbours touching at a corner included (8-connectivity in 2D): CEM500K's and
    RETINA's rule for images of which only some objects are annotated (Perez). Objects that touch none vanish; the
    ground truth stays whole, so what was missed counts as missed.

    Args:
        predicted: bool, any axes.
        actual: bool, the same shape.

    Returns:
        bool, the same shape.
    """
    objects, number = ndimage.label(predicted, np.ones((3,) * predicted.ndim, bool))
    matched = np.zeros(number + 1, bool)
    matched[objects[actual]] = True
    matched[0] = False
    mask: Mask = matched[objects]
    return mask


def mean_score(values: Sequence[float]) -> float:
    """Return the mean of the defined values; NaN if there is none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def check_labels(prediction: NDArray[Any], truth: NDArray[Any]) -> None:
    """Refuse arrays of different shapes, or of other types than whole numbers.

    Raises:
        RetinaError: naming the shapes or the type.
    """
    if prediction.shape != truth.shape:
        raise RetinaError(
            f"prediction of shape {prediction.shape} against a ground truth of shape {truth.shape}; "
            "they must be equal. Are both of the same case, with the same axis order?"
        )
    for name, array in (("prediction", prediction), ("ground truth", truth)):
        if array.dtype.kind not in "biu":
            raise RetinaError(f"the {name} is of type {array.dtype}; expected whole numbers (label values).")
