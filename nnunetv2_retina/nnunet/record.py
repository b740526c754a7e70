"""What nnU-Net keeps of a training: the checkpoint's log of its epochs, debug.json, the text log, transfer_report.json.

Works for every trainer; what is not recorded, or is in a file that is missing, is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import read_json
from nnunetv2_retina.network import NetworkConfig
from nnunetv2_retina.nnunet.models import BEST, FINAL, LATEST, PLANS_JSON, check, folds_without
from nnunetv2_retina.weights.checkpoint import read_file

_CHECKPOINTS = (FINAL, LATEST, BEST)
VALIDATED = "validation/summary.json"
"""In a fold's folder, once nnU-Net has validated."""
_SPLIT = re.compile(r"split has (\d+) training and (\d+) validation cases")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Epochs:
    """A value for each epoch that was finished."""

    train_loss: Sequence[float]
    val_loss: Sequence[float]
    pseudo_dice: Sequence[Sequence[float]]
    """For each epoch one value a class: of validation patches, not of whole images."""
    learning_rate: Sequence[float]
    start: Sequence[float]
    """Seconds since 1970."""
    seconds: Sequence[float]
    """How long each took."""


@dataclass(frozen=True)
class TrainingRecord:
    """One fold."""

    fold: str
    folder: Path
    checkpoint: str
    """Name of the file that was read: the last there is, of ``FINAL``, ``LATEST`` and ``BEST``."""
    trainer: str
    configuration: str
    epochs: Epochs
    parameters: int
    debug: Mapping[str, str]
    """nnU-Net's debug.json: every attribute of the trainer, as text; empty where there is none."""
    network: NetworkConfig | None
    """Sizes of RETINA's network; None for other networks."""
    version: str | None
    """Of this package, where one of its trainers was used, which train by the data set's protocol; else None."""
    transfer: Mapping[str, Any] | None
    """transfer_report.json."""
    cases: tuple[int, int] | None
    """Training and validation cases of the split."""
    validated_on_training: bool
    """See ``validated_on_training``."""

    @property
    def finished(self) -> bool:
        """Tell whether the training came to its end."""
        return self.checkpoint == FINAL

    @property
    def planned_epochs(self) -> int | None:
        """Return the number of epochs that were asked for."""
        return self.number("num_epochs")

    def number(self, name: str) -> int | None:
        """Return a whole number of debug.json; None if it is not there."""
        text = self.debug.get(name, "")
        return int(text) if text.isdecimal() else None


def find_folds(folder: Path, folds: Sequence[str] | None) -> list[str]:
    """Return the folds of a model folder that can be reported on: those with a checkpoint.

    Args:
        folder: the one with dataset.json, plans.json and fold_0, fold_1, ...
        folds: those asked for; None: every numbered fold, else fold_all.

    Raises:
        RetinaError: naming what is missing.
    """
    names = [name for name in _CHECKPOINTS if any(folder.glob(f"fold_*/{name}"))]
    if not names and (folder / PLANS_JSON).is_file() and (begun := folds_without_checkpoint(folder)):
        raise RetinaError(
            f"{folder} has no checkpoint yet, in the folds {shorten(begun)} that were begun. Wait for the first, as "
            "retina_report --watch 30 does; if no training is running, start it again"
        )
    check(folder, None, names[0] if names else FINAL)
    folders = {path.parent.name for name in names for path in folder.glob(f"fold_*/{name}")}
    trained = sorted((name.removeprefix("fold_") for name in folders), key=lambda fold: (len(fold), fold))
    unknown = [fold for fold in folds or () if fold not in trained]
    if unknown:
        raise RetinaError(
            f"-f {unknown[0]}: {folder} has no checkpoint of that fold; it has folds {shorten(trained)}. Choose among "
            "them, or leave -f out"
        )
    return list(dict.fromkeys(folds)) if folds else [fold for fold in trained if fold.isdecimal()] or trained


def folds_without_checkpoint(folder: Path) -> list[str]:
    """Return the folds that were begun and have no checkpoint yet."""
    return folds_without(folder, _CHECKPOINTS)


def goes_on(folder: Path, folds: Sequence[str] | None) -> bool:
    """Tell whether a fold was begun whose training, or nnU-Net's validation after it, is not over.

    Args:
        folder: model folder.
        folds: those asked for; None: all that were begun.
    """
    begun = [folder / f"fold_{fold}" for fold in folds] if folds else [p for p in folder.glob("fold_*") if p.is_dir()]
    return any(not (fold / FINAL).is_file() or not (fold / VALIDATED).is_file() for fold in begun)


