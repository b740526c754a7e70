"""What a training that is continued or scored must agree with: the record and the settings in its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.protocol import EARLIER, Protocol
from nnunetv2_retina.weights import checkpoint


def has_checkpoint(plans: dict[str, Any], configuration: str, fold: int | str, trainer: str) -> bool:
    """Tell whether nnU-Net's ``--c`` will find a checkpoint; without one it begins a new training."""
    model = f"{trainer}__{plans['plans_name']}__{configuration}"
    folder = Path(str(nnUNet_results)) / plans["dataset_name"] / model / f"fold_{fold}"
    return any((folder / f"checkpoint_{name}.pth").is_file() for name in ("final", "latest", "best"))


def read_record(path: Path, trainer: str) -> dict[str, Any]:
    """Read what a training that is to be continued says of itself: ``transfer``, and mostly ``settings``.

    nnU-Net's own loader, which lets a file run code, opens it only after this.

    Raises:
        RetinaError: if the file cannot be read, or is no checkpoint of this trainer.
    """
    content = checkpoint.read_file(path)
    checkpoint.parse(path, content)
    writer = content.get("trainer_name")
    retina = checkpoint.entry(path, checkpoint.entry(path, content, "init_args"), "retina")
    missing = [name for name in _CONTINUED if name not in content]
    if writer != trainer or not isinstance(retina.get("transfer"), dict) or missing:
        what = f"it lacks {shorten(missing)}" if missing else f"it is of {writer}"
        raise RetinaError(
            f"{path} is no checkpoint that {trainer} can continue: {what}. Give the trainer of that run with -tr, or "
            "move the file away and train anew, without --c"
        )
    return retina


_CONTINUED = ("optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch", "init_args")
"""Entries of a checkpoint that nnU-Net needs to go on, beside the weights."""


def lasting_settings(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that hold for a whole training, as JSON has them: checkpoints keep them for ``--c``."""
    protocol = Protocol.from_dataset_json(dataset_json)
    planned = PlansManager(plans).get_configuration(configuration)
    settings = {
        **{name: value for name, value in asdict(protocol).items() if name not in _FREE},
        **{name: getattr(planned, name) for name in _OF_PLANS},
        "labels": dataset_json["labels"],
    }
    return dict(json.loads(json.dumps(settings)))


_FREE = frozenset({
    "checkpoints", "evaluated_classes", "inference", "mask_rule", "score_unit", "distance_tolerance", "normalisation",
    "groups", "folds", "patch_size", "batch_size", "spacing_unit", "pixel_size", "source",
})  # fmt: skip
"""Keys of the protocol that change no training: the split itself is compared, and the sizes in the plans."""
_OF_PLANS = ("patch_size", "batch_size", "spacing", "normalization_schemes")


def check_unchanged(path: Path, retina: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to continue a training under settings that differ from those in its checkpoint.

    Args:
        path: the checkpoint, for the message.
        retina: what ``read_record`` returned; checkpoints of earlier versions hold no settings and pass, or lack keys
            of the protocol, and were trained with what is their default now, or with ``EARLIER``.
        settings: today's.
    """
    changed = _changes(path, retina, settings)
    if changed:
        raise RetinaError(
            f"{path} was trained with other settings: {'; '.join(changed)}. --c continues a training as it was begun: "
            "set them back (dataset.json, plans and splits_final.json of the preprocessed data set; seed: "
            "$RETINA_SEED), or train anew, without --c"
        )


def check_scored_alike(path: Path, retina: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse ``--val`` under a split, labels or sizes that differ from the training's; see ``check_unchanged``."""
    changed = _changes(path, retina, {name: settings[name] for name in _OF_SCORES})
    if changed:
        raise RetinaError(
            f"{path} was trained with other settings: {'; '.join(changed)}. --val scores a training on the cases that "
            "it did not see, as it was begun: set them back (dataset.json, plans and splits_final.json of the "
            "preprocessed data set), or predict with retina_predict and score with retina_evaluate"
        )


_OF_SCORES = ("train", "val", "labels", "patch_size", "spacing", "normalization_schemes")


def _changes(path: Path, retina: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    earlier = checkpoint.entry(path, retina, "settings")
    if earlier:
        default = {name: value for name, value in asdict(Protocol()).items() if name not in _FREE}
        earlier = {**default, **EARLIER, **earlier}
    return [
        _difference(name, earlier[name], value)
        for name, value in settings.items()
        if name in earlier and earlier[name] != value
    ]


def _difference(name: str, earlier: Any, now: Any) -> str:
    if name in ("train", "val") and isinstance(earlier, list):
        gone, new = ([case for case in one if case not in other] for one, other in ((earlier, now), (now, earlier)))
        parts = [f"{len(part)} {verb} ({shorten(part, 3)})" for part, verb in ((gone, "gone"), (new, "new")) if part]
        return f"{name} cases: {', '.join(parts)}"
    return f"{name} was {json.dumps(earlier)}, now {json.dumps(now)}"
