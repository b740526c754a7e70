"""What the quickstart found: scores beside the best threshold, overlay pictures, and the page that shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nnunetv2_retina.display.pages import heading, html_page, paragraph, picture, preformatted, table
from nnunetv2_retina.display.sheets import PIXELS, OverlayRow, overlay_sheet
from nnunetv2_retina.evaluation.counts import Counts, count_classes
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.labels import choose_reader, read_labels
from nnunetv2_retina.quickstart.data import Example, read_class_names, read_examples
from nnunetv2_retina.quickstart.threshold import Threshold, best_threshold_iou
from nnunetv2_retina.report.cases import with_unit

REPORT, SCORES, OVERLAY = "report.html", "scores.json", "overlay.png"
_MAX_ROWS = 4
_MAX_VOXELS = 2e8
"""Of the training images for the threshold; more would only cost memory."""


@dataclass(frozen=True)
class ClassScore:
    """One class over all held-out images."""

    name: str
    network: Counts
    threshold: Threshold

    def sentence(self) -> str:
        """The comparison in one line."""
        side = "at or below" if self.threshold.dark else "at or above"
        smooth = f" after smoothing by {self.threshold.sigma:g} px" if self.threshold.sigma else ""
        return (
            f"{self.name}: IoU {_number(self.network.iou)} by the network, {_number(self.threshold.iou)} by the best "
            f"global threshold (grey levels {side} {self.threshold.level:.0f}{smooth})"
        )


@dataclass(frozen=True)
class Results:
    """What the report is made of."""

    classes: Sequence[ClassScore]
    cases: Mapping[str, Mapping[str, Counts]]
    """Case -> class name -> counts."""


def score(dataset: Path, predictions: Path) -> Results:
    """Score the predictions of the held-out cases, and the best threshold on the same cases.

    Args:
        dataset: The raw data set's folder.
        predictions: Folder with a predicted mask per case.
    """
    truth, predicted = read_examples(dataset, "Ts"), read_examples(dataset, "Ts", predictions)
    class_names = read_class_names(dataset)
    training = _within_limit(read_examples(dataset, "Tr"))
    cases: dict[str, dict[str, Counts]] = {}
    totals = dict.fromkeys(class_names, Counts())
    for actual, found in zip(truth, predicted, strict=True):
        counts = count_classes(found.mask, actual.mask, list(class_names))
        cases[actual.name] = {class_names[label]: counts[label] for label in class_names}
        totals = {label: totals[label] + counts[label] for label in class_names}
    classes = []
    for label, name in class_names.items():
        threshold = best_threshold_iou(
            [example.image for example in training],
            [example.mask == label for example in training],
            [example.image for example in truth],
            [example.mask == label for example in truth],
        )
        classes.append(ClassScore(name, totals[label], threshold))
    return Results(classes, cases)


def write_overlay(path: Path, dataset: Path, predictions: Path) -> None:
    """Draw up to four slices of the held-out cases, spread over them, each the one with most foreground around it."""
    truth, predicted = read_examples(dataset, "Ts"), read_examples(dataset, "Ts", predictions)
    class_names, dataset_json = read_class_names(dataset), read_dataset_json(dataset)
    ending = str(dataset_json["file_ending"])
    each = max(1, _MAX_ROWS // max(1, len(truth)))
    rows = []
    for actual, found in list(zip(truth, predicted, strict=True))[:_MAX_ROWS]:
        label_file = dataset / "labelsTs" / f"{actual.name}{ending}"
        spacing = with_unit(read_labels(label_file, choose_reader(dataset_json, label_file)).spacing, dataset_json)
        scale = (spacing.y, spacing.x), spacing.unit or PIXELS
        area = np.count_nonzero(np.isin(actual.mask, list(class_names)), axis=(1, 2))
        for part in np.array_split(np.arange(len(area)), min(each, len(area))):
            z = part[np.argmax(area[part])]
            name = f"{actual.name}, z = {z}" if len(area) > 1 else actual.name
            rows.append(OverlayRow(name, actual.image[z], actual.mask[z], found.mask[z], *scale))
    overlay_sheet(path, rows, class_names)


def write_report(
    folder: Path, results: Results, source: str, stages: Sequence[tuple[str, float]], commands: Sequence[str]
) -> Path:
    """Write ``report.html`` and ``scores.json``; the overlay picture is in the folder already.

    Args:
        folder: Where to write.
        results: From ``score``.
        source: A sentence on the data.
        stages: Name and seconds of each stage.
        commands: nnU-Net's commands as they were run.

    Returns:
        The path of the page, which needs no other file.
    """
    cases = [
        [case, name, *(_number(value) for value in (counts.iou, counts.f, counts.precision, counts.recall))]
        for case, classes in results.cases.items()
        for name, counts in classes.items()
    ]
    summary = [
        [entry.name, _number(entry.network.iou), _number(entry.network.f), _number(entry.threshold.iou)]
        for entry in results.classes
    ]
    blocks = [
        paragraph(source),
        heading("Scores on images that were held out"),
        table(["class", "network: IoU", "network: F", "best global threshold: IoU"], summary),
        *(paragraph(entry.sentence() + ".") for entry in results.classes),
        picture(folder / OVERLAY, "Held-out images, ground truth, prediction, and where the two differ"),
        table(["case", "class", "IoU", "F", "precision", "recall"], cases),
        heading("How it was made"),
        table(["stage", "seconds"], [[name, f"{seconds:.0f}"] for name, seconds in stages]),
        preformatted("\n".join(commands)),
    ]
    (folder / SCORES).write_text(json.dumps(_scores(results), indent=2) + "\n", encoding="utf-8")
    page = folder / REPORT
    page.write_text(html_page("RETINA for nnU-Net: quickstart", blocks), encoding="utf-8")
    return page


def _scores(results: Results) -> dict[str, object]:
    """The scores as JSON holds them: None where undefined, which JSON has no number for."""
    return {
        "classes": {
            entry.name: {
                "network": {
                    **asdict(entry.network),
                    "iou": _defined(entry.network.iou),
                    "f": _defined(entry.network.f),
                },
                "threshold": {**entry.threshold._asdict(), "iou": _defined(entry.threshold.iou)},
            }
            for entry in results.classes
        },
        "cases": {
            case: {name: {**asdict(counts), "iou": _defined(counts.iou)} for name, counts in classes.items()}
            for case, classes in results.cases.items()
        },
    }


def _within_limit(examples: Sequence[Example]) -> list[Example]:
    """The first examples, at least one, that together do not exceed the limit."""
    kept = list(examples[:1])
    for example in examples[1:]:
        if sum(other.image.size for other in kept) + example.image.size <= _MAX_VOXELS:
            kept.append(example)
    return kept


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
