"""Pairs of label files, prediction and ground truth.

Reading a pair refuses what would make a score meaningless: other shapes or geometry, values that the data set lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.labels import INSTANCES, Labels, list_labels, read_labels


@dataclass(frozen=True)
class Pair:
    """Two label files of one case."""

    name: str
    prediction: Path
    truth: Path


def pair_files(predictions: Path, truths: Path, ending: str) -> tuple[list[Pair], list[str]]:
    """Pair label files by their names.

    Args:
        predictions: folder of predictions; files with other endings are passed over.
        truths: folder of ground truths.
        ending: such as ``.nii.gz``.

    Returns:
        The pairs by name, and the names of predictions without a ground truth. CASE_instances beside CASE is none.

    Raises:
        RetinaError: for a folder that is missing or holds none, one folder given as both, or ground truths without a
            prediction.
    """
    if predictions.resolve() == truths.resolve():
        raise RetinaError(
            f"predictions and ground truths are both {truths}: every score would be 1. Give two folders, such as the "
            "output of retina_predict and labelsTs"
        )
    predicted, actual = list_labels(predictions, ending, "prediction"), list_labels(truths, ending, "ground truth")
    missing = sorted(set(actual) - set(predicted))
    if missing:
        raise RetinaError(
            f"no prediction for {len(missing)} of {len(actual)} cases of {truths}: {shorten(missing)}. Expected "
            f"{predictions / (missing[0] + ending)}. Predict them, or take their ground truth out of that folder"
        )
    pairs = [Pair(name, predicted[name], actual[name]) for name in sorted(actual)]
    extra = set(predicted) - set(actual)
    objects = {name for name in extra if name.endswith(INSTANCES) and name.removesuffix(INSTANCES) in predicted}
    return pairs, sorted(extra - objects)


def read_pair(pair: Pair, reader: type[Any], rule: Rule) -> tuple[Labels, Labels]:
    """Read prediction and ground truth of a case. The ignore value in a prediction counts as background.

    Raises:
        RetinaError: if one cannot be read, they differ in shape or geometry, or hold values the data set lacks.
    """
    truth, prediction = read_labels(pair.truth, reader), read_labels(pair.prediction, reader)
    if truth.array.shape != prediction.array.shape:
        raise RetinaError(
            f"case {pair.name}: the prediction has shape {prediction.array.shape}, the ground truth "
            f"{truth.array.shape} (z, y, x); expected the same. Is {pair.prediction} of this case, and neither cropped "
            "nor scaled?"
        )
    if not truth.geometry:  # a TIFF without nnU-Net's file of its spacing
        truth = replace(truth, spacing=prediction.spacing)
    for name, expected in truth.geometry.items() if prediction.geometry else ():
        got = prediction.geometry.get(name)
        if got is None or not is_close(name, got, expected, truth.spacing):
            raise RetinaError(
                f"case {pair.name}: the prediction has {name} {shown(got)}, the ground truth {shown(expected)}; "
                f"expected the same. Are {pair.prediction} and {pair.truth} of one image? If only the file's header is "
                "wrong, copy it from the image"
            )
    check_values(truth.array, pair.truth, rule)
    check_values(prediction.array, pair.prediction, rule)
    return prediction, truth


def check_values(array: NDArray[Any], path: Path | str, rule: Rule) -> None:
    """Check that an array (z, y, x) holds labels of the data set alone.

    Raises:
        RetinaError: naming ``path`` and the other values.
    """
    allowed = rule.values | ({rule.ignore} if rule.ignore is not None else set())
    unknown = sorted({int(value) for plane in array for value in np.unique(plane)} - allowed)
    if unknown:
        raise RetinaError(
            f"{path} holds the values {shorten(unknown)}, which the data set lacks; its labels are "
            f"{shorten(sorted(allowed), 20)}. Is it of this data set? Masks of 0 and 255 must be saved as 0 and 1"
        )


def is_close(name: str, got: Sequence[float], expected: Sequence[float], spacing: Spacing) -> bool:
    """Return whether two are equal but for rounding: a tenth of a voxel for a place, else a thousandth."""
    relative, absolute = (1e-6, 0.1 * min(spacing)) if name in ("origin", "affine") else (1e-3, 1e-3 * min(spacing))
    if name == "direction":
        absolute = 1e-3
    return len(got) == len(expected) and bool(np.allclose(got, expected, rtol=relative, atol=absolute))


def shown(numbers: Sequence[float] | None) -> str:
    return "none" if numbers is None else f"({', '.join(f'{number:g}' for number in numbers)})"
