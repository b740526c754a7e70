"""One page about a trained model: what was trained and on what, what was transferred, curves, scores, pictures.

    write_model_report("nnUNet_results/Dataset801_CREMI/nnUNetTrainerRETINA__nnUNetPlans__2d")

Works for the models of every nnU-Net trainer, finished or not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunetv2_retina.display.pages import (
    contents,
    heading,
    html_page,
    notice,
    paragraph,
    picture,
    preformatted,
    subheading,
)
from nnunetv2_retina.display.plots import Bar, class_bars
from nnunetv2_retina.display.sheets import overlay_sheet
from nnunetv2_retina.evaluation.evaluate import Progress, score_pairs
from nnunetv2_retina.evaluation.metric import IOU, F
from nnunetv2_retina.evaluation.output import versions
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.evaluation.scores import CaseScores, Scores
from nnunetv2_retina.files import check_page, read_json, write_text
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.models import PLANS_JSON
from nnunetv2_retina.nnunet.record import TrainingRecord, find_folds, folds_without_checkpoint, goes_on, read_record
from nnunetv2_retina.report import cases as report_cases
from nnunetv2_retina.report.cases import CaseSet
from nnunetv2_retina.report.scores import score_tables
from nnunetv2_retina.report.settings import ReportSettings
from nnunetv2_retina.report.training import (
    curve_blocks,
    patch_blocks,
    reproduce,
    training_blocks,
    transfer_blocks,
    unfinished,
)

REPORT = "report.html"


def write_model_report(
    folder: str | Path,
    output: str | Path | None = None,
    settings: ReportSettings | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of a model: one HTML file that needs no other and fetches nothing.

    Args:
        folder: model folder, with plans.json, dataset.json and fold_0 and so on.
        output: the file; None: ``report.html`` in the model folder. It appears whole or not at all.
        settings: what to report on.
        progress: called with the number of cases that are scored, and of all.

    Returns:
        The file's path.

    Raises:
        RetinaError: for a model, a file or an output that cannot be used.
    """
    folder, settings = Path(folder), settings or ReportSettings()
    folds = find_folds(folder, settings.folds)
    path = check_page(Path(output) if output is not None else folder / REPORT, "-o")
    dataset_json = read_dataset_json(folder)
    plans = read_json(folder / PLANS_JSON, "Copy it again from the training")
    records = [read_record(folder, fold) for fold in folds]
    cases = _find_cases(folder, records, dataset_json, plans, settings)
    with tempfile.TemporaryDirectory() as pictures:
        page = _page(folder, records, dataset_json, plans, cases, settings, Path(pictures), progress)
    return write_text(path, page, "Give another file with -o")


