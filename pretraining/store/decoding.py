"""From the bytes of an image file to grey pages, or the reason why there are none."""

from __future__ import annotations

from nnunetv2_retina.images.decoder import read_grey_pages, read_label_pages
from nnunetv2_retina.images.picture import Array, ImageError, TooLargeError
from pretraining.store import nifti

EMPTY, UNREADABLE, TOO_LARGE = "empty file", "unreadable", "too large"


class RejectionError(Exception):
    """A file, page or tile that is not taken. The text is ``reason`` or ``reason: detail``."""


def most_bytes(packed: int) -> int:
    """Return how many bytes may come of ``packed`` compressed ones: a header that says more is not believed.

    Micrographs shrink to a third, as JPEG to a tenth. A small file may hold an image of one grey level.
    """
    return max(256 << 20, 4 * packed, min(100 * packed, 4 << 30))


def decode(data: bytes, labels: bool = False) -> list[Array]:
    """Return the grey pages of a file, (Y, X) each, in the file's own type.

    Args:
        data: its content.
        labels: whether it is a mask, of which the numbers are wanted that it stores.

    Raises:
        RejectionError: if it is empty, of no known format, cut off, damaged, or larger than it can truly be.
    """
    if not data:
        raise RejectionError(EMPTY)
    try:
        most = most_bytes(len(data))
        if nifti.is_nifti(data):
            return nifti.read_pages(data, most)
        return (read_label_pages if labels else read_grey_pages)(data, most)
    except TooLargeError as error:
        raise RejectionError(f"{TOO_LARGE}: {error}") from error
    except ImageError as error:
        raise RejectionError(f"{UNREADABLE}: {error}") from error
