"""nnU-Net trainers of the 2D TransUNet with transferred, frozen transformer blocks (Xing et al. 2025, Fine-tuning).

Variants are class attributes under names of their own, because nnU-Net's trainers take no further arguments. nnU-Net
finds the classes through ``nnunetv2_retina.registration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.protocol import FEW_LABELS
from nnunetv2_retina.training.fine_tuning import FineTuningTrainer
from nnunetv2_retina.weights import transfer

__all__ = [
    "nnUNetTrainerRETINA",
    "nnUNetTrainerRETINA_base",
    "nnUNetTrainerRETINA_encoder",
    "nnUNetTrainerRETINA_encoder_base",
    "nnUNetTrainerRETINA_encoder_tiny",
    "nnUNetTrainerRETINA_few",
    "nnUNetTrainerRETINA_full",
    "nnUNetTrainerRETINA_full_base",
    "nnUNetTrainerRETINA_full_tiny",
    "nnUNetTrainerRETINA_random_blocks",
    "nnUNetTrainerRETINA_random_blocks_tiny",
    "nnUNetTrainerRETINA_tiny",
    "nnUNetTrainerTransUNet",
    "nnUNetTrainerTransUNet_base",
    "nnUNetTrainerTransUNet_tiny",
]


class nnUNetTrainerRETINA(FineTuningTrainer):
    """2D TransUNet of size ``retina`` whose transformer blocks come from pre-training and stay frozen.

    Iterations, batch and patch size, class weights and learning rate come from ``dataset.json["retina"]``; the rest is
    RETINA's fine-tuning, see ``FineTuningTrainer``.

    Raises:
        RetinaError: before any folder is made, for a wrong protocol, weights file, fold, configuration or device.
    """

    system = "RETINA"
    network_name = "the TransUNet"
    network_size = "retina"
    transfer_scope: ClassVar[str | None] = "transformer"
    scopes = transfer.SCOPES

    @classmethod
    def _build_network(cls, configuration: ConfigurationManager, channels: int, classes: int) -> TransUNet:
        config = NetworkConfig.from_dict(configuration.network_arch_init_kwargs["config"])
        return TransUNet(channels, classes, config)

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        return {
            "architecture": {
                "network_class_name": "nnunetv2_retina.network.TransUNet",
                "arch_kwargs": {"config": NetworkConfig.named(self.network_size).to_dict()},
                "_kw_requires_import": [],
            }
        }

    def _reference_network(self, channels: int = 1) -> TransUNet:
        with torch.device("meta"):
            return TransUNet(channels, 1, NetworkConfig.named(self.network_size))


class nnUNetTrainerRETINA_encoder(nnUNetTrainerRETINA):
    """Takes the whole encoder and freezes the transformer: what the authors' released code does."""

    transfer_scope = "encoder"


class nnUNetTrainerRETINA_full(nnUNetTrainerRETINA):
    """Takes all but the head and freezes nothing."""

    transfer_scope = "full"


class nnUNetTrainerRETINA_few(nnUNetTrainerRETINA_full):
    """For few labelled images, with or without a GPU: size ``tiny``, from the weights in the package, nothing frozen.

    What differs from the paper won in docs/study.md, "Few labels" (after 200 iterations; here 400 are usual). The data
    set's own settings come first.
    """

    network_size = "tiny"
    usual: ClassVar[Mapping[str, Any]] = {**FEW_LABELS, "iterations": 400, "batch_size": 4}


class nnUNetTrainerRETINA_random_blocks(nnUNetTrainerRETINA):
    """A control of studies: what ``nnUNetTrainerRETINA_encoder`` does, with frozen blocks of random numbers."""

    transfer_scope = "random blocks"


class nnUNetTrainerTransUNet(nnUNetTrainerRETINA):
    """The same network and training from random initialisation; ``$RETINA_WEIGHTS`` is not read."""

    transfer_scope = None


class nnUNetTrainerRETINA_base(nnUNetTrainerRETINA):
    """Size ``base``: the published pre-training script's, and the ImageNet checkpoints'."""

    network_size = "base"


class nnUNetTrainerRETINA_encoder_base(nnUNetTrainerRETINA_encoder):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerRETINA_full_base(nnUNetTrainerRETINA_full):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerTransUNet_base(nnUNetTrainerTransUNet):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerRETINA_tiny(nnUNetTrainerRETINA):
    """Size ``tiny``: for trying things out and for tests."""

    network_size = "tiny"


class nnUNetTrainerRETINA_encoder_tiny(nnUNetTrainerRETINA_encoder):
    """Size ``tiny``."""

    network_size = "tiny"


class nnUNetTrainerRETINA_full_tiny(nnUNetTrainerRETINA_full):
    """Size ``tiny``."""

    network_size = "tiny"


class nnUNetTrainerRETINA_random_blocks_tiny(nnUNetTrainerRETINA_random_blocks):
    """Size ``tiny``."""

    network_size = "tiny"


class nnUNetTrainerTransUNet_tiny(nnUNetTrainerTransUNet):
    """Size ``tiny``."""

    network_size = "tiny"
