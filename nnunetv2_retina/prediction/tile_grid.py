"""Where the tiles of a plane lie, in the whole of it or where they touch a part: geometry, no pixels.

Positions are nnU-Net 2.8.1's. A part of a plane that is predicted by the tiles of the whole plane that touch it, in
their order, gets the sums that it has in the whole plane, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window


@dataclass(frozen=True)
class Touching:
    """The tiles that touch a part of a plane. Coordinates are those of the plane, padded to the size of a tile."""

    rows: slice
    columns: slice
    """What of the plane is wanted."""
    starts: tuple[Sequence[int], Sequence[int]]
    """First rows, and first columns, of the tiles."""
    patch: tuple[int, int]

    @property
    def canvas(self) -> tuple[slice, slice]:
        """Return the rows and columns that the tiles cover."""
        rows, columns = (
            slice(starts[0], starts[-1] + side) for starts, side in zip(self.starts, self.patch, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a plane.

    Args:
        shape: rows and columns of the plane.
        patch: rows and columns of a tile.
        step_size: distance of neighbouring tiles, as a share of the patch size; at most that, as in nnU-Net.
    """

    shape: tuple[int, int]
    patch: tuple[int, int]
    step_size: float
    starts: tuple[list[int], list[int]] = field(init=False, compare=False)
    """First rows, and first columns, of all tiles, in the padded plane."""

    def __post_init__(self) -> None:
        size = tuple(max(pair) for pair in zip(self.shape, self.patch, strict=True))
        rows, columns = compute_steps_for_sliding_window(size, self.patch, self.step_size)
        object.__setattr__(self, "starts", (rows, columns))

    @property
    def offset(self) -> tuple[int, int]:
        """Return the rows and columns of padding before the plane, which is centred where it is smaller than a tile."""
        rows, columns = (max(side - n, 0) // 2 for n, side in zip(self.shape, self.patch, strict=True))
        return rows, columns

    def touching(self, rows: slice, columns: slice) -> Touching:
        """Return the tiles that touch a part of the plane; ``rows`` and ``columns`` with both ends, not empty."""
        wanted = [
            slice(part.start + offset, part.stop + offset)
            for part, offset in zip((rows, columns), self.offset, strict=True)
        ]
        starts = [
            [start for start in axis if start < part.stop and start + side > part.start]
            for axis, part, side in zip(self.starts, wanted, self.patch, strict=True)
        ]
        return Touching(wanted[0], wanted[1], (starts[0], starts[1]), self.patch)

    def unpadded(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Return which rows and columns of the plane itself lie in a part of the padded one."""
        inner = [
            slice(max(part.start - offset, 0), min(part.stop - offset, n))
            for part, offset, n in zip((rows, columns), self.offset, self.shape, strict=True)
        ]
        return inner[0], inner[1]

    def reach(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Return which rows and columns of the plane are read to predict a part of it."""
        return self.unpadded(*self.touching(rows, columns).canvas)
