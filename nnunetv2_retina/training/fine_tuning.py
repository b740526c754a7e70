"""RETINA's fine-tuning (Xing et al. 2025): its loss, optimiser and learning rate, whatever the network."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from torch import nn

from nnunetv2_retina.network.dice import SquaredDiceLoss
from nnunetv2_retina.training.protocol_trainer import ProtocolTrainer


class FineTuningTrainer(ProtocolTrainer):
    """RETINA's fine-tuning of a network with one output, from pre-trained weights or random initialisation.

    SGD, the protocol's learning rate, momentum 0.9, weight decay 1e-4, polynomial decay 0.9 at every iteration; half
    cross entropy with the protocol's class weights, half Dice, as in the released code; nnU-Net's augmentation.
    """

    dimensions = (2,)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.protocol.learning_rate
        self.weight_decay = 1e-4
        self.enable_deep_supervision = False

    def _make_optimizer(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, self.initial_lr, momentum=0.9, weight_decay=self.weight_decay)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: the network has one output."""

    def _build_loss(self) -> nn.Module:
        dice = {"ddp": self.is_ddp}
        if self.label_manager.has_regions:
            ignore = self.label_manager.ignore_label is not None
            regions: nn.Module = DC_and_BCE_loss(
                {}, dice, 0.5, 0.5, use_ignore_label=ignore, dice_class=SquaredDiceLoss
            )
            return regions
        weights = self.protocol.class_weights
        ce = {"weight": torch.tensor(weights, dtype=torch.float32)} if weights is not None else {}
        ignored = self.label_manager.ignore_label
        loss: nn.Module = DC_and_CE_loss(dice, ce, 0.5, 0.5, ignored, dice_class=SquaredDiceLoss)
        return loss.to(self.device)
