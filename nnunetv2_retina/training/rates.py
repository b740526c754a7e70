"""Learning rates of the parts of a network: what was transferred may move more slowly, or later, than the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from nnunetv2_retina.protocol import Protocol

TRANSFERRED = "transferred"
"""Key of a parameter group: whether it holds what was transferred."""
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}


def make_optimizer(
    named: Iterable[tuple[str, nn.Parameter]], protocol: Protocol, is_transferred: Callable[[str], bool]
) -> Optimizer:
    """Return the protocol's optimiser of the parameters that are trained.

    SGD: momentum 0.9 and weight decay on all, as published. AdamW: betas 0.9 and 0.999, decay on matrices and kernels
    alone. What was transferred has a group of its own only where its rate differs, so that checkpoints of trainings
    without such settings stay readable.

    Args:
        named: names and parameters; frozen ones are left out.
        protocol: optimiser and first learning rate.
        is_transferred: whether the parameter of this name came from pre-trained weights.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    adamw = protocol.optimiser == "adamw"
    apart = protocol.transferred_rate != 1 or protocol.thaw > 0
    for name, parameter in named:
        if parameter.requires_grad:
            decays = not adamw or (parameter.ndim > 1 and not name.endswith("pos_embed"))
            groups.setdefault((apart and is_transferred(name), decays), []).append(parameter)
    decay = WEIGHT_DECAY[protocol.optimiser]
    parts: list[dict[str, Any]] = [
        {"params": parameters, TRANSFERRED: transferred, "weight_decay": decay if decays else 0.0}
        for (transferred, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if adamw:
        return AdamW(parts, protocol.learning_rate)
    return SGD(parts, protocol.learning_rate, momentum=0.9)


class PartRates(PolyLRScheduler):
    """nnU-Net's polynomial decay, with a warm-up, and a rate of its own for what was transferred.

    Args:
        optimizer: with the groups of ``make_optimizer``.
        protocol: ``learning_rate``, ``warmup``, ``thaw`` and ``transferred_rate``.
        epochs: length of the training, which may be a fraction; ``step`` takes the epoch likewise.
    """

    def __init__(self, optimizer: Optimizer, protocol: Protocol, epochs: float) -> None:
        self.protocol = protocol
        super().__init__(optimizer, protocol.learning_rate, epochs)

    def step(self, current_step: float | None = None) -> None:
        """Set the rate of every group for this epoch."""
        super().step(current_step)
        done = (self.ctr - 1 if current_step in (None, -1) else current_step) / self.max_steps
        settings = self.protocol
        one = 1 / settings.iterations
        rising = min(1.0, (done + one) / settings.warmup) if settings.warmup else 1.0
        transferred = 0.0 if done < settings.thaw else settings.transferred_rate
        for group in self.optimizer.param_groups:
            group["lr"] *= rising * (transferred if group.get(TRANSFERRED) else 1.0)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
