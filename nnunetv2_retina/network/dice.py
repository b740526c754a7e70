"""The two Dice losses of the published fine-tuning, to be put into nnU-Net's compound losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class SquaredDiceLoss(nn.Module):
    """1 - Dice with squared terms in the denominator, the mean over all channels, background included.

    Xing et al. 2025 (after TransUNet's ``DiceLoss``): sums run over the whole batch; 1 - (2 sum(p t) + s) / (sum(p p)
    + sum(t t) + s). Takes the arguments of nnU-Net's Dice classes. Unlike theirs it is 0 for a perfect prediction.

    Args:
        apply_nonlin: softmax over the channels, or sigmoid for regions.
        smooth: s above.
        ddp: add the sums of all processes, so that the loss is that of the whole batch.
    """

    power: ClassVar[int] = 2
    """Of the terms in the denominator."""
    first_class: ClassVar[int] = 0
    """Channels from here on count."""

    def __init__(self, apply_nonlin: Callable[[Tensor], Tensor], smooth: float = 1e-5, ddp: bool = False) -> None:
        super().__init__()
        self.apply_nonlin = apply_nonlin
        self.smooth = smooth
        self.ddp = ddp

    def forward(self, logits: Tensor, target: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, C, H, W) or (B, C, D, H, W) float.
            target: (B, 1, ...) class indices, or (B, C, ...) one-hot for regions.
            loss_mask: (B, 1, ...); pixels where it is 0 do not count.

        Returns:
            Scalar in [0, 1].
        """
        probabilities = self.apply_nonlin(logits.float())
        if target.shape != probabilities.shape:
            target = torch.zeros_like(probabilities).scatter_(1, target.long(), 1)
        target = target.to(probabilities.dtype)
        if loss_mask is not None:
            probabilities, target = probabilities * loss_mask, target * loss_mask
        axes = (0, *range(2, target.ndim))
        power = self.power
        sums = torch.stack([
            (probabilities * target).sum(axes), (probabilities**power).sum(axes), (target**power).sum(axes)
        ])[:, self.first_class :]  # fmt: skip
        overlap, predicted, wanted = _over_processes(sums) if self.ddp else sums
        dice: Tensor = ((2 * overlap + self.smooth) / (predicted + wanted + self.smooth)).mean()
        return 1 - dice


class ForegroundDiceLoss(SquaredDiceLoss):
    """1 - Dice of the foreground alone, without squares: 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    The released code's for data sets of one foreground class (BaderLab/RETINA, utils.py ``BinaryDiceLoss``), whose
    network has one output z. Two outputs a, b with softmax are the same for z = b - a: the probability of the
    foreground, this loss and the cross entropy are those of sigmoid(z), and the gradient is that at z for b, and its
    negative for a. What differs is the last layer alone: its steps move z twice as far, and z starts with twice the
    variance.
    """

    power = 1
    first_class = 1


def _over_processes(sums: Tensor) -> Tensor:
    """Add up the sums of all processes of a training; gradients flow back to each."""
    from nnunetv2.utilities.ddp_allgather import AllGatherGrad

    total: Tensor = AllGatherGrad.apply(sums).sum(0)
    return total
