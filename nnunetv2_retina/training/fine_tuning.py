"""RETINA's fine-tuning (Xing et al. 2025): its loss, optimiser and learning rate, whatever the network."""

from __future__ import annotations

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_retina.network.dice import SquaredDiceLoss
from nnunetv2_retina.training.protocol_trainer import ProtocolTrainer
from nnunetv2_retina.training.rates import WEIGHT_DECAY, PartRates, make_optimizer
from nnunetv2_retina.weights import transfer


class FineTuningTrainer(ProtocolTrainer):
    """RETINA's fine-tuning of a network with one output, from pre-trained weights or random initialisation.

    SGD, the protocol's learning rate, momentum 0.9, weight decay 1e-4, polynomial decay 0.9 at every iteration (for
    AdamW, warm-up and slower transferred parts see ``rates``); half cross entropy with the protocol's class weights,
    half Dice, as in the released code; nnU-Net's augmentation.
    """

    dimensions = (2,)

    def _set_attributes(self) -> None:
        self.initial_lr = self.protocol.learning_rate
        self.weight_decay = WEIGHT_DECAY[self.protocol.optimiser]
        self.enable_deep_supervision = False

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """Build the network that the plans describe. nnU-Net calls this at training and prediction."""
        return cls._build_network(configuration_manager, num_input_channels, num_output_channels)

    @classmethod
    def _build_network(cls, configuration: ConfigurationManager, channels: int, classes: int) -> nn.Module:
        raise NotImplementedError

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return make_optimizer(self._plain_network().named_parameters(), self.protocol, self._is_transferred)

    def _make_schedule(self, optimizer: torch.optim.Optimizer, epochs: float) -> PolyLRScheduler:
        return PartRates(optimizer, self.protocol, epochs)

    def _is_transferred(self, name: str) -> bool:
        """Whether the tensor of this name came from pre-trained weights, when the training started."""
        scope = transfer.scope_of(self._record, self.scopes) if self._record else None
        return scope is not None and scope.takes(name)

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
