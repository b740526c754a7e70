"""Distances between a prediction and a ground truth: RETINA's Mean False Distance and the CREMI challenge's scores.

``d_X(v)`` is the Euclidean distance from voxel v to the nearest voxel of X, 0 within X. Both masks are cut to the box
that holds them: no voxel outside it belongs to either, so every distance stays exact. The map of distances is that of
the library ``edt``, exact, in float32: 4 bytes a voxel, where SciPy's takes over 40.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import Mask
from nnunetv2_retina.images.spacing import Spacing


@dataclass(frozen=True)
class Directed:
    """The distances ``d_B(v)`` of all voxels v of a set A, summed up."""

    voxels: int
    """Of A."""
    total: float
    """Sum of the distances; NaN if A or B is empty."""
    maximum: float
    """The directed Hausdorff distance h(A, B); NaN if A or B is empty."""
    beyond: int
    """Voxels further from B than the tolerance; all of A if B is empty."""

    @property
    def mean(self) -> float:
        """Return the mean distance, the voxels shared with B included as 0; NaN if A or B is empty."""
        return self.total / self.voxels if self.voxels else float("nan")


@dataclass(frozen=True)
class FalseDistance:
    """Mean False Distance (RETINA, S8 Table), in voxels: both readings of its definition; NaN if a set is empty."""

    hausdorff: float
    """Mean of the two directed Hausdorff distances: the literal reading."""
    mean: float
    """Mean of the two mean distances: what the name says."""


@dataclass(frozen=True)
class CremiScores:
    """The CREMI challenge's scores of synaptic clefts (cremi/evaluation/Clefts.py), in nm and voxels.

    What needs both sets is NaN if one is empty. The counts are not: without a prediction, FP is 0, FN is every voxel.
    """

    fp: int
    """Predicted voxels further than the tolerance from the ground truth."""
    fn: int
    """Voxels of the ground truth further than the tolerance from the prediction."""
    adgt: float
    """nm: mean distance of the prediction to the ground truth."""
    adf: float
    """nm: mean distance of the ground truth to the prediction."""
    f: float
    """F-score of voxels within the tolerance: precision 1 - FP/|P|, recall 1 - FN/|G|; 0 if both are 0. The challenge
    describes such a score, but its code has none."""

    @property
    def score(self) -> float:
        """Return the CREMI score ``(ADGT + ADF) / 2`` in nm; lower is better."""
        return (self.adgt + self.adf) / 2


def directed(source: Mask, target: Mask, spacing: Spacing, tolerance: float = 0.0) -> Directed:
    """Sum up the distances from every voxel of ``source`` to the nearest voxel of ``target``.

    Args:
        source: bool, two or three axes.
        target: bool, the same shape.
        spacing: of both; distances are in its unit.
        tolerance: voxels further than this (not as far) count as beyond.

    Raises:
        RetinaError: if the shapes differ or the spacing does not fit them.
    """
    _check(source, target, spacing)
    voxels = int(np.count_nonzero(source))
    if not voxels or not target.any():
        return Directed(voxels, float("nan"), float("nan"), voxels)
    source, target = _crop(source, target)
    total, maximum, beyond = 0.0, 0.0, 0
    for distances in _outside(source, target, spacing):
        total += float(distances.sum())
        maximum = max(maximum, float(distances.max()))
        beyond += int(np.count_nonzero(distances > tolerance))
    return Directed(voxels, total, maximum, beyond)


def both_ways(predicted: Mask, actual: Mask, spacing: Spacing, tolerance: float = 0.0) -> tuple[Directed, Directed]:
    """Sum up the distances of the prediction to the ground truth, and back: see ``directed``."""
    return directed(predicted, actual, spacing, tolerance), directed(actual, predicted, spacing, tolerance)


def false_distance(to_truth: Directed, to_prediction: Directed) -> FalseDistance:
    """Compute the Mean False Distance from both ways, with unit spacing."""
    return FalseDistance((to_truth.maximum + to_prediction.maximum) / 2, (to_truth.mean + to_prediction.mean) / 2)


def cremi_scores(to_truth: Directed, to_prediction: Directed) -> CremiScores:
    """Compute CREMI's scores from both ways, without invalid voxels.

    Args:
        to_truth: distances of the prediction, in nm by the ground truth's spacing; the challenge's tolerance is 200 nm.
        to_prediction: distances of the ground truth, by the same.
    """
    f = float("nan")
    if to_truth.voxels and to_prediction.voxels:
        precision = 1 - to_truth.beyond / to_truth.voxels
        recall = 1 - to_prediction.beyond / to_prediction.voxels
        f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return CremiScores(to_truth.beyond, to_prediction.beyond, to_truth.mean, to_prediction.mean, f)


def _crop(source: Mask, target: Mask) -> tuple[Mask, Mask]:
    """Cut both masks to the smallest box that holds them; neither is empty."""
    axes = range(source.ndim)
    box = []
    for axis in axes:
        others = tuple(other for other in axes if other != axis)
        used = np.flatnonzero(source.any(axis=others) | target.any(axis=others))
        box.append(slice(used[0], used[-1] + 1))
    return source[tuple(box)], target[tuple(box)]


def _outside(source: Mask, target: Mask, spacing: Spacing) -> Iterator[NDArray[np.float64]]:
    """Yield the distances to ``target`` of the voxels of ``source`` outside it, plane by plane."""
    asked = source & ~target
    if not asked.any():
        return
    # Squared: whole nanometres stay exact in float32 up to 4096, which the strict comparison needs.
    squared = edt.edtsq(~target, anisotropy=tuple(spacing), order="C", parallel=available_cores())
    for plane, wanted in zip(squared, asked, strict=True):
        if wanted.any():
            yield np.sqrt(plane[wanted].astype(np.float64))


def _check(source: Mask, target: Mask, spacing: Spacing) -> None:
    if source.shape != target.shape or source.dtype != bool or target.dtype != bool:
        raise RetinaError(
            f"masks of shape {source.shape} and {target.shape}, type {source.dtype} and {target.dtype}; "
            "expected one shape, and bool"
        )
    if len(spacing) != source.ndim:
        raise RetinaError(f"spacing {tuple(spacing)} for masks of shape {source.shape}; expected {source.ndim} numbers")
