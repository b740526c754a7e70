"""What the decoder of one file format hands back."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_conversion.readers.slabs import Array, Volume


@dataclass(frozen=True)
class Place:
    """Where the voxels of a file lie in space; axes x, y, z, in the file's own numbers."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    """Of the first voxel."""
    direction: tuple[float, ...] | None = None
    """How the axes lie, a matrix by rows; None where the format has none."""

    def geometry(self) -> dict[str, tuple[float, ...]]:
        """Return it as nnU-Net keeps what SimpleITK says of a file."""
        axes = len(self.spacing)
        straight = tuple(float(row == column) for row in range(axes) for column in range(axes))
        return {"spacing": self.spacing, "origin": self.origin, "direction": self.direction or straight}


@dataclass(frozen=True)
class Decoded:
    """An image as its file holds it."""

    array: Volume
    """In the file's own type; (Y, X) or (Z, Y, X), and a last axis of channels if ``coloured``."""
    steps: tuple[float, ...] | None = None
    """The file's numbers for the size of a voxel, along each axis of ``array``; they may be nonsense."""
    unit: str | None = None
    """Of ``steps``: ``NANOMETRES``, or None where the file does not say, or is known to say it wrongly."""
    remarks: tuple[str, ...] = ()
    """What a user should know of how it was read."""
    coloured: bool = False
    place: Place | None = None
    """None where the format has none."""
    palette: Array | None = None
    """(N, 3) uint8: the colours that the values of a mask stand for; None where the file has no colours for them."""
