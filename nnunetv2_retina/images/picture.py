"""An image as its file stores it, and the two ways to read it: what it shows, or the numbers of a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.console.wording import format_bytes

Array = NDArray[Any]

LUMA = np.array([4899, 9617, 1868])
"""OpenCV's fixed-point weights of red, green and blue: .299, .587, .114 times 2^14."""

MOST_PACKED = 1 << 14
"""Times that packed numbers may grow where they are all alike; no more is believed of what does not fit into memory."""


class ImageError(Exception):
    """A file that cannot be read as an image. The text is the reason alone; callers add the path and the advice."""


class TooLargeError(ImageError):
    """An image that would take more memory than it may."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image, or a stack of them, with all that says how its numbers are meant."""

    values: Array
    """(..., Y, X), or (..., Y, X, 3) with colours: the file's own numbers, rows from the top, columns from the left."""
    axes: str = "YX"
    """Names of the axes, without the colours."""
    alpha: Array | None = None
    """(..., Y, X): opacity."""
    palette: Array | None = None
    """(N, 3) uint8: the colour that each stored number stands for."""
    white_is_zero: bool = False
    bits: int = 8
    """Of a stored number, if there are fewer than 8."""
    lossy: bool = False
    """Whether the compression has changed the numbers (JPEG)."""
    is_tiff: bool = False
    """Whether the file may state a voxel size."""
    remarks: tuple[str, ...] = ()
    """What a user should know of how it was read."""

    @property
    def has_grey_palette(self) -> bool:
        """Tell whether a palette holds nothing but grey levels, in whatever order the program that wrote it chose."""
        return self.palette is not None and bool((self.palette == self.palette[:, :1]).all())

    def shown(self) -> Array:
        """Return the grey levels or colours that the file shows.

        Palettes are looked up, zero-is-white is inverted, fewer than 8 bits are stretched to 0-255, alpha is dropped.

        Returns:
            (..., Y, X), or (..., Y, X, 3) if it has colours, also equal ones.
        """
        if self.palette is not None:
            return np.asarray((self.palette[:, 0] if self.has_grey_palette else self.palette)[self.values])
        values, highest = self.values, 2**self.bits - 1
        if self.white_is_zero:
            values = -values if values.dtype.kind == "f" else ~values if self.bits >= 8 else highest - values
        return values if self.bits >= 8 else (values.astype(np.uint16) * 255 // highest).astype(np.uint8)

    def labels(self) -> Array:
        """Return the values of a mask: the numbers that the file stores.

        Those of a palette are its indices where it has colours, which stand for classes. A palette of grey levels is
        a grey image that a program has packed, so the levels are the values.

        Raises:
            ImageError: if the shapes are in the alpha channel alone.
        """
        if self.has_grey_palette:
            return self.shown()
        if self.alpha is not None and self.values.size and not (self.alpha == self.alpha.flat[0]).all():
            first = self.values.reshape(-1, 3)[0] if self.values.ndim > len(self.axes) else self.values.flat[0]
            if (self.values == first).all():
                raise ImageError(
                    "every pixel has the same colour and only the transparency differs; expected a mask of one value a "
                    "class. Export it without transparency (a flattened image)"
                )
        return self.values


def oriented(array: Array, orientation: int, y: int) -> Array:
    """Return an array with its first row at the top and its first column at the left.

    Args:
        array: (..., Y, X), with or without a last axis of samples.
        orientation: TIFF's and Exif's number, 1 to 8: where the first row and column are.
        y: the axis of Y; X follows.
    """
    if orientation >= 5:
        array = array.swapaxes(y, y + 1)
    if orientation in (3, 4, 7, 8):
        array = np.flip(array, y)
    return np.flip(array, y + 1) if orientation in (2, 3, 6, 7) else array


def orientation_remark(orientation: int) -> tuple[str, ...]:
    """Say that an orientation was followed; nothing for the usual one."""
    return () if orientation == 1 else (f"orientation {orientation} of the file was followed: rows or columns turned",)


def to_grey(colours: Array) -> Array:
    """Return (...) of (..., C), C in 1 to 4: the first channel if the colours are equal, else their luma; same type.

    Raises:
        ImageError: for another number of channels.
    """
    channels = colours.shape[-1]
    if not 1 <= channels <= 4:
        raise ImageError(f"{channels} channels; expected grey or RGB, with alpha or without")
    first = colours[..., 0]
    if channels < 3 or all(np.array_equal(first, colours[..., channel]) for channel in (1, 2)):
        return first
    if colours.dtype.kind == "f":
        return np.asarray((colours[..., :3] @ (LUMA / 2**14)).astype(colours.dtype))
    red, green, blue = (colours[..., channel] * weight for channel, weight in enumerate(LUMA.astype(np.int64)))
    return np.asarray(((red + green + blue + 2**13) >> 14).astype(colours.dtype))


def check_size(number_of_bytes: int, most_bytes: int, what: str) -> None:
    """Refuse to decode what would take too much memory.

    Args:
        number_of_bytes: by the file's header.
        most_bytes: allowed.
        what: the size in words: ``200 x 100 pixels``.

    Raises:
        TooLargeError: if there are more.
    """
    if number_of_bytes > most_bytes:
        raise TooLargeError(
            f"its header says {what}, {format_bytes(number_of_bytes)} decoded; expected at most "
            f"{format_bytes(most_bytes)}"
        )
