"""The systems that RETINA is compared with, as nnU-Net trainers under the same protocol (Xing et al. 2025, Table 1).

Same data, folds, seeds, iterations and checkpoints; the U-Nets and TransUNets also have the protocol's loss, optimiser,
learning rate and crops, RETINA's by default, ``nnUNetTrainerProtocol`` has nnU-Net's. For the UNet-ResNet50
``studies/paper.yaml`` sets those of its authors, AdamW and one cycle: RETINA's SGD cripples it. nnU-Net at
its own length is ``nnUNetTrainer`` itself; the 2D TransUNet from random initialisation is ``nnUNetTrainerTransUNet``,
in ``trainers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.efficientnet import EfficientNetUNet, library_network
from nnunetv2_retina.network.transunet3d import TRANSFORMERS, TransUNet3D, total_strides
from nnunetv2_retina.network.unet_resnet50 import ENCODER, UNetResNet50
from nnunetv2_retina.training.fine_tuning import FineTuningTrainer
from nnunetv2_retina.training.protocol_trainer import ProtocolTrainer
from nnunetv2_retina.weights import checkpoint, transfer
from nnunetv2_retina.weights.efficientnet import IMAGENET, imagenet_encoder
from nnunetv2_retina.weights.transfer import Scope

__all__ = [
    "nnUNetTrainerImageNetUNet",
    "nnUNetTrainerProtocol",
    "nnUNetTrainerTransUNet3D",
    "nnUNetTrainerTransUNet3D_tiny",
    "nnUNetTrainerUNetResNet50",
    "nnUNetTrainerUNetResNet50_frozen",
    "nnUNetTrainerUNetResNet50_frozen_random",
]

PLAIN_UNET = "PlainConvUNet"
"""nnU-Net's default network, whose plans are planned again or extended here."""
_TRANSUNET_3D = f"{TransUNet3D.__module__}.{TransUNet3D.__qualname__}"


class nnUNetTrainerUNetResNet50(FineTuningTrainer):
    """2D U-Net with a ResNet-50 encoder from random initialisation; ``$RETINA_WEIGHTS`` is not read."""

    system = network_name = "the UNet-ResNet50"
    scopes = transfer.UNET_SCOPES

    @classmethod
    def _build_network(cls, configuration: ConfigurationManager, channels: int, classes: int) -> UNetResNet50:
        return UNetResNet50(channels, classes)

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        self._reference_network()  # says that its library is missing before nnU-Net makes a folder
        return {
            "architecture": {
                "network_class_name": "nnunetv2_retina.network.unet_resnet50.UNetResNet50",
                "arch_kwargs": {},
                "_kw_requires_import": [],
            }
        }

    def _reference_network(self, channels: int = 1) -> UNetResNet50:
        with torch.device("meta"):
            return UNetResNet50(channels, 1)


class nnUNetTrainerUNetResNet50_frozen(nnUNetTrainerUNetResNet50):
    """The encoder comes from pre-training (CEM500K's MoCo v2) and stays frozen; the decoder trains.

    As in volume-em/cem-dataset (evaluation/finetune.py, ``finetune_layer: none``), where no parameter of the encoder is
    trained, but its batch norms normalise by the batch and go on adapting their running statistics.
    """

    system = "the frozen UNet-ResNet50"
    transfer_scope = "encoder"

    def _set_train_mode(self) -> None:
        self.network.train()


class nnUNetTrainerUNetResNet50_frozen_random(nnUNetTrainerUNetResNet50):
    """The encoder stays frozen at its random initialisation: what the frozen one owes to its decoder alone."""

    system = "the UNet-ResNet50, frozen at random"
    frozen_at_random = (ENCODER,)

    def _set_train_mode(self) -> None:
        self.network.train()


