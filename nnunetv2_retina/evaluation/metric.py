"""The metrics: what each is called, its unit, which way is better, and how a value is shown.

Imports nothing heavy: the report of a study reads its scores without torch and nnU-Net.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

UNDEFINED = "undefined"
"""How a score is shown that has no value (NaN): 0/0, or a distance to an empty set."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    key: str
    """In JSON and CSV files."""
    title: str
    short: str
    """Header of a column."""
    unit: str
    """Empty for a share, from 0 to 1."""
    decimals: int
    lower_is_better: bool
    meaning: str

    @property
    def label(self) -> str:
        """Return the title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def show(self, value: float | None, signed: bool = False) -> str:
        """Return a value as text, rounded; ``UNDEFINED`` for NaN, and for None, which JSON has in its place."""
        if value is None or math.isnan(value):
            return UNDEFINED
        return f"{value:{'+' if signed else ''}.{self.decimals}f}"


IOU = Metric("iou", "IoU", "IoU", "", 3, False, "intersection over union")
F = Metric("f", "F-score", "F", "", 3, False, "Dice coefficient")
SHARES = (
    IOU,
    F,
    Metric("precision", "precision", "precision", "", 3, False, "share of the prediction that is right"),
    Metric("recall", "recall", "recall", "", 3, False, "share of the ground truth that was found"),
)
FALSE_DISTANCES = (
    Metric(
        "mfd_hausdorff",
        "Mean False Distance (Hausdorff)",
        "MFD-H",
        "voxels",
        2,
        True,
        "Mean False Distance in voxels, first reading: mean of the two directed Hausdorff distances",
    ),
    Metric(
        "mfd_mean",
        "Mean False Distance (mean)",
        "MFD-m",
        "voxels",
        2,
        True,
        "Mean False Distance in voxels, second reading: mean of the two mean distances",
    ),
)
CREMI = (
    Metric(
        "cremi_fp",
        "CREMI false positives",
        "FP",
        "voxels",
        0,
        True,
        "predicted voxels further than the tolerance from the ground truth",
    ),
    Metric(
        "cremi_fn",
        "CREMI false negatives",
        "FN",
        "voxels",
        0,
        True,
        "voxels of the ground truth further than the tolerance from the prediction",
    ),
    Metric(
        "cremi_adgt", "CREMI ADGT", "ADGT", "nm", 2, True, "mean distance of the prediction to the ground truth, nm"
    ),
    Metric("cremi_adf", "CREMI ADF", "ADF", "nm", 2, True, "mean distance of the ground truth to the prediction, nm"),
    Metric("cremi_score", "CREMI score", "CREMI", "nm", 2, True, "(ADGT + ADF) / 2, nm"),
    Metric("cremi_f", "F-score within the tolerance", "F-tol.", "", 3, False, "voxel F-score within the tolerance"),
)
"""Those of data sets with a distance tolerance."""
_BY_KEY = {metric.key: metric for metric in (*SHARES, *FALSE_DISTANCES, *CREMI)}


def metric_of(key: str, meaning: str = "") -> Metric:
    """Return the metric of a key; one that this version does not know is shown under its key, with ``meaning``."""
    return _BY_KEY.get(key) or Metric(key, key, key, "", 3, False, meaning or key)