def read_record(folder: Path, fold: str) -> TrainingRecord:
    """Read what is recorded of a fold.

    Raises:
        RetinaError: for a checkpoint that cannot be read or is none of an nnU-Net training.
    """
    fold_folder = folder / f"fold_{fold}"
    name = next(name for name in _CHECKPOINTS if (fold_folder / name).is_file())
    path = fold_folder / name
    stored = read_file(path)
    try:
        about = stored["init_args"].get("retina") or {}
        return TrainingRecord(
            fold=fold,
            folder=fold_folder,
            checkpoint=name,
            trainer=str(stored["trainer_name"]),
            configuration=str(stored["init_args"].get("configuration", folder.resolve().name.split("__")[-1])),
            epochs=_epochs(stored.get("logging") or {}),
            parameters=count_parameters(stored["network_weights"]),
            debug={key: str(value) for key, value in (_read_if_there(fold_folder / "debug.json") or {}).items()},
            network=_network(about.get("network")),
            version=about.get("version"),
            transfer=_transfer(fold_folder / "transfer_report.json"),
            cases=_cases(fold_folder),
            validated_on_training=validated_on_training(fold, stored["init_args"]),
        )
    except RetinaError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise RetinaError(
            f"{path} is not a checkpoint of an nnU-Net training ({type(error).__name__}: {error}). Give a model folder "
            "that nnUNetv2_train wrote"
        ) from error


def validated_on_training(fold: str, init_args: Mapping[str, Any]) -> bool:
    """Tell whether nnU-Net validates a fold on cases that it was trained on: ``all``, or a split that repeats some.

    Args:
        fold: ``all``, or a number.
        init_args: of its checkpoint; splits are in those of this package's trainers, and of data sets that fix them.
    """
    if fold == "all":
        return True
    split = (init_args.get("retina") or {}).get("settings") or {}
    if "train" not in split:
        fixed = (init_args.get("dataset_json") or {}).get("retina") or {}
        split = {str(number): entry for number, entry in enumerate(fixed.get("folds") or ())}.get(fold, {})
    return not set(split.get("train", ())).isdisjoint(split.get("val", ()))


def count_parameters(weights: Mapping[str, Tensor]) -> int:
    """Count the numbers that are learned. A tensor that nnU-Net's networks list under several names counts once."""
    sizes = {}
    for name, tensor in weights.items():
        if not name.endswith(_BUFFERS):
            sizes[tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape] = tensor.numel()
    return sum(sizes.values())


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_json(path, "Copy it again, or move it away") if path.is_file() else None


def _transfer(path: Path) -> dict[str, Any] | None:
    """Read transfer_report.json; refuse one that is not as the trainers write it."""
    report = _read_if_there(path)
    if report is None:
        return None
    lacking = [name for name in ("scope", "source", "fingerprint") if name not in report]
    lacking += [name for name in ("loaded", "fresh", "frozen") if not isinstance(report.get(name), list)]
    lacking += ["untrained"] if not isinstance(report.get("untrained", []), list) else []  # earlier reports have none
    sizes = report.get("parameters")
    numbers = [sizes.get(name) if isinstance(sizes, dict) else None for name in ("loaded", "frozen", "all")]
    lacking += [] if all(isinstance(number, int) for number in numbers) else ["parameters"]
    lacking += ["named_by"] if report.get("source") is not None and "named_by" not in report else []
    if lacking:
        raise RetinaError(
            f"{path} lacks {shorten(lacking)}, or holds something else there; expected the file as the training wrote "
            "it. Copy it again, or move it away"
        )
    return report


def _network(sizes: object) -> NetworkConfig | None:
    """Read the sizes in a checkpoint of RETINA's trainers; other trainers describe other networks there."""
    return NetworkConfig.from_dict(sizes) if isinstance(sizes, dict) and "embed_dim" in sizes else None


def _epochs(log: Mapping[str, Sequence[Any]]) -> Epochs:
    """Read nnU-Net's log; an epoch counts once all of its values are there."""
    lists = {key: list(log.get(key, ())) for key in ("train_losses", "val_losses", "lrs", "dice_per_class_or_region")}
    starts, ends = list(log.get("epoch_start_timestamps", ())), list(log.get("epoch_end_timestamps", ()))
    done = min(map(len, (*lists.values(), starts, ends)))
    return Epochs(
        train_loss=[float(value) for value in lists["train_losses"][:done]],
        val_loss=[float(value) for value in lists["val_losses"][:done]],
        pseudo_dice=[[float(value) for value in values] for values in lists["dice_per_class_or_region"][:done]],
        learning_rate=[float(value) for value in lists["lrs"][:done]],
        start=[float(value) for value in starts[:done]],
        seconds=[float(end) - float(start) for start, end in zip(starts[:done], ends[:done], strict=True)],
    )


def _cases(folder: Path) -> tuple[int, int] | None:
    """Read the numbers of training and validation cases from the newest text log that has them."""
    for path in sorted(folder.glob("training_log_*.txt"), reverse=True):
        splits = _SPLIT.findall(path.read_text(encoding="utf-8", errors="replace"))
        if splits:
            return int(splits[-1][0]), int(splits[-1][1])
    return None
