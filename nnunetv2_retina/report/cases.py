"""Cases of a model's report: which predictions there are, their scores, the worst and the best, and a picture of each.

Without folders of predictions and ground truths, those of nnU-Net's own validation are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.sheets import FALSE_NEGATIVE, FALSE_POSITIVE, OverlayRow, compare
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.evaluation.pairs import Pair, pair_files, read_pair
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.evaluation.scores import CaseScores, Scores
from nnunetv2_retina.nnunet.datasets import IMAGES_TR, PREPROCESSED, RAW, TRUTHS, nnunet_folder
from nnunetv2_retina.nnunet.inputs import first_channel, read_channel
from nnunetv2_retina.nnunet.labels import choose_reader, list_labels
from nnunetv2_retina.protocol import with_unit

VALIDATION = "validation"
MOST_SHOWN = 3
"""Worst cases in a report; and as many of the best."""


@dataclass(frozen=True)
class CaseSet:
    """What is scored and shown."""

    pairs: tuple[Pair, ...]
    source: str
    """Where the predictions come from, in a sentence."""
    images: Path | None
    """Folder with the images; None: there is none."""
    notes: tuple[str, ...] = ()
    """What to know about it, in sentences."""


def given_cases(predictions: Path, labels: Path, images: Path | None, ending: str) -> CaseSet:
    """Return the cases of the user's folders.

    Raises:
        RetinaError: for a folder that is missing or holds none, or ground truths without a prediction.
    """
    pairs, extra = pair_files(predictions, labels, ending)
    notes = (f"Without a ground truth, not scored: {shorten(extra)}.",) if extra else ()
    return CaseSet(tuple(pairs), f"Predictions of {predictions}, ground truths of {labels}.", images, notes)


def validation_cases(
    folder: Path,
    folds: Sequence[str],
    dataset: str,
    ending: str,
    images: Path | None = None,
    on_training: Collection[str] = (),
) -> CaseSet:
    """Return the cases that nnU-Net predicted at the end of the training, with the preprocessed data set's truths.

    Args:
        folder: the model folder.
        folds: of which to take the validation cases.
        dataset: such as ``Dataset801_CREMI``.
        ending: of the label files.
        images: folder with the images; None: ``imagesTr`` of the raw data set.
        on_training: folds that are validated on cases that they were trained on.

    Returns:
        The cases; none, with the reason among the notes, if predictions or ground truths are not there.
    """
    images = images or _below(RAW, dataset, IMAGES_TR)
    truths = _below(PREPROCESSED, dataset, TRUTHS)
    predicted = {fold: folder / f"fold_{fold}" / VALIDATION for fold in folds}
    present = {fold: path for fold, path in predicted.items() if any(path.glob(f"*{ending}"))}
    if not present:
        note = "There are no validation predictions (nnU-Net makes them at the end of a training)"
        return CaseSet((), "", images, (f"{note}. Score others with --predictions and --labels.",))
    if truths is None:
        where = nnunet_folder(PREPROCESSED) or "not set"
        note = f"The ground truths are not there: no {dataset}/{TRUTHS} in $nnUNet_preprocessed ({where})"
        return CaseSet((), "", images, (f"{note}. Set it, or give --predictions and --labels.",))
    pairs, unpaired = _pair(present, truths, ending)
    notes = [f"Fold {fold} has no validation predictions." for fold in folds if fold not in present]
    if unpaired:
        notes.append(f"Without a ground truth in {truths}, not scored: {shorten(unpaired)}.")
    notes += [
        f"Fold {fold} trains on {'every case' if fold == 'all' else 'cases of its validation'}: these are scores of "
        "training images, not of unseen ones."
        for fold in present
        if fold in on_training
    ]
    source = f"Validation predictions of {'fold' if len(present) == 1 else 'folds'} {', '.join(present)}."
    return CaseSet(tuple(pairs), source, images, tuple(notes))


def worst_and_best(scores: Scores) -> tuple[list[CaseScores], list[CaseScores]]:
    """Return the worst and the best by mean IoU, each in that order, at most ``MOST_SHOWN`` of each and none twice.

    Cases whose mean IoU is undefined are in neither.
    """
    ranked = sorted((case for case in scores.cases if case.mean["iou"] == case.mean["iou"]), key=_iou)
    number = min(MOST_SHOWN, (len(ranked) + 1) // 2)
    worst = ranked[:number]
    return worst, ranked[len(worst) :][::-1][:number]


def overlay_row(pair: Pair, images: Path, dataset_json: Mapping[str, Any], most: str) -> OverlayRow:
    """Return the picture of a case; of a volume, the slice along z with most of something.

    Args:
        pair: its label files.
        images: folder with its image, named CASE_0000 and so on; the first channel is shown.
        dataset_json: a loaded ``dataset.json``.
        most: ``disagreement`` or ``foreground``.

    Raises:
        RetinaError: for an image that is missing, cannot be read or is of another shape.
    """
    rule = Rule.from_dataset_json(dataset_json, distances=False)
    prediction, truth = read_pair(pair, choose_reader(dataset_json, pair.truth), rule)
    image = _read_image(pair, images, dataset_json, truth.array.shape)
    z = choose_slice(prediction.array, truth.array, rule.ignore, most)
    name = f"{pair.name}, z = {z}" if len(image) > 1 else pair.name
    spacing = replace(with_unit(truth.spacing, dataset_json), z=None)
    return OverlayRow(name, image[z], truth.array[z], prediction.array[z], spacing)


def _read_image(
    pair: Pair, images: Path, dataset_json: Mapping[str, Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    path = _image_file(pair, images, str(dataset_json["file_ending"]))
    if not path.is_file():
        raise RetinaError(f"no image {path} for case {pair.name}. Give the folder of the images with --images")
    image = read_channel(path, dataset_json)
    if image.shape != shape:
        raise RetinaError(
            f"case {pair.name}: the image in {images} has shape {image.shape}, the ground truth {shape} "
            "(z, y, x); expected the same. Give the images that were predicted with --images"
        )
    return image


def choose_slice(prediction: NDArray[Any], truth: NDArray[Any], ignore: int | None, most: str) -> int:
    """Return the slice along z with most disagreeing pixels, or most foreground in the truth; the first of equals.

    Args:
        prediction: label values, (Z, Y, X).
        truth: label values of the same shape.
        ignore: value of the ground truth that is not evaluated.
        most: ``disagreement`` or ``foreground``.
    """
    if most == "disagreement":
        outcomes = (compare(predicted, actual, ignore) for predicted, actual in zip(prediction, truth, strict=True))
        wrong = (np.isin(outcome, (FALSE_POSITIVE, FALSE_NEGATIVE)) for outcome in outcomes)
        return int(np.argmax([np.count_nonzero(plane) for plane in wrong]))
    return int(np.argmax([np.count_nonzero((plane != 0) & (plane != ignore)) for plane in truth]))


def has_image(pair: Pair, images: Path, ending: str) -> bool:
    """Return whether the folder holds the first channel of a case."""
    return _image_file(pair, images, ending).is_file()


def value_names(rule: Rule) -> dict[int, str]:
    """Return foreground label value -> name; the smallest region that holds a value names it."""
    names: dict[int, str] = {}
    for entry in sorted(rule.classes, key=lambda entry: -len(entry.values)):
        names |= {value: entry.name for value in entry.values if value != 0}
    return dict(sorted(names.items()))


def _image_file(pair: Pair, images: Path, ending: str) -> Path:
    return first_channel(images, pair.truth.name.removesuffix(ending), ending)


def _iou(case: CaseScores) -> tuple[float, str]:
    return case.mean["iou"], case.name


def _below(variable: str, dataset: str, name: str) -> Path | None:
    """Return a folder of a data set in one of nnU-Net's three folders; None if it is not there."""
    root = nnunet_folder(variable)
    path = root / dataset / name if root else None
    return path if path is not None and path.is_dir() else None


def _pair(predicted: Mapping[str, Path], truths: Path, ending: str) -> tuple[list[Pair], list[str]]:
    """Pair the files of every fold; return the pairs, and the predictions without a ground truth.

    A case of several folds has the fold's name.
    """
    actual = list_labels(truths, ending, "ground truth")
    of_fold = {fold: list_labels(path, ending, "prediction") for fold, path in predicted.items()}
    counts = Counter(name for files in of_fold.values() for name in files)
    pairs, unpaired = [], []
    for fold, files in of_fold.items():
        for name, path in files.items():
            if name in actual:
                pairs.append(Pair(name if counts[name] == 1 else f"{name} (fold {fold})", path, actual[name]))
            else:
                unpaired.append(name)
    if not pairs:
        raise RetinaError(
            f"no prediction of {shorten(predicted.values())} has a ground truth in {truths}; expected the same names. "
            "Is $nnUNet_preprocessed the one of this training? Otherwise give --predictions and --labels"
        )
    return sorted(pairs, key=lambda pair: pair.name), unpaired
