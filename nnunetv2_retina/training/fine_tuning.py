"""RETINA's fine-tuning (Xing et al. 2025): its loss, optimiser and learning rate, whatever the network."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_retina.network.dice import ForegroundDiceLoss, SquaredDiceLoss
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.training.losses import CompoundLoss
from nnunetv2_retina.training.protocol_trainer import ProtocolTrainer
from nnunetv2_retina.training.rates import PartRates, clipping, make_optimizer, weight_decay
from nnunetv2_retina.weights import transfer


class FineTuningTrainer(ProtocolTrainer):
    """RETINA's fine-tuning of a network with one output, from pre-trained weights or random initialisation.

    SGD, the protocol's learning rate, momentum 0.9, weight decay 1e-4, polynomial decay 0.9 at every iteration (for
    AdamW, warm-up, other schedules and slower transferred parts see ``rates``); half cross entropy with the protocol's
    class weights, half Dice, as in the released code (see ``_build_loss``); nnU-Net's augmentation. What the released
    code does otherwise, and whether the protocol can: docs/fidelity.md.
    """

    dimensions = (2,)

    def _set_attributes(self) -> None:
        self.initial_lr = self.protocol.learning_rate
        self.weight_decay = weight_decay(self.protocol)
        if self.protocol.foreground is not None:
            self.probabilistic_oversampling = True
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
        return PartRates(optimizer, self.protocol)

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()
        if self.protocol.foreground is not None:  # of each patch by itself, so the same in every process
            self.oversample_foreground_percent = self.protocol.foreground

    def _set_train_mode(self) -> None:
        if self.protocol.frozen_dropout:
            self.network.train()
        else:
            super()._set_train_mode()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train one iteration, with the protocol's clipping in place of nnU-Net's."""
        with clipping(self.protocol.clip):
            return super().train_step(batch)

    def _report_transfer(self) -> None:
        super()._report_transfer()
        parts = ("transferred_rate", "thaw")
        idle = [name for name in parts if getattr(self.protocol, name) != getattr(Protocol, name)]
        named = self._plain_network().named_parameters()
        if idle and not any(value.requires_grad and self._is_transferred(name) for name, value in named):
            self.print_to_log_file(f"Nothing that was transferred is trained, so {' and '.join(idle)} changes nothing.")

    def _is_transferred(self, name: str) -> bool:
        """Tell whether the tensor of this name came from pre-trained weights, when the training started."""
        scope = transfer.scope_of(self._record, self.scopes) if self._record else None
        return scope is not None and scope.takes(name)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: the network has one output."""

    def _build_loss(self) -> nn.Module:
        """Build the protocol's loss: ``ForegroundDiceLoss`` is for two plain classes, and for all else, and both with
        ``loss: squared``, is ``SquaredDiceLoss``."""
        chosen = self.protocol.loss
        dice, halves = {"ddp": self.is_ddp}, (1, 0) if chosen == "cross_entropy" else (0.5, 0.5)
        if self.label_manager.has_regions:
            ignore = self.label_manager.ignore_label is not None
            regions: nn.Module = DC_and_BCE_loss({}, dice, *halves, use_ignore_label=ignore, dice_class=SquaredDiceLoss)
            return regions
        weights = self.protocol.class_weights
        ce = {"weight": torch.tensor(weights, dtype=torch.float32)} if weights is not None else {}
        ignored = self.label_manager.ignore_label
        binary = self.label_manager.num_segmentation_heads == 2
        kind = ForegroundDiceLoss if binary and chosen == "released" else SquaredDiceLoss
        loss: nn.Module = CompoundLoss(dice, ce, *halves, ignored, dice_class=kind)
        return loss.to(self.device)
