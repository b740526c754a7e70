"""Optimisers, learning rates and clipping of a fine-tuning; what was transferred may move more slowly, or later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from nnunetv2_retina.protocol import NNUNET_CLIP, Protocol

TRANSFERRED = "transferred"
"""Key of a parameter group: whether it holds what was transferred."""
_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}


def weight_decay(protocol: Protocol) -> float:
    """Return the protocol's weight decay, by default that of its optimiser."""
    return _WEIGHT_DECAY[protocol.optimiser] if protocol.weight_decay is None else protocol.weight_decay


def make_optimizer(
    named: Iterable[tuple[str, nn.Parameter]], protocol: Protocol, is_transferred: Callable[[str], bool]
) -> Optimizer:
    """Return the protocol's optimiser of the parameters that are trained.

    SGD: momentum 0.9 and weight decay on all, as published. AdamW: betas 0.9 and 0.999, decay on matrices and kernels
    alone, or on all. What was transferred has a group of its own only where its rate differs, so that checkpoints of
    trainings without such settings stay readable.

    Args:
        named: names and parameters; frozen ones are left out.
        protocol: optimiser and first learning rate.
        is_transferred: whether the parameter of this name came from pre-trained weights.
    """
    groups = _groups(named, protocol, is_transferred)
    decay = weight_decay(protocol)
    parts: list[dict[str, Any]] = [
        {"params": parameters, TRANSFERRED: transferred, "weight_decay": decay if decays else 0.0}
        for (transferred, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if protocol.optimiser == "adamw":
        return AdamW(parts, protocol.learning_rate)
    return SGD(parts, protocol.learning_rate, momentum=0.9)


def _groups(
    named: Iterable[tuple[str, nn.Parameter]], protocol: Protocol, is_transferred: Callable[[str], bool]
) -> dict[tuple[bool, bool], list[nn.Parameter]]:
    """Return the parameters that are trained, by whether they were transferred and whether they decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    all_decay = protocol.optimiser != "adamw" or protocol.decay_all
    apart = protocol.transferred_rate != 1 or protocol.thaw > 0
    for name, parameter in named:
        if parameter.requires_grad:
            decays = all_decay or (parameter.ndim > 1 and not name.endswith("pos_embed"))
            groups.setdefault((apart and is_transferred(name), decays), []).append(parameter)
    return groups


@contextmanager
def clipping(norm: float | None) -> Iterator[None]:
    """Let nnU-Net's training step, which has its norm in its code, shorten gradients to this one; None: to none."""
    if norm == NNUNET_CLIP:
        yield
        return
    utils: Any = torch.nn.utils
    clip = utils.clip_grad_norm_
    utils.clip_grad_norm_ = lambda parameters, _: None if norm is None else clip(parameters, norm)
    try:
        yield
    finally:
        utils.clip_grad_norm_ = clip


def one_cycle(iteration: int, total: int) -> tuple[float, float]:
    """Return what PyTorch's ``OneCycleLR`` sets with its defaults, at a step counted from 0.

    Returns:
        The rate as a share of the highest, and the momentum (of Adam the first beta).
    """
    top, end = 0.3 * total - 1, total - 1
    rising = iteration <= top
    done = iteration / top if rising else (iteration - top) / (end - top)
    start, stop = (1 / 25, 1.0) if rising else (1.0, 1 / 25 / 1e4)
    slow, fast = (0.95, 0.85) if rising else (0.85, 0.95)
    way = (1 - math.cos(math.pi * done)) / 2
    return start + (stop - start) * way, slow + (fast - slow) * way


class PartRates(PolyLRScheduler):
    """nnU-Net's polynomial decay or one cycle, with a warm-up, and a rate of its own for what was transferred.

    ``step`` takes the epoch, which may be a fraction.

    Args:
        optimizer: with the groups of ``make_optimizer``.
        protocol: ``learning_rate``, ``schedule``, ``schedule_iterations``, ``warmup``, ``thaw``, ``transferred_rate``.
    """

    def __init__(self, optimizer: Optimizer, protocol: Protocol) -> None:
        self.protocol = protocol
        self.total = protocol.schedule_iterations or protocol.iterations
        super().__init__(optimizer, protocol.learning_rate, self.total / protocol.iterations_per_epoch)

    def step(self, current_step: float | None = None) -> None:
        """Set the rate of every group for this epoch."""
        super().step(current_step)
        settings = self.protocol
        epoch = self.ctr - 1 if current_step is None or current_step == -1 else current_step
        iteration = round(epoch * settings.iterations_per_epoch)
        if settings.schedule == "onecycle":
            self._set_one_cycle(iteration)
        done, one = iteration / settings.iterations, 1 / settings.iterations
        rising = min(1.0, (done + one) / settings.warmup) if settings.warmup else 1.0
        transferred = 0.0 if done < settings.thaw else settings.transferred_rate
        for group in self.optimizer.param_groups:
            group["lr"] *= rising * (transferred if group.get(TRANSFERRED) else 1.0)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _set_one_cycle(self, iteration: int) -> None:
        share, momentum = one_cycle(min(iteration, self.total - 1), self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.protocol.learning_rate * share
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
