"""The settings of a pre-training: what defines its result, and how it is carried out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.network import SIZES, NetworkConfig
from pretraining.augmentation.views import AugmentationSettings

ARMS = ("reconstruction", "mae", "simclr")
POWER = 0.9
"""Of the polynomial decay of the learning rate, stepped every iteration."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What defines the weights. The defaults are the published recipe (Xing et al. 2025; BaderLab/RETINA), which holds
    for the network size ``base`` there and ``retina`` here: see the README.

    Raises:
        RetinaError: with every problem of the values.
    """

    size: str = "retina"
    """Of the network: retina, base or tiny."""
    arm: str = "reconstruction"
    """reconstruction (the paper's), mae (transformer alone) or simclr (CNN alone)."""
    epochs: float = 200
    """How often every image is seen; not used if ``iterations`` is given."""
    iterations: int | None = None
    """Optimiser steps."""
    batch_size: int = 256
    """Images a step, over all processes together."""
    learning_rate: float = 0.003
    """At the first step; it falls to 0 with power 0.9."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    """Of initialisation, order, augmentation and dropout."""
    balance: float = 0.0
    """Gamma: an image of a source with n images is drawn with weight n^-gamma. 0: every image once an epoch."""
    exclude: tuple[str, ...] = ()
    """Patterns (``*`` and ``?``) of image names that are left out."""
    masked_loss: bool = False
    """Count only pixels that were changed."""
    skip_drop: float = 0.0
    """Probability with which a skip connection of an image is dropped."""
    init: str | None = None
    """Fingerprint of the weights to start from; None: random initialisation."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        problems = [text for text in self._problems() if text]
        if problems:
            raise RetinaError(f"settings of the pre-training: {'; '.join(problems)}. Correct them")

    def _problems(self) -> list[str | None]:
        return [
            None if self.size in SIZES else f"size is {self.size!r}; expected one of {', '.join(SIZES)}",
            None if self.arm in ARMS else f"arm is {self.arm!r}; expected one of {', '.join(ARMS)}",
            _above(0, epochs=self.epochs),
            _above(0, iterations=1 if self.iterations is None else self.iterations),
            _above(0, batch_size=self.batch_size),
            _above(0, learning_rate=self.learning_rate),
            None if 0 <= self.momentum < 1 else f"momentum is {self.momentum}; expected 0 to below 1",
            None if self.weight_decay >= 0 else f"weight_decay is {self.weight_decay}; expected 0 or more",
            None if 0 <= self.seed < 2**63 else f"seed is {self.seed}; expected 0 to 2^63 - 1",
            None if 0 <= self.balance <= 1 else f"balance is {self.balance}; expected 0 to 1",
            None if 0 <= self.skip_drop < 1 else f"skip_drop is {self.skip_drop}; expected 0 to below 1",
            None
            if self.arm == "reconstruction" or not (self.masked_loss or self.skip_drop)
            else f"masked_loss and skip_drop belong to the arm reconstruction, not to {self.arm}",
        ]

    @property
    def network(self) -> NetworkConfig:
        """Sizes of the network."""
        return NetworkConfig.named(self.size)

    def total_iterations(self, images: int) -> int:
        """Optimiser steps of the whole run, for so many training images; the last step may begin another epoch."""
        return self.iterations or max(1, math.ceil(self.epochs * images / self.batch_size - 1e-9))

    def learning_rate_at(self, iteration: int, total: int) -> float:
        """Learning rate of an optimiser step, counted from 0."""
        return self.learning_rate * (1 - iteration / total) ** POWER

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, for checkpoints and JSON files."""
        values = asdict(self) | {"augmentation": self.augmentation.to_dict()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Where another run's ``to_dict`` differs from this one's, in words."""
        mine = self.to_dict()
        names = [field.name for field in fields(self) if mine[field.name] != recorded.get(field.name)]
        return [f"{name} {recorded.get(name)!r} there, {mine[name]!r} now" for name in names]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is carried out: it may change whenever the run is continued.

    Raises:
        RetinaError: with every problem of the values.
    """

    device: str = "auto"
    """auto (the GPU if there is one), cuda or cpu."""
    precision: str = "auto"
    """auto, bf16, fp16 or fp32; auto: bf16 where the device multiplies it natively, else fp16 on GPUs, fp32 on CPUs."""
    compile: str = "auto"
    """auto (on GPUs), on or off: torch.compile."""
    micro_batch: int | None = None
    """Images a process computes at once; gradients are accumulated. None: as many as fit (16 on CPUs)."""
    workers: int = 2
    """Threads that read images ahead, in each process."""
    checkpoint_minutes: float = 15
    """Time between two writings of checkpoint_latest.pth, which is also written after each epoch."""
    keep_every: int = 20
    """Epochs between two checkpoints that are kept; 0: only the last."""
    tensorboard: bool = False

    def __post_init__(self) -> None:
        choices = {"device": ("auto", "cuda", "cpu"), "precision": ("auto", "bf16", "fp16", "fp32")}
        choices["compile"] = ("auto", "on", "off")
        problems = [
            f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        numbers = _above(0, micro_batch=1 if self.micro_batch is None else self.micro_batch, workers=self.workers)
        if numbers:
            problems.append(numbers)
        if self.checkpoint_minutes < 0 or self.keep_every < 0:
            problems.append("checkpoint_minutes and keep_every must be 0 or more")
        if problems:
            raise RetinaError(f"settings of the pre-training: {'; '.join(problems)}. Correct them")


def _above(least: float, **values: float) -> str | None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not least < value < math.inf]
    return f"{shorten(wrong)}; expected a number above {least:g}" if wrong else None
