"""From the bytes of an image file to grey pages, or the reason why there are none."""

from __future__ import annotations

from nnunetv2_retina.images.decoder import read_grey_pages
from nnunetv2_retina.images.picture import Array, ImageError, TooLargeError

EMPTY, UNREADABLE, TOO_LARGE = "empty file", "unreadable", "too large"
ALWAYS_DECODED = 256 << 20
"""Bytes that a file may grow to whatever its size."""
MOST_GROWTH = 100
"""How many times the size of its file an image may take: micrographs shrink to a third or half, not to a hundredth."""


class RejectionError(Exception):
    """A file, page or tile that is not taken. The text is ``reason`` or ``reason: detail``."""


def most_bytes(packed: int) -> int:
    """Return how many bytes may come of ``packed`` compressed ones: a header that says more is not believed."""
    return max(ALWAYS_DECODED, MOST_GROWTH * packed)


def decode(data: bytes) -> list[Array]:
    """Return the grey pages of a file, (Y, X) each, in the file's own type.

    Raises:
        RejectionError: if it is empty, of no known format, cut off, damaged, or larger than it can truly be.
    """
    if not data:
        raise RejectionError(EMPTY)
    try:
        return read_grey_pages(data, most_bytes(len(data)))
    except TooLargeError as error:
        raise RejectionError(f"{TOO_LARGE}: {error}") from error
    except ImageError as error:
        raise RejectionError(f"{UNREADABLE}: {error}") from error
