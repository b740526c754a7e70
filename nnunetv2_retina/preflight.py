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

from nnunetv2_retina import checkpoint, folds, transfer
from nnunetv2_retina.checkpoint import Checkpoint
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.transfer import Scope
from nnunetv2_retina.weights_option import WeightsRequest


def check_device(device: torch.device) -> None:
    """Refuse a GPU that is not there, which nnU-Net takes for granted."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RetinaError("no CUDA GPU is usable here. To train on the processor, add: -device cpu")


def write_protocol_into(plans: dict[str, Any], configuration: str, protocol: Protocol, config: NetworkConfig) -> None:
    """Put patch and batch size and the network into the plans, which nnU-Net saves and predicts with."""
    resolved = PlansManager(plans).get_configuration(configuration)
    if len(resolved.patch_size) != 2:
        raise RetinaError(
            f"configuration {configuration} has {len(resolved.patch_size)}D patches; the TransUNet is two-dimensional. "
            "Train configuration 2d: volumes are then predicted slice by slice"
        )
    plans["configurations"][configuration].update(
        patch_size=[protocol.patch_size, protocol.patch_size],
        batch_size=protocol.batch_size,
        architecture={
            "network_class_name": "nnunetv2_retina.network.TransUNet",
            "arch_kwargs": {"config": config.to_dict()},
            "_kw_requires_import": [],
        },
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


def check_channels(plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
    """Refuse pre-trained weights, whose stem takes three channels (grey is repeated), for another number of them."""
    manager = PlansManager(plans)
    channels = determine_num_input_channels(manager, manager.get_configuration(configuration), dataset_json)
    if channels not in (1, 3):
        raise RetinaError(
            f"the data set has {channels} channels, but pre-trained weights take one (grey) or three. Train "
            "nnUNetTrainerTransUNet from random initialisation, or convert the data set to one channel"
        )


def check_weights(request: WeightsRequest, config: NetworkConfig, scope: Scope) -> Checkpoint:
    """Read the weights file that a training starts from; refuse one that nnU-Net or the transfer could not use."""
    source = f"{request.path} ({request.origin})"
    path = Path(request.path)
    if path.is_file() and path.suffix in (".npz", ".safetensors"):
        raise RetinaError(f"{source} is no PyTorch checkpoint. Run: retina_import_weights IN OUT, and give OUT")
    stored = checkpoint.load(path)
    with torch.device("meta"):
        reference = TransUNet(1, 1, config)
    transfer.check_compatible(stored.weights, reference, source)
    _check_trained(stored.retina, scope, config, source)
    return stored


def _check_trained(retina: Mapping[str, Any], scope: Scope, config: NetworkConfig, source: str) -> None:
    """Refuse to freeze what the weights file holds at its random initialisation."""
    trained = transfer.trained_prefixes(retina)
    untrained = [prefix for prefix in scope.frozen if not prefix.startswith(trained)]
    if untrained:
        suffix = "" if config.name in (None, "retina") else f"_{config.name}"
        raise RetinaError(
            f"{source} holds trained values of {', '.join(trained)} alone, but scope {scope.name} takes and freezes "
            f"{', '.join(untrained)}, which would stay random. Use nnUNetTrainerRETINA_full{suffix}, which freezes "
            "nothing, or weights that were trained there"
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
