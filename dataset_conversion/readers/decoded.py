"""What the decoder of one file format hands back."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_conversion.readers.slabs import Array, Volume


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
    direction: tuple[float, ...] | None = None
    """How the axes x, y, z lie in space, a matrix by rows; None where the format has none."""
    origin: tuple[float, ...] | None = None
    """Place of the first voxel, x, y, z, in the file's unit."""
    palette: Array | None = None
    """(N, 3) uint8: the colours that the values of a mask stand for; None where the file has no colours for them."""
