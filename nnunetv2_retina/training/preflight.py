"""What a training needs, checked before nnU-Net makes a result folder; the protocol, written into the plans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_retina import folds
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.training.weights_request import WeightsRequest
from nnunetv2_retina.weights import checkpoint, transfer
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.transfer import Scope


def check_device(device: torch.device) -> None:
    """Refuse a GPU that is not there, which nnU-Net takes for granted."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RetinaError("no CUDA GPU is usable here. To train on the processor, add: -device cpu")


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


def check_channels(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], taken: tuple[int, ...], trainer: str
) -> None:
    """Refuse pre-trained weights for a data set with another number of channels than they take.

    Args:
        taken: numbers of channels that the weights can be used with.
        trainer: the one that trains the same network from random initialisation.
    """
    manager = PlansManager(plans)
    channels = determine_num_input_channels(manager, manager.get_configuration(configuration), dataset_json)
    if channels not in taken:
        words = {1: "one (grey)", 3: "three"}
        raise RetinaError(
            f"the data set has {channels} channels, but pre-trained weights take "
            f"{' or '.join(words[number] for number in taken)}. Train {trainer} from random initialisation, or convert "
            "the data set to one channel"
        )


def check_weights(request: WeightsRequest, reference: nn.Module, scope: Scope, unfrozen: str) -> Checkpoint:
    """Read the weights file that a training starts from; refuse one that nnU-Net or the transfer could not use.

    Args:
        request: the file.
        reference: the trainer's network, on any device (``meta`` will do).
        scope: what is taken and frozen.
        unfrozen: the trainer of the same network that freezes nothing, for the message.
    """
    source = f"{request.path} ({request.origin})"
    path = Path(request.path)
    if path.is_file() and path.suffix in (".npz", ".safetensors"):
        raise RetinaError(f"{source} is no PyTorch checkpoint. Run: retina_import_weights IN OUT, and give OUT")
    stored = checkpoint.load(path)
    transfer.check_compatible(stored.weights, reference, source)
    _check_trained(stored.retina, scope, unfrozen, source)
    return stored


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


def check_fold(plans: dict[str, Any], configuration: str, fold: int | str, protocol: Protocol) -> None:
    """Refuse a fold that cannot exist; make the file of splits where there is none."""
    folder = Path(str(nnUNet_preprocessed)) / plans["dataset_name"]
    data = folder / PlansManager(plans).get_configuration(configuration).data_identifier
    if not data.is_dir():
        raise RetinaError(
            f"no preprocessed data in {data}. Run: nnUNetv2_plan_and_preprocess -d {plans['dataset_name'][7:10]} "
            f"-c {configuration}"
        )
    cases = infer_dataset_class(str(data)).get_identifiers(str(data))
    folds.prepare_splits(folder, cases, protocol, fold)
