"""The settings of a run over a volume, which are options of ``retina_volume`` too. Imports nothing heavy."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.console import part_of, setting
from nnunetv2_retina.console.engines import Workers
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_file

MEASURED = ("exact", "sampled", "nnunet")
METHODS = (*MEASURED, "training")
"""What moments are taken from, besides a file."""
CHUNK = 64
SHARD = (64, 1024, 1024)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class VolumeSettings(Workers):
    """What of a volume is predicted, and who does it.

    Raises:
        RetinaError: for a setting that is spelled wrong, or two that exclude each other.
    """

    level: str = setting(
        "auto", "path of the resolution to predict (auto: the one within 1 %% of the model's spacing)", metavar="PATH"
    )
    spacing: str | None = setting(
        None, "nm, where the volume's metadata do not state it or state it wrong", metavar="Z,Y,X"
    )
    box: str | None = setting(None, "only this part, in voxels of the level", metavar="Z0:Z1,Y0:Y1,X0:X1")
    moments: str = setting(
        "exact",
        "mean and standard deviation for z-scores: exact; sampled (its standard error is printed); training (of the "
        "data set's block retina); nnunet (as retina_predict computes them, which holds the volume in memory); or a "
        "JSON file with mean and sd (least and most, if the model normalises by RescaleTo01Normalization)",
        metavar="HOW",
    )
    moments_box: str | None = setting(
        None, "take mean and standard deviation from this part: without resin and black borders", metavar="BOX"
    )
    part: str | None = setting(
        None, "this process does every N-th block, from the I-th; start one with each I on a shared folder",
        metavar="I/N",
    )  # fmt: skip
    memory: str = setting(
        "", "what a worker may take, such as 8GiB: blocks are made to fit (default: 70 %% of the machine's by workers)"
    )
    block: str | None = setting(
        None, "size of the blocks instead of --memory; multiples of the output's shards", metavar="Z,Y,X"
    )
    chunk: int = setting(CHUNK, "side of the cubes that the output is compressed in")
    shard: str = setting(
        ",".join(map(str, SHARD)), "size of the output's files, multiples of the chunk", metavar="Z,Y,X"
    )

    def __post_init__(self) -> None:
        if self.moments not in METHODS:
            check_file(Path(self.moments), f"--moments {', '.join(METHODS)}, and no moments file")
        if self.moments_box is not None and self.moments not in MEASURED:
            raise RetinaError(
                f"--moments {self.moments} states mean and standard deviation, --moments-box says where to measure "
                "them. Leave one out"
            )
        super().__post_init__()
        part_of([], self.part)
        if self.chunk < 1:
            raise RetinaError(f"--chunk {self.chunk}; expected at least 1")
        if any(side % self.chunk for side in self.shards):
            raise RetinaError(f"--shard {self.shard}; expected multiples of the chunk, {self.chunk}")
        self.block_sides, self.steps, self.budget  # noqa: B018 - each checks its text

    def _ways(self) -> dict[str, bool]:
        return {**super()._ways(), "--part": self.part is not None}

    @property
    def shards(self) -> tuple[int, int, int]:
        """Return the sides of a shard."""
        return _sides("--shard", self.shard)

    @property
    def block_sides(self) -> tuple[int, int, int] | None:
        """Return the sides of a block, if chosen."""
        return None if self.block is None else _sides("--block", self.block)

    @property
    def steps(self) -> tuple[float, float, float] | None:
        """Return the spacing, if given."""
        return None if self.spacing is None else parse_spacing(self.spacing)

    @property
    def budget(self) -> int | None:
        """Return the memory of a worker in bytes, if given."""
        return parse_bytes(self.memory) if self.memory else None


def parse_spacing(text: str, option: str = "--spacing") -> tuple[float, float, float]:
    """Return three numbers above 0 from ``Z,Y,X``, the text of an option.

    Raises:
        RetinaError: for another text.
    """
    if len(steps := _steps(text)) != 3:
        raise RetinaError(f"{option} {text}; expected three numbers above 0, Z,Y,X in nm, such as 40,4,4")
    return steps[0], steps[1], steps[2]


def parse_pixel(text: str) -> tuple[float, float]:
    """Return two numbers above 0 from ``Y,X``.

    Raises:
        RetinaError: for another text.
    """
    if len(steps := _steps(text)) != 2:
        raise RetinaError(f"--spacing {text}; expected two numbers above 0, Y,X in nm, such as 4,4")
    return steps[0], steps[1]


def _steps(text: str) -> list[float]:
    """Return the numbers above 0 of a text; none, if it holds anything else."""
    try:
        steps = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return steps if all(0 < step < float("inf") for step in steps) else []


def parse_bytes(text: str) -> int:
    """Return a number of bytes from ``8GiB``, ``500 MB`` or ``1e9``.

    Raises:
        RetinaError: for another text.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    with suppress(ValueError, OverflowError):
        if match and match[2] in _UNITS and (number := int(float(match[1]) * _UNITS[match[2]])) > 0:
            return number
    raise RetinaError(f"--memory {text}; expected a number of bytes such as 8GiB")


def _sides(flag: str, text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise RetinaError(f"{flag} {text}; expected three whole numbers, Z,Y,X")
    z, y, x = (int(part) for part in parts)
    return z, y, x