def _page(
    folder: Path,
    records: Sequence[TrainingRecord],
    dataset_json: dict[str, Any],
    plans: dict[str, Any],
    cases: CaseSet,
    settings: ReportSettings,
    pictures: Path,
    progress: Progress | None,
) -> str:
    configuration = records[0].configuration
    rule = Rule.from_dataset_json(dataset_json, distances=settings.distances)
    scores = score_pairs(cases.pairs, dataset_json, rule, progress=progress) if cases.pairs else None
    now = datetime.now(timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    lead = f"{configuration}, {_folds(records)}. {_headline(scores)} Written {now}."
    sections: dict[str, list[str]] = {
        "What was trained": training_blocks(folder, records, dataset_json, plans),
        "What was transferred": transfer_blocks(records),
        "Training": curve_blocks(records, pictures) + patch_blocks(records),
        "Scores": _score_blocks(scores, cases, pictures),
        "Worst and best cases": _case_blocks(scores, cases, dataset_json, settings, pictures),
        "How to reproduce": [
            preformatted("\n".join(reproduce(folder, records, plans))),
            paragraph("Made with " + ", ".join(f"{name} {number}" for name, number in versions().items()) + "."),
        ],
    }
    sections = {name: blocks for name, blocks in sections.items() if blocks}
    waiting = [] if settings.folds else folds_without_checkpoint(folder)
    notes = unfinished(records) + [f"Fold {fold} was begun and has no checkpoint yet." for fold in waiting]
    blocks = [paragraph(lead), *(notice(sentence) for sentence in notes), contents(list(sections))]
    for name, section in sections.items():
        blocks += [heading(name), *section]
    title = f"{records[0].trainer} on {plans.get('dataset_name', folder.parent.name)}"
    return html_page(title, blocks, settings.watch if goes_on(folder, settings.folds) else None)


def _find_cases(
    folder: Path,
    records: Sequence[TrainingRecord],
    dataset_json: dict[str, Any],
    plans: dict[str, Any],
    settings: ReportSettings,
) -> CaseSet:
    ending = str(dataset_json["file_ending"])
    if settings.predictions is not None and settings.labels is not None:
        return report_cases.given_cases(settings.predictions, settings.labels, settings.images, ending)
    dataset = str(plans.get("dataset_name", folder.resolve().parent.name))
    folds = [record.fold for record in records]
    on_training = [record.fold for record in records if record.validated_on_training]
    return report_cases.validation_cases(folder, folds, dataset, ending, settings.images, on_training)


def _bars(scores: Scores, key: str) -> list[Bar]:
    """Return a bar of a metric for each class, those that count in the mean first."""
    return [
        Bar(
            entry.name if entry.evaluated else f"({entry.name})",
            [case.classes[entry.name].values[key] for case in scores.cases],
            scores.classes[entry.name][key],
        )
        for entry in sorted(scores.rule.classes, key=lambda entry: not entry.evaluated)
    ]


def _score_blocks(scores: Scores | None, cases: CaseSet, pictures: Path) -> list[str]:
    notes = [notice(note) for note in cases.notes]
    if scores is None:
        return notes
    plot = pictures / "classes.png"
    class_bars(plot, {f"{metric.title} ({metric.meaning})": _bars(scores, metric.key) for metric in (IOU, F)})
    return [
        paragraph(cases.source),
        *notes,
        picture(plot, "Mean IoU and F of every class as a bar, every case as a point"),
        paragraph(
            "Bars: means of the classes. Points: cases. Beside them: the mean, and how many have a value if not all."
            if len(scores.cases) > 1
            else "There is one case: the bars are its scores, and say nothing about their spread."
        ),
        *score_tables(scores),
    ]


def _case_blocks(
    scores: Scores | None, cases: CaseSet, dataset_json: dict[str, Any], settings: ReportSettings, pictures: Path
) -> list[str]:
    if scores is None:
        return []
    worst, best = report_cases.worst_and_best(scores)
    if not worst:
        return [paragraph("No case has a defined IoU, so none is the worst or the best.")]
    of_name = {pair.name: pair for pair in cases.pairs}
    ending = str(dataset_json["file_ending"])
    shown = [of_name[case.name] for case in (*worst, *best)]
    lacking = [pair.name for pair in shown if cases.images and not report_cases.has_image(pair, cases.images, ending)]
    if cases.images is None or (lacking and settings.images is None):
        names = "; ".join(f"{word}: {_listed(chosen)}" for word, chosen in (("worst", worst), ("best", best)) if chosen)
        return [
            paragraph(f"By mean IoU, {names}."),
            notice("No pictures: the images are not there. Give their folder with --images."),
        ]
    blocks = [paragraph(_explain(scores))]
    for word, chosen, most in (("Worst", worst, "disagreement"), ("Best", best, "foreground")):
        if chosen:
            rows = [report_cases.overlay_row(of_name[case.name], cases.images, dataset_json, most) for case in chosen]
            sheet = pictures / f"{word}.png"
            overlay_sheet(sheet, rows, report_cases.value_names(scores.rule), scores.rule.ignore)
            blocks += [
                subheading(word if best else "The only case with a defined IoU"),
                paragraph(_listed(chosen) + "."),
                picture(sheet, f"{word} cases: image, ground truth, prediction and where the two differ"),
            ]
    return blocks


def _explain(scores: Scores) -> str:
    text = "By mean IoU over the classes. "
    if any(case.shape[0] > 1 for case in scores.cases):
        text += "Of volumes, the slice along z with most disagreement (worst) or most foreground (best). "
    if scores.rule.mask_rule != "none" or not all(entry.evaluated for entry in scores.rule.classes):
        text += "The comparison shows every pixel, also those that the rule of the scores leaves out."
    return text.strip()


def _listed(cases: Sequence[CaseScores]) -> str:
    return ", ".join(f"{case.name} ({IOU.show(case.mean['iou'])})" for case in cases)


def _headline(scores: Scores | None) -> str:
    if scores is None:
        return "Not scored."
    cases = f"{len(scores.cases)} {'case' if len(scores.cases) == 1 else 'cases'}"
    return f"Mean IoU {IOU.show(scores.mean['iou'])} over {cases}."


def _folds(records: Sequence[TrainingRecord]) -> str:
    return f"{'fold' if len(records) == 1 else 'folds'} {', '.join(record.fold for record in records)}"
