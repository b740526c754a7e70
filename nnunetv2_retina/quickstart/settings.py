"""The settings of the quickstart, which are options of ``retina_quickstart`` too. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.console import setting
from nnunetv2_retina.errors import RetinaError

DEFAULT_OUTPUT = Path("retina_quickstart")
DEFAULT_TRAINER = "nnUNetTrainerRETINA_full_tiny"
FEW_TRAINER = "nnUNetTrainerRETINA_few"
RANDOM_TRAINER = "nnUNetTrainerTransUNet"
SIZES = ("_base", "_tiny")
"""Endings of trainers' names."""
_LEAST = {
    "iterations": 1,
    "iterations_per_epoch": 1,
    "batch_size": 1,
    "patch_size": 16,
    "train_volumes": 2,
    "test_volumes": 1,
}


@dataclass(frozen=True)
class QuickstartSettings:
    """How large and how long; the defaults take about three minutes on two CPU cores.

    Raises:
        RetinaError: for a number out of its range.
    """

    iterations: int = setting(90, "training steps; more is better and slower")
    iterations_per_epoch: int = 30
    """Steps between two lines of progress."""
    batch_size: int = setting(4, "patches per training step")
    patch_size: int = 128
    """Side of the square patches in pixels: smaller than RETINA's 224, for want of a GPU."""
    train_volumes: int = 5
    """Generated volumes to train on; one of them validates."""
    test_volumes: int = 2
    """Generated volumes held out for the scores."""
    shape: tuple[int, int, int] = (6, 320, 320)
    """(Z, Y, X) of a generated volume in voxels."""
    seed: int = setting(0, "seed of the generated volumes")
    trainer: str = setting(
        DEFAULT_TRAINER, "nnU-Net trainer, for instance nnUNetTrainerTransUNet_tiny, which starts at random",
        flag=("-tr", "--trainer"), metavar="NAME",
    )  # fmt: skip
    weights: str = setting(
        "open", "what RETINA's trainers start from: open, the package's weights of size tiny, or a file",
        metavar="FILE",
    )  # fmt: skip
    baseline: bool = setting(
        True, "do not train the same network from random initialisation, too, to compare with: half the time",
        flag="--no-baseline",
    )  # fmt: skip
    device: str | None = setting(
        None, "where to train (default: cuda where there is one)", flag=("-device", "--device"),
        choices=("cuda", "cpu"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}; expected at least {least}"
            for name, least in _LEAST.items()
            if getattr(self, name) < least
        ]
        if self.device not in (None, "cuda", "cpu"):
            problems.append(f"device is {self.device!r}; expected cuda or cpu")
        if problems:
            raise RetinaError("; ".join(problems) + ".")

    @property
    def baseline_trainer(self) -> str | None:
        """The trainer of the same network from random initialisation; None where none is wanted, or comparable."""
        if not self.baseline or not self.starts_from_weights or self.trainer == FEW_TRAINER:
            return None
        return RANDOM_TRAINER + next((size for size in SIZES if self.trainer.endswith(size)), "")

    @property
    def starts_from_weights(self) -> bool:
        """Whether the trainer takes pre-trained weights."""
        return self.trainer.startswith("nnUNetTrainerRETINA")

    @property
    def epochs(self) -> int:
        """How many lines of progress the training prints."""
        return -(-self.iterations // self.iterations_per_epoch)
