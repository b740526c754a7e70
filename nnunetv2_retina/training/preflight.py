"""Check what a training needs before nnU-Net makes a result folder; write the protocol into the plans."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.network import TransUNet
from nnunetv2_retina.protocol import Protocol, folds
from nnunetv2_retina.protocol.folds import Split
from nnunetv2_retina.training.weights_request import WeightsRequest
from nnunetv2_retina.weights import checkpoint, transfer
from nnunetv2_retina.weights.adaptation import adapted
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.compatibility import (
    FREEZING,
    UNFROZEN,
    Network,
    check_compatible,
    network_of,
    shapes_of,
)
from nnunetv2_retina.weights.transfer import Scope


def check_start(protocol: Protocol, network: nn.Module | None, name: str) -> None:
    """Refuse what only a 2D TransUNet can begin with."""
    for key in ("positions", "attention"):
        value = getattr(protocol, key)
        if value != getattr(Protocol(), key) and not isinstance(network, TransUNet):
            raise RetinaError(
                f"{key} is {value!r}, which only a 2D TransUNet can begin with; this is {name}. Leave it out"
            )


def check_device(device: torch.device) -> None:
    """Refuse a GPU that does not exist, which nnU-Net takes for granted."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RetinaError("no CUDA GPU is usable here. To train on the processor, add: -device cpu")


def check_environment() -> None:
    """Refuse a number of processes that nnU-Net would stop at in the middle of its start."""
    text = os.environ.get("nnUNet_n_proc_DA", "0")
    if not text.strip().isdecimal():
        raise RetinaError(f"$nnUNet_n_proc_DA is {text!r}; expected a whole number from 0. Correct it, or unset it")


def check_dataset_json(contents: Mapping[str, Any]) -> None:
    """Refuse a ``dataset.json`` without an entry that nnU-Net takes for granted."""
    missing = [name for name in ("labels", "file_ending", "channel_names") if name not in contents]
    if missing and not (missing == ["channel_names"] and "modality" in contents):
        raise RetinaError(
            f"the data set's dataset.json has no {' and no '.join(missing)}. Correct the one in the raw data set, and "
            "run nnUNetv2_plan_and_preprocess again"
        )


_SHAPES = {2: "two-dimensional", 3: "three-dimensional"}
_REMEDIES = {
    2: "Train configuration 2d: volumes are then predicted slice by slice",
    3: "Train configuration 3d_fullres, or a 2D trainer",
}


def check_dimensions(plans: dict[str, Any], configuration: str, dimensions: tuple[int, ...], network: str) -> None:
    """Refuse a configuration that the plans do not have, or whose patches the network does not take."""
    if configuration not in plans["configurations"]:
        raise RetinaError(
            f"the plans of {plans['dataset_name']} have no configuration {configuration}, but "
            f"{', '.join(plans['configurations'])}. Choose one of these; data sets of 2D images have no 3D ones"
        )
    axes = len(PlansManager(plans).get_configuration(configuration).patch_size)
    if axes not in dimensions:
        (fits,) = dimensions
        raise RetinaError(
            f"configuration {configuration} has {axes}D patches; {network} is {_SHAPES[fits]}. {_REMEDIES[fits]}"
        )


def write_sizes_into(plans: dict[str, Any], configuration: str, protocol: Protocol) -> None:
    """Put the protocol's patch and batch size into the plans of a 2D configuration, which nnU-Net saves."""
    if len(PlansManager(plans).get_configuration(configuration).patch_size) == 2:
        plans["configurations"][configuration].update(
            patch_size=[protocol.patch_size, protocol.patch_size], batch_size=protocol.batch_size
        )


def check_class_weights(labels: LabelManager, weights: tuple[float, ...] | None) -> None:
    """Refuse class weights that do not fit the labels, or go with regions."""
    if weights is None:
        return
    if labels.has_regions:
        raise RetinaError(
            'dataset.json, block "retina": class_weights cannot be used with region-based training, where a pixel has '
            "several classes. Remove them"
        )
    if len(weights) != labels.num_segmentation_heads:
        raise RetinaError(
            f'dataset.json, block "retina": class_weights has {len(weights)} entries, but there are '
            f"{labels.num_segmentation_heads} classes, background included. Give one weight a class"
        )


def check_nothing_to_load(request: WeightsRequest | None) -> None:
    """Refuse weights for a training that is continued, before nnU-Net makes a folder and refuses them itself."""
    if request is not None and request.loaded_by_nnunet:
        raise RetinaError(
            f"--c continues a training, and -pretrained_weights {request.path} begins one. Leave one of them out"
        )


def check_nothing_to_take(request: WeightsRequest | None, trainer: str, reference: nn.Module | None) -> None:
    """Refuse ``-pretrained_weights`` for a trainer that takes none.

    Args:
        request: the weights that were asked for.
        trainer: its name.
        reference: its network, if there are trainers of the same network that take weights.
    """
    if request is not None and request.loaded_by_nnunet:
        other = f", or use {_trainer(reference, FREEZING)}" if reference else ""
        raise RetinaError(
            f"{trainer} trains from random initialisation, but -pretrained_weights {request.path} was given. Leave "
            f"that out{other}"
        )


