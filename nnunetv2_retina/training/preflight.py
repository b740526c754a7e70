"""Check what a training needs before nnU-Net makes a result folder; write the protocol into the plans."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_retina.errors import RetinaError
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
    check_values,
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
    if request is not None:
        raise RetinaError(
            f"--c continues a training, and -pretrained_weights {request.path} begins one. Leave one of them out"
        )


def check_nothing_to_take(request: WeightsRequest | None, trainer: str, reference: nn.Module | None) -> None:
    """Refuse ``-pretrained_weights`` for a trainer that takes none.

    Args:
        request: the option.
        trainer: its name.
        reference: its network, if there are trainers of the same network that take weights.
    """
    if request is not None:
        other = f", or use {_trainer(reference, FREEZING)}" if reference else ""
        raise RetinaError(
            f"{trainer} takes no weights file, but -pretrained_weights {request.path} was given. Leave that out{other}"
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
    check_values(fitting, reference, source)
    _check_config(checkpoint.entry(path, stored.retina, "network"), reference, source)
    _check_trained(stored.retina, scope, _trainer(reference, UNFROZEN), source)
    return stored, FileShapes({name: tuple(stored.weights[name].shape) for name in changes}, changes)


def _check_config(stated: Mapping[str, Any], reference: nn.Module, source: str) -> None:
    """Refuse a network of the same shapes that computes otherwise, as one with other attention heads does."""
    if not isinstance(reference, TransUNet):
        return
    for name, mine in reference.config.to_dict().items():
        if name not in _FITTED and stated.get(name, mine) != mine:
            raise RetinaError(
                f"{source} says that its network has {name} {stated[name]!r}; this trainer's has {mine!r}. Give "
                "weights of the same network"
            )


_FITTED = ("grid_size", "dropout")
"""Sizes of a network in which a weights file may differ."""


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


def told_of_pretraining(stored: Checkpoint) -> dict[str, Any]:
    """Return what a weights file says of how it was made, as JSON holds it.

    Raises:
        RetinaError: if it says something that no text holds.
    """
    kept = ("version", "recipe", "step", "epoch", "trained", "origin")
    try:
        return dict(json.loads(json.dumps({key: stored.retina[key] for key in kept if key in stored.retina})))
    except (TypeError, ValueError, RecursionError) as error:
        raise RetinaError(
            f"{stored.path}: what it says of its pre-training is no plain text and numbers ({error}). Save it anew, or "
            'leave out its entry "retina"'
        ) from error


def seen_in_pretraining(stored: Checkpoint, dataset: str) -> list[str]:
    """Return which images of a data set a weights file says that its pre-training saw, in words."""
    sources = checkpoint.entry(stored.path, stored.retina, "store").get("sources", ())
    if not isinstance(sources, (list, tuple, Mapping)):
        return []
    words = {dataset: "training and validation cases", f"{dataset}_test": "test cases"}
    return [text for name, text in words.items() if name in sources]
