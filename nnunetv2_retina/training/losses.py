"""nnU-Net's loss of cross entropy and Dice, where it is no number for a batch in which nothing counts."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from torch import Tensor
from torch.nn import functional


class CompoundLoss(DC_and_CE_loss):
    """nnU-Net's, with its arguments; without a pixel that counts it is 0, and gradients are, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ce: Any = self.get_submodule("ce")
        if ce.weight is not None:
            self.ce = WeightedCrossEntropyLoss(ce.weight, ignore_index=ce.ignore_index)

    def forward(self, net_output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (B, C, ...) for class indices (B, 1, ...)."""
        loss = super().forward(net_output, target)
        return loss if isinstance(loss, Tensor) else net_output.sum() * 0


class WeightedCrossEntropyLoss(RobustCrossEntropyLoss):
    """PyTorch's weighted mean, which is 0 / 0 where all pixels are of classes of weight 0."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (B, C, ...) for class indices (B, ...)."""
        target = target.long()
        total = functional.cross_entropy(
            input, target, weight=self.weight, ignore_index=self.ignore_index, reduction="sum"
        )
        weights: Tensor = self.weight[target[target != self.ignore_index]]
        return total / weights.sum().clamp_min(torch.finfo(total.dtype).tiny)