def count_channels(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> int:
    """Return how many channels the images of a data set have."""
    manager = PlansManager(plans)
    return int(determine_num_input_channels(manager, manager.get_configuration(configuration), dataset_json))


class FileShapes(NamedTuple):
    """What of a weights file is made to fit."""

    shapes: dict[str, tuple[int, ...]]
    """Name -> shape in the file."""
    changes: dict[str, str]
    """Name -> what is done, in words."""


def check_weights(request: WeightsRequest, reference: nn.Module, scope: Scope) -> tuple[Checkpoint, FileShapes]:
    """Read the weights file that a training starts from; refuse one that nnU-Net or the transfer could not use.

    nnU-Net's own loader, which lets a file run code, opens it only after this.

    Args:
        request: the file.
        reference: the trainer's network for the data set's channels, on any device (``meta`` will do).
        scope: what is taken and frozen.

    Returns:
        The file's contents, and what of it is made to fit the network.
    """
    source = f"{request.path} ({request.origin})"
    path = Path(request.path)
    if path.is_file() and path.suffix in (".npz", ".safetensors"):
        raise RetinaError(f"{source} is no PyTorch checkpoint. Run: retina_import_weights IN OUT, and give OUT")
    stored = checkpoint.load(path)
    fitting, changes = adapted(stored.weights, shapes_of(reference.state_dict()))
    check_compatible(fitting, reference, source)
    _check_trained(stored.retina, scope, _trainer(reference, UNFROZEN), source)
    return stored, FileShapes({name: tuple(stored.weights[name].shape) for name in changes}, changes)


def _network(reference: nn.Module) -> Network:
    network = network_of(reference.state_dict())
    assert network is not None
    return network


def _trainer(reference: nn.Module, which: int) -> str:
    return _network(reference).trainer(shapes_of(reference.state_dict()), which)


def _check_trained(retina: Mapping[str, Any], scope: Scope, unfrozen: str, source: str) -> None:
    """Refuse to freeze what the weights file holds at its random initialisation."""
    trained = transfer.trained_prefixes(retina)
    untrained = [prefix for prefix in scope.frozen if not prefix.startswith(trained)]
    if untrained:
        raise RetinaError(
            f"{source} holds trained values of {', '.join(trained)} alone, but scope {scope.name} takes and freezes "
            f"{', '.join(untrained)}, which would stay random. Use {unfrozen}, which freezes nothing, or weights that "
            "were trained there"
        )


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
_BEFORE = {"loss": "squared"}
"""What trainings did before there was a key for it, where that is not the key's default."""
_OF_PLANS = ("patch_size", "batch_size", "spacing", "normalization_schemes")


def check_unchanged(path: Path, retina: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to continue a training under settings that differ from those in its checkpoint.

    Args:
        path: the checkpoint, for the message.
        retina: what ``read_record`` returned; checkpoints of earlier versions hold no settings and pass, or lack keys
            of the protocol, and were trained with what is their default now, or with ``_BEFORE``.
        settings: today's.
    """
    earlier = checkpoint.entry(path, retina, "settings")
    if earlier:
        default = {name: value for name, value in asdict(Protocol()).items() if name not in _FREE}
        earlier = {**default, **_BEFORE, **earlier}
    changed = [
        _difference(name, earlier[name], value)
        for name, value in settings.items()
        if name in earlier and earlier[name] != value
    ]
    if changed:
        raise RetinaError(
            f"{path} was trained with other settings: {'; '.join(changed)}. --c continues a training as it was begun: "
            "set them back (dataset.json, plans and splits_final.json of the preprocessed data set; seed: "
            "$RETINA_SEED), or train anew, without --c"
        )


def _difference(name: str, earlier: Any, now: Any) -> str:
    if name in ("train", "val") and isinstance(earlier, list):
        gone, new = ([case for case in one if case not in other] for one, other in ((earlier, now), (now, earlier)))
        parts = [f"{len(part)} {verb} ({shorten(part, 3)})" for part, verb in ((gone, "gone"), (new, "new")) if part]
        return f"{name} cases: {', '.join(parts)}"
    return f"{name} was {json.dumps(earlier)}, now {json.dumps(now)}"


def check_fold(plans: dict[str, Any], configuration: str, fold: int | str, protocol: Protocol) -> Split:
    """Refuse a fold that cannot exist; write the file of splits if there is none. Return the fold's cases."""
    folder = Path(str(nnUNet_preprocessed)) / plans["dataset_name"]
    data = folder / PlansManager(plans).get_configuration(configuration).data_identifier
    if not data.is_dir():
        raise RetinaError(
            f"no preprocessed data in {data}. Run: nnUNetv2_plan_and_preprocess -d {plans['dataset_name'][7:10]} "
            f"-c {configuration}"
        )
    cases = sorted(infer_dataset_class(str(data)).get_identifiers(str(data)))
    return folds.prepare_splits(folder, cases, protocol, fold)


def seen_in_pretraining(stored: Checkpoint, dataset: str) -> list[str]:
    """Return which images of a data set a weights file says that its pre-training saw, in words."""
    sources = (stored.retina.get("store") or {}).get("sources", ())
    words = {dataset: "training and validation cases", f"{dataset}_test": "test cases"}
    return [text for name, text in words.items() if name in sources]
