"""What is drawn from a stored volume, as settings and options of ``retina_pretrain``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2_retina.console import setting
from nnunetv2_retina.errors import RetinaError


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Which crops are drawn from a volume.

    Raises:
        RetinaError: for a number of crops below 1 or a negative seed.
    """

    crops: int = setting(10_000, "how many; empty ones among them are left out")
    level: str | None = setting(None, "level to draw from (default: the finest)", metavar="PATH")
    box: str | None = setting(None, "part to draw from (default: all of it)", metavar="Z0:Z1,Y0:Y1,X0:X1")
    crop_seed: int = setting(0, "of the places")

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise RetinaError(f"--crops is {self.crops}; expected at least 1")
        if self.crop_seed < 0:
            raise RetinaError(f"--crop-seed is {self.crop_seed}; expected 0 or more")
