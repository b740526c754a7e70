"""From an image file to a picture, by what the file holds, whatever its name ends in. Needs no torch.

The decoders are imported when they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np

from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import one_line
from nnunetv2_retina.images import single, tiff
from nnunetv2_retina.images.picture import Array, ImageError, Picture, TooLargeError, to_grey

_SIGNATURE = 8


@overload
def read_picture(path: Path, most_bytes: int) -> Picture: ...


@overload
def read_picture(path: Path, most_bytes: int, most_whole: int) -> Picture | tiff.Stack: ...


def read_picture(path: Path, most_bytes: int, most_whole: int | None = None) -> Picture | tiff.Stack:
    """Read a TIFF, PNG, JPEG or BMP file; of a TIFF the first series, which may be a stack.

    Args:
        path: the file.
        most_bytes: that the decoded image may take; checked against the file's header before decoding.
        most_whole: bytes beyond which a stack is not read but opened, if it can be read plane by plane.

    Raises:
        ImageError: if it is of another kind, cut off, damaged or too large.
        OSError: if the file cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(_SIGNATURE)
    with _errors(most_bytes):
        if start.startswith(tiff.SIGNATURES):
            picture = tiff.read_stack(path, most_bytes, most_whole)
        else:
            picture = _reader(start)(path.read_bytes(), most_bytes)
        if isinstance(picture, Picture) and not picture.values.size:
            raise ImageError("no image in the file")
    return picture


def read_grey_pages(data: bytes, most_bytes: int) -> list[Array]:
    """Read all images of a file as they are shown, in grey.

    Args:
        data: the content of the file.
        most_bytes: that all images decoded may take.

    Returns:
        (Y, X) each, in the file's own type. Colours become luma, unless they are equal.

    Raises:
        ImageError: if the file is of another kind, cut off, damaged or too large.
    """
    with _errors(most_bytes):
        return [_grey(picture) for picture in _pages(data, most_bytes)]


def read_label_pages(data: bytes, most_bytes: int) -> list[Array]:
    """Read all masks of a file as the numbers that it stores; see ``Picture.labels``.

    Args:
        data: the content of the file.
        most_bytes: that all masks decoded may take.

    Returns:
        (Y, X) each, in the file's own type.

    Raises:
        ImageError: as ``read_grey_pages``, or if it has colours that are not equal.
    """
    with _errors(most_bytes):
        return [_labels(picture) for picture in _pages(data, most_bytes)]


def _pages(data: bytes, most_bytes: int) -> list[Picture]:
    if data.startswith(tiff.SIGNATURES):
        pictures = tiff.read_pages(data, most_bytes)
    else:
        reader = _reader(data)
        pictures = [(partial(reader, luma=True) if reader is single.read_jpeg else reader)(data, most_bytes)]
    if not pictures or not all(picture.values.size for picture in pictures):
        raise ImageError("no image in the file")
    return pictures


def _labels(picture: Picture) -> Array:
    labels = picture.labels()
    if labels.ndim < 3:
        return labels
    if (labels[..., 1:] != labels[..., :1]).any():
        raise ImageError("a mask in colours; expected one number a pixel")
    return np.asarray(labels[..., 0])


def _grey(picture: Picture) -> Array:
    shown = picture.shown()
    return to_grey(shown) if shown.ndim == 3 else shown


def _reader(start: bytes) -> Callable[[bytes, int], Picture]:
    for signature, reader in _READERS.items():
        if start.startswith(signature):
            return reader
    raise ImageError(f"no TIFF, PNG, JPEG or BMP (it begins with {start[:_SIGNATURE]!r})")


@contextmanager
def _errors(most_bytes: int) -> Iterator[None]:
    """Turn whatever the decoders raise into an ``ImageError``; they raise what their C libraries and parsers do."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise TooLargeError(f"it does not fit into memory, decoded (up to {format_bytes(most_bytes)})") from error
    except Exception as error:
        raise ImageError(one_line(error)) from error


_READERS: dict[bytes, Callable[[bytes, int], Picture]] = {
    single.PNG: single.read_png,
    single.JPEG: single.read_jpeg,
    single.BMP: single.read_bmp,
}