class nnUNetTrainerImageNetUNet(FineTuningTrainer):
    """2D U-Net whose encoder is EfficientNet-Lite0 with its ImageNet weights: what distillation learns from, itself.

    ``transferred_rate`` and ``thaw`` hold for the encoder; ``$RETINA_WEIGHTS`` is not read.

    Raises:
        RetinaError: also without the extra ``distil``, or for images of other than 1 or 3 channels.
    """

    system = network_name = "the ImageNet U-Net"
    scopes: ClassVar[Mapping[str, Scope]] = {"encoder": Scope("encoder", ("encoder.",), ())}

    @classmethod
    def _build_network(cls, configuration: ConfigurationManager, channels: int, classes: int) -> EfficientNetUNet:
        return EfficientNetUNet(channels, classes)

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        library_network()  # says that it is missing before nnU-Net makes a folder
        return {
            "architecture": {
                "network_class_name": f"{EfficientNetUNet.__module__}.{EfficientNetUNet.__qualname__}",
                "arch_kwargs": {},
                "_kw_requires_import": [],
            }
        }

    def _plan_transfer(self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> dict[str, Any]:
        record = super()._plan_transfer(plans, configuration, dataset_json)
        fingerprint = checkpoint.fingerprint(imagenet_encoder().state_dict())
        return record | {"scope": "encoder", "source": IMAGENET, "named_by": "by itself", "fingerprint": fingerprint}

    def initialize(self) -> None:
        """Build everything, then load the encoder's weights; those of a checkpoint come after."""
        super().initialize()
        network = self._plain_network()
        assert isinstance(network, EfficientNetUNet), "built above"
        network.encoder.load_state_dict(imagenet_encoder().state_dict())


class nnUNetTrainerTransUNet3D(FineTuningTrainer):
    """3D TransUNet from random initialisation, in the patch and batch size that nnU-Net planned.

    Raises:
        RetinaError: also for plans of another network than nnU-Net's ``PlainConvUNet``.
    """

    system = network_name = "the 3D TransUNet"
    dimensions = (3,)
    network_size = "base"

    @classmethod
    def _build_network(cls, configuration: ConfigurationManager, channels: int, classes: int) -> nn.Module:
        # Whatever module the plans name: it was another one in earlier versions.
        arguments = configuration.network_arch_init_kwargs, configuration.network_arch_init_kwargs_req_import
        network: nn.Module = get_network_from_plans(
            _TRANSUNET_3D, *arguments, channels, classes, deep_supervision=False
        )
        return network

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        planned = plain_unet(configuration, type(self).__name__)
        strides = total_strides(planned["arch_kwargs"]["strides"])
        grid = [-(-side // stride) for side, stride in zip(configuration.patch_size, strides, strict=True)]
        more = {"transformer": dict(TRANSFORMERS[self.network_size]), "grid": grid}
        return {
            "architecture": planned
            | {"network_class_name": _TRANSUNET_3D, "arch_kwargs": planned["arch_kwargs"] | more}
        }


class nnUNetTrainerTransUNet3D_tiny(nnUNetTrainerTransUNet3D):
    """With a tiny transformer: for tests."""

    network_size = "tiny"


class nnUNetTrainerProtocol(ProtocolTrainer):
    """nnU-Net itself under the protocol: its network, loss, deep supervision, optimiser and learning rate.

    In 2D it has the protocol's patch and batch size, and the U-Net is planned again for that patch, by nnU-Net's rules.
    Class weights, loss, optimiser, rates, clipping and foreground patches of the protocol belong to RETINA's
    fine-tuning and are not used.

    Raises:
        RetinaError: also in 2D, for plans of another network than nnU-Net's ``PlainConvUNet``.
    """

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        if len(configuration.patch_size) == 3:
            return {}
        return plan_unet_2d(configuration, plain_unet(configuration, type(self).__name__))


def plain_unet(configuration: ConfigurationManager, trainer: str) -> dict[str, Any]:
    """Return the plans' architecture.

    Raises:
        RetinaError: if it is no ``PlainConvUNet``.
    """
    name = configuration.network_arch_class_name
    if name.rsplit(".", 1)[-1] != PLAIN_UNET:
        raise RetinaError(
            f"the plans are of a {name.rsplit('.', 1)[-1]}, but {trainer} builds on a {PLAIN_UNET}. Give nnU-Net's "
            "default plans: -p nnUNetPlans"
        )
    return dict(configuration.configuration["architecture"])


def plan_unet_2d(configuration: ConfigurationManager, architecture: dict[str, Any]) -> dict[str, Any]:
    """Plan nnU-Net's U-Net for the configuration's patch size, as its ``ExperimentPlanner`` does.

    Source: nnunetv2/experiment_planning/experiment_planners/default_experiment_planner.py, nnunetv2 2.8.1: feature maps
    of at least 4 x 4, 32 features doubled at each stage up to 512, two convolutions a stage.

    Args:
        configuration: of 2D patches.
        architecture: what the plans have, of which kernel types, norms and the like are kept.

    Returns:
        ``patch_size``, enlarged to a multiple of the network's stride if it is not one, and ``architecture``.
    """
    patch = list(configuration.patch_size)
    _, strides, kernels, patch_size, _ = get_pool_and_conv_props(configuration.spacing, patch, 4, 999999)
    stages = len(strides)
    topology = {
        "n_stages": stages,
        "features_per_stage": [min(512, 32 * 2**stage) for stage in range(stages)],
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    return {
        "patch_size": [int(side) for side in patch_size],
        "architecture": architecture | {"arch_kwargs": architecture["arch_kwargs"] | topology},
    }
