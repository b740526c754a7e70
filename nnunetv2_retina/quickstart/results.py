"""What the network reached, beside the best global threshold on the same images, by the same scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.metric import IOU
from nnunetv2_retina.evaluation.output import JSON_FILE
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import combine
from nnunetv2_retina.files import read_json
from nnunetv2_retina.nnunet.datasets import read_dataset_json, split_folders
from nnunetv2_retina.nnunet.inputs import first_channel, read_channel
from nnunetv2_retina.nnunet.labels import choose_reader, list_labels, read_labels
from nnunetv2_retina.quickstart.threshold import Threshold, best_threshold

_MAX_VOXELS = 2e8
"""Of the training images that the threshold is chosen on; more would only cost memory."""


@dataclass(frozen=True)
class Example:
    """One case of a raw data set; both arrays are (Z, Y, X)."""

    name: str
    image: NDArray[Any]
    labels: NDArray[Any]


def compare_with_threshold(dataset: Path, scores: Path) -> list[str]:
    """Compare the mean IoU of each class that ``retina_evaluate`` wrote with that of the best global threshold.

    Args:
        dataset: the raw data set's folder; the threshold is chosen on its training images, scored on its test images.
        scores: folder with ``scores.json``.

    Returns:
        A sentence for each class.
    """
    rule = Rule.from_dataset_json(read_dataset_json(dataset), distances=False)
    network = read_json(scores / JSON_FILE, "retina_evaluate writes it.")["classes"]
    training, test = _within_limit(read_examples(dataset, "train")), list(read_examples(dataset, "test"))
    valid = [example.labels != rule.ignore for example in training]
    sentences = []
    for entry in rule.classes:
        masks = [np.isin(example.labels, entry.values) for example in training]
        threshold = best_threshold([example.image for example in training], masks, valid)
        iou = _mean_iou(threshold, entry, test, rule)
        sentences.append(
            f"{entry.name}: mean IoU {IOU.show(network[entry.name]['iou'])} by the network, {IOU.show(iou)} by the "
            f"best global threshold ({threshold.describe()})"
        )
    return sentences


def read_examples(dataset: Path, split: str) -> Iterator[Example]:
    """Read cases with labels back from a raw data set, through nnU-Net's own readers.

    Args:
        dataset: the raw data set's folder.
        split: ``train`` or ``test``.
    """
    contents = read_dataset_json(dataset)
    ending = str(contents["file_ending"])
    images, labels = split_folders(dataset, split)
    for name, path in list_labels(labels, ending, "ground truth").items():
        image = read_channel(first_channel(images, name, ending), contents)
        yield Example(name, image, read_labels(path, choose_reader(contents, path)).array)


def _mean_iou(threshold: Threshold, entry: ScoredClass, examples: list[Example], rule: Rule) -> float:
    """Score a class that the threshold finds as ``retina_evaluate`` scores the network's."""
    rule = replace(rule, classes=(entry,))
    cases = []
    for example in examples:
        labels = np.where(threshold.apply(example.image), entry.values[0], 0).astype(example.labels.dtype)
        cases.append(score_case(example.name, labels, example.labels, rule))
    return combine(cases, rule).classes[entry.name]["iou"]


def _within_limit(examples: Iterator[Example]) -> list[Example]:
    """Return the first examples, at least one, that together do not exceed the limit."""
    kept = list(islice(examples, 1))
    for example in examples:
        if sum(other.image.size for other in kept) + example.image.size > _MAX_VOXELS:
            break
        kept.append(example)
    return kept
