"""What a model's report says of its training: settings, transfer, curves and the commands that repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunetv2_retina.console.wording import duration
from nnunetv2_retina.display.pages import details, notice, paragraph, picture, preformatted, table
from nnunetv2_retina.display.patches import PICTURE
from nnunetv2_retina.display.plots import Curve, curves
from nnunetv2_retina.nnunet.models import BEST, FINAL, LATEST
from nnunetv2_retina.nnunet.record import TrainingRecord
from nnunetv2_retina.protocol import BLOCK, Protocol
from nnunetv2_retina.weights import transfer

UNKNOWN = "not recorded"


def unfinished(records: Sequence[TrainingRecord]) -> list[str]:
    """Return a sentence for each fold whose training has not come to its end."""
    sentences = []
    for record in records:
        if record.finished:
            if (record.folder / LATEST).is_file():
                sentences.append(
                    f"Beside the {FINAL} of fold {record.fold}, which this page is about, is a {LATEST}: a later "
                    "training of this fold, which is not finished."
                )
            continue
        of = f" of {record.planned_epochs}" if record.planned_epochs else ""
        best = ", of the best epoch so far" if record.checkpoint == BEST else ""
        sentences.append(
            f"The training of fold {record.fold} is not finished: {len(record.epochs.train_loss)}{of} epochs in "
            f"{record.checkpoint}{best}. If it is not running, continue it with nnUNetv2_train ... --c."
        )
    return sentences


def training_blocks(
    folder: Path, records: Sequence[TrainingRecord], dataset_json: Mapping[str, Any], plans: Mapping[str, Any]
) -> list[str]:
    """Return what was trained and how: a table of what all folds share, one with a column a fold of what differs."""
    configuration = records[0].configuration
    settings = plans.get("configurations", {}).get(configuration, {})
    shared = [
        ["Data set", str(plans.get("dataset_name", folder.resolve().parent.name))],
        ["Labels", ", ".join(f"{name} ({value})" for name, value in dataset_json["labels"].items())],
        ["Configuration, plans", f"{configuration}, {plans.get('plans_name', UNKNOWN)}"],
        ["Patch, batch", f"{_times(settings.get('patch_size'))} px, {settings.get('batch_size', UNKNOWN)} patches"],
    ]
    own: dict[str, Callable[[TrainingRecord], str]] = {
        "Trainer": lambda record: record.trainer,
        "Network": lambda record: _network(record, settings),
        "Training cases": lambda record: _cases(record, dataset_json),
        "Iterations": lambda record: _iterations(record, dataset_json),
        "Learning rate": _learning_rate,
        "Time": _time,
        "Device": lambda record: record.debug.get("gpu_name") or record.debug.get("device") or UNKNOWN,
        "Versions": _versions,
        "Checkpoint": lambda record: record.checkpoint,
    }
    different = []
    for name, tell in own.items():
        values = [tell(record) for record in records]
        if len(set(values)) == 1:
            shared.append([name, values[0]])
        else:
            different.append([name, *values])
    folds = ["", *(f"fold {record.fold}" for record in records)]
    return [table([], shared), *([table(folds, different)] if different else [])]


def transfer_blocks(records: Sequence[TrainingRecord]) -> list[str]:
    """Return, for each fold with a transfer_report.json, a sentence, counts and the folded lists of tensors."""
    blocks = []
    for record in records:
        if record.transfer is None:
            continue
        report = record.transfer
        fold = f"Fold {record.fold}: " if len(records) > 1 else ""
        blocks.append(paragraph(fold + transfer.summary(report).removesuffix(" See transfer_report.json.")))
        if report.get("source"):
            blocks.append(table([], [["Source", str(report["source"])], ["Fingerprint", str(report["fingerprint"])]]))
        elif record.trainer.startswith("nnUNetTrainerRETINA"):
            blocks.append(notice("This is not RETINA: no pre-trained weights were given to this training."))
        counts, sizes = [], report["parameters"]
        for kind, number in (("loaded", sizes["loaded"]), ("fresh", sizes["all"] - sizes["loaded"])):
            counts.append([kind, str(len(report[kind])), f"{number:,}"])
        counts.append(["frozen", str(len(report["frozen"])), f"{sizes['frozen']:,}"])
        blocks.append(table(["", "tensors", "parameters"], counts))
        for kind in ("loaded", "fresh", "untrained", "frozen"):  # reports of earlier versions do not know untrained
            if report.get(kind):
                blocks.append(details(f"The {len(report[kind])} {kind} tensors", preformatted("\n".join(report[kind]))))
        if report.get("pretraining"):
            recipe = preformatted(json.dumps(report["pretraining"], indent=2))
            blocks.append(details("How the weights were pre-trained", recipe))
    return blocks


def curve_blocks(records: Sequence[TrainingRecord], pictures: Path) -> list[str]:
    """Plot losses, pseudo Dice and learning rate by epoch: of all folds together and, folded, of each."""
    trained = [record for record in records if record.epochs.train_loss]
    if not trained:
        return [notice("No epoch was finished yet.")]
    blocks = [paragraph("Pseudo Dice: nnU-Net's estimate on validation patches, not the score of whole images.")]
    own = [_fold_curves(record, pictures) for record in trained]
    if len(trained) == 1:
        return [*blocks, own[0]]
    path = pictures / "folds.png"
    panels = {
        "training loss": [_curve(record, record.epochs.train_loss) for record in trained],
        "validation loss": [_curve(record, record.epochs.val_loss) for record in trained],
        "pseudo Dice, mean": [
            _curve(record, [_mean(values) for values in record.epochs.pseudo_dice]) for record in trained
        ],
    }
    curves(path, panels, "epoch")
    blocks.append(picture(path, "Losses and pseudo Dice of every fold by epoch"))
    return [*blocks, *(details(f"Fold {r.fold}", one) for r, one in zip(trained, own, strict=True))]


def patch_blocks(records: Sequence[TrainingRecord]) -> list[str]:
    """Show the validation patches that our trainers draw, where there are any."""
    blocks = []
    for record in records:
        path = record.folder / PICTURE
        if path.is_file():
            blocks += [
                paragraph(f"Patches of fold {record.fold}: image, label, prediction, when they were last drawn."),
                picture(path, f"Validation patches of fold {record.fold}: image, label and prediction"),
            ]
    return blocks


def reproduce(folder: Path, records: Sequence[TrainingRecord], plans: Mapping[str, Any]) -> list[str]:
    """Return the commands that repeat training, prediction, scores and this report."""
    dataset = str(plans.get("dataset_name", folder.resolve().parent.name))
    number = dataset.removeprefix("Dataset").split("_")[0].lstrip("0") or dataset
    configuration, name = records[0].configuration, str(plans.get("plans_name", "nnUNetPlans"))
    model = ["-d", number, "-tr", records[0].trainer, "-c", configuration]
    model += ["-p", name] if name != "nnUNetPlans" else []
    lines = [f"nnUNetv2_plan_and_preprocess -d {number} -c {configuration} --verify_dataset_integrity"]
    for record in records:
        lines.append(_training_command(record, number, configuration, name))
    folds = ["-f", *(record.fold for record in records)]
    command = "retina_predict" if configuration.startswith("2d") else "nnUNetv2_predict"
    lines.append(shlex.join([command, "-i", "IMAGES", "-o", "PREDICTIONS", *model, *folds]))
    lines.append(f"retina_evaluate -p PREDICTIONS -g LABELS -d {number} -o SCORES")
    lines.append(shlex.join(["retina_report", *model, *folds]))
    return lines


def _training_command(record: TrainingRecord, number: str, configuration: str, plans: str) -> str:
    words = ["nnUNetv2_train", number, configuration, record.fold, "-tr", record.trainer]
    words += ["-p", plans] if plans != "nnUNetPlans" else []
    report, prefix = record.transfer or {}, ""
    if report.get("source"):
        if report.get("named_by") == "-pretrained_weights":
            words += ["-pretrained_weights", str(report["source"])]
        else:
            prefix = f"RETINA_WEIGHTS={shlex.quote(str(report['source']))} "
    device = record.debug.get("device", "cuda").split(":")[0]
    words += ["-device", device] if device != "cuda" else []
    seed = record.debug.get("_seed", "None")
    return prefix + (f"RETINA_SEED={seed} " if seed != "None" else "") + shlex.join(words)


def _fold_curves(record: TrainingRecord, pictures: Path) -> str:
    epochs = record.epochs
    path = pictures / f"fold_{record.fold}.png"
    number = max(len(values) for values in epochs.pseudo_dice)
    x = range(1, len(epochs.train_loss) + 1)
    dice = [
        Curve(f"class {i + 1}", x, [values[i] if i < len(values) else float("nan") for values in epochs.pseudo_dice])
        for i in range(number)
    ]
    panels = {
        "loss": [Curve("training", x, epochs.train_loss), Curve("validation", x, epochs.val_loss)],
        "pseudo Dice" if number > 1 else "pseudo Dice (the class)": dice,
        "learning rate": [Curve("learning rate", x, epochs.learning_rate)],
    }
    curves(path, panels, "epoch")
    return picture(path, f"Losses, pseudo Dice and learning rate of fold {record.fold} by epoch")


def _curve(record: TrainingRecord, values: Sequence[float]) -> Curve:
    return Curve(f"fold {record.fold}", range(1, len(values) + 1), values)


def _network(record: TrainingRecord, settings: Mapping[str, Any]) -> str:
    if record.network is not None:
        name = f"TransUNet, size {record.network.name}" if record.network.name else "TransUNet, a size of its own"
    else:
        name = str(settings.get("architecture", {}).get("network_class_name", UNKNOWN)).split(".")[-1]
    return f"{name}, {record.parameters:,} parameters"


def _cases(record: TrainingRecord, dataset_json: Mapping[str, Any]) -> str:
    if record.cases is not None:
        return f"{record.cases[0]} to train on, {record.cases[1]} to validate"
    if record.fold == "all":
        return f"all {dataset_json.get('numTraining', '')} to train on, the same to validate".replace("  ", " ")
    return UNKNOWN


def _iterations(record: TrainingRecord, dataset_json: Mapping[str, Any]) -> str:
    done, planned = len(record.epochs.train_loss), record.planned_epochs
    each = record.number("num_iterations_per_epoch")
    epochs = f"{done} epochs" if planned in (None, done) else f"{done} of {planned} epochs"
    if record.version is not None:
        protocol = Protocol.from_dataset_json({"labels": dataset_json["labels"], BLOCK: dataset_json.get(BLOCK) or {}})
        each, total = protocol.iterations_per_epoch, min(done * protocol.iterations_per_epoch, protocol.iterations)
        return f"{total:,} ({epochs} of {min(each, protocol.iterations):,})"
    return f"{done * each:,} ({epochs} of {each:,})" if each is not None else epochs


def _learning_rate(record: TrainingRecord) -> str:
    rates = record.epochs.learning_rate
    return f"{rates[0]:.4g} in the first epoch, {rates[-1]:.4g} in the last" if rates else UNKNOWN


def _time(record: TrainingRecord) -> str:
    epochs = record.epochs
    if not epochs.seconds:
        return UNKNOWN
    begin = datetime.fromtimestamp(epochs.start[0], timezone.utc).strftime("%Y-%m-%d")
    total = sum(epochs.seconds)
    return f"{duration(total)} in all, {duration(total / len(epochs.seconds))} an epoch; begun {begin}"


def _versions(record: TrainingRecord) -> str:
    own = f"nnunetv2-retina {record.version}, " if record.version else ""
    return f"{own}PyTorch {record.debug.get('torch_version', UNKNOWN)}"


def _times(sizes: object) -> str:
    return " x ".join(map(str, sizes)) if isinstance(sizes, list) else UNKNOWN


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return sum(defined) / len(defined) if defined else float("nan")
