"""The size of a voxel, with its unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nnunetv2_retina.errors import RetinaError

NANOMETRES = "nm"
NEARLY_CUBES = 1.5
"""Largest ratio of the sides of a voxel that passes for isotropic."""


@dataclass(frozen=True)
class Spacing:
    """Distance between neighbouring voxels along each axis, in the array's order.

    Raises:
        RetinaError: for a distance that is not a finite number above 0, or an unknown unit.
    """

    z: float | None
    """None for images of two axes."""
    y: float
    x: float
    unit: str | None = None
    """``NANOMETRES``, or None where nothing says what the numbers are."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(step) and step > 0 for step in self):
            raise RetinaError(f"spacing {tuple(self)}; expected numbers above 0")
        if self.unit not in (None, NANOMETRES):
            raise RetinaError(f"unit of the spacing {self.unit!r}; expected {NANOMETRES!r}, or None if it is unknown")

    @classmethod
    def of(cls, steps: Sequence[float] | Spacing, unit: str | None = None) -> Spacing:
        """Return the spacing of two (y, x) or three (z, y, x) numbers; one that is a ``Spacing`` already, as it is.

        Raises:
            RetinaError: for another number of axes.
        """
        if isinstance(steps, Spacing):
            return steps
        if len(steps) not in (2, 3):
            raise RetinaError(f"spacing {tuple(steps)} of {len(steps)} axes; expected two (y, x) or three (z, y, x)")
        *first, y, x = (float(step) for step in steps)
        return cls(first[0] if first else None, y, x, unit)

    def for_axes(self, axes: int) -> Spacing:
        """Return it without z for an image of two axes, as it is for any other."""
        return replace(self, z=None) if axes == 2 else self

    def __iter__(self) -> Iterator[float]:
        return iter((self.y, self.x) if self.z is None else (self.z, self.y, self.x))

    def __len__(self) -> int:
        return 2 if self.z is None else 3
