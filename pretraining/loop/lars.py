"""LARS (You, Gitman, Ginsburg 2017) as SimCLR uses it for large batches: a tensor moves in proportion to its norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

TRUST = 0.001
"""A tensor moves by this share of its norm, times the learning rate."""


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose steps are scaled tensor by tensor (google-research/simclr, lars_optimizer.py).

    With w a tensor and g its gradient plus the weight decay: v becomes m v + lr TRUST |w| / |g| g, and w becomes w - v.
    Groups with ``adapted=False``, for norms and biases, have plain SGD with momentum.

    Args:
        groups: of parameters, with ``weight_decay`` and ``adapted`` where they differ from the defaults.
        lr: learning rate.
        momentum: m above.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.9) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "adapted": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Do one step; ``closure`` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        gradient = gradient + group["weight_decay"] * parameter
        if group["adapted"]:
            size, slope = parameter.norm(), gradient.norm()
            gradient = gradient * torch.where((size > 0) & (slope > 0), TRUST * size / slope, torch.ones_like(size))
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(group["momentum"]).add_(gradient, alpha=group["lr"])
        parameter.sub_(state["momentum_buffer"])
