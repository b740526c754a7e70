"""From the bytes of a TIFF, PNG, JPEG or BMP file to grey pages. The rules are in ``pretraining.store.tiles``.

Decoders are imported when they are first needed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LUMA = np.array([4899, 9617, 1868])
"""OpenCV's fixed-point weights of red, green and blue: .299, .587, .114 times 2^14."""
EMPTY, UNREADABLE = "empty file", "unreadable"


class RejectionError(Exception):
    """A file, page or tile that is not taken. The text is ``reason`` or ``reason: detail``."""


def to_grey(colours: Array) -> Array:
    """One channel of (Y, X, C), C in 1 to 4: grey, grey + alpha, RGB, RGBA. (Y, X) of the same type.

    Raises:
        RejectionError: for another number of channels.
    """
    channels = colours.shape[-1]
    if not 1 <= channels <= 4:
        raise RejectionError(f"{UNREADABLE}: {channels} channels; expected grey or RGB, with alpha or without")
    first = colours[..., 0]
    if channels < 3 or all(np.array_equal(first, colours[..., channel]) for channel in (1, 2)):
        return first
    if colours.dtype.kind == "f":
        return (colours[..., :3] @ (LUMA / 2**14)).astype(colours.dtype)
    red, green, blue = (colours[..., channel] * weight for channel, weight in enumerate(LUMA.astype(np.int64)))
    return ((red + green + blue + 2**13) >> 14).astype(colours.dtype)


def decode(data: bytes) -> list[Array]:
    """Grey pages of a file, (Y, X) each, in the file's own type.

    Raises:
        RejectionError: if it is empty, of no known format, truncated or damaged.
    """
    if not data:
        raise RejectionError(EMPTY)
    reader = next((reader for signature, reader in _READERS.items() if data.startswith(signature)), None)
    if reader is None:
        raise RejectionError(f"{UNREADABLE}: no TIFF, PNG, JPEG or BMP (it begins with {data[:8]!r})")
    try:
        pages = reader(data)
    except (RejectionError, MemoryError):
        raise
    except Exception as error:  # the decoders raise whatever their C libraries and parsers do
        lines = str(error).strip().splitlines()
        raise RejectionError(f"{UNREADABLE}: {lines[-1][:200] if lines else type(error).__name__}") from error
    if not pages or not all(page.ndim == 2 and page.size for page in pages):
        raise RejectionError(f"{UNREADABLE}: no image in the file")
    return pages


def _read_png(data: bytes) -> list[Array]:
    import imagecodecs  # Pillow cuts 16-bit colour to 8 bits

    image = imagecodecs.png_decode(data)
    return [image if image.ndim == 2 else to_grey(image)]


def _read_pillow(data: bytes) -> list[Array]:
    """JPEG and BMP: Pillow, unlike other JPEG decoders at hand, says when a file is cut short."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "RGB":
            image.draft("L", image.size)  # of a JPEG the stored luma, as OpenCV takes it; nothing for others
        if image.mode in ("L", "1", "RGB", "RGBA", "I;16"):
            array = np.asarray(image)
        else:
            array = np.asarray(image.convert("RGB"))
    return [array if array.ndim == 2 else to_grey(array)]


def _read_tiff(data: bytes) -> list[Array]:
    import tifffile

    with _complaints() as complaints, tifffile.TiffFile(io.BytesIO(data)) as file:
        if file.is_imagej and len(file.pages) == 1 and len(file.series[0].shape) > 2:
            pages = _imagej_planes(file)  # ImageJ describes one page of a stack beyond 4 GB
        else:
            images = [page for page in file.pages if not page.subfiletype & 5]  # 1 reduced copy, 4 mask
            pages = [plane for page in images for plane in _tiff_planes(page)]
    if complaints:  # pages missing at the end are only logged
        raise RejectionError(f"{UNREADABLE}: {complaints[0][:200]}")
    return pages


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """tifffile's messages of errors, collected instead of logged."""
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            messages.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)


def _imagej_planes(file: Any) -> list[Array]:
    series = file.series[0]
    array = series.asarray(maxworkers=1)
    if series.axes.endswith("YXS"):
        return [to_grey(plane) for plane in array.reshape(-1, *array.shape[-3:])]
    if not series.axes.endswith("YX"):
        raise RejectionError(f"{UNREADABLE}: a TIFF with axes {series.axes}; expected ...YX")
    return list(array.reshape(-1, *array.shape[-2:]))


def _tiff_planes(page: Any) -> list[Array]:
    """The planes of one TIFF page: one, or several of a volume in tiles."""
    import tifffile

    kinds = tifffile.PHOTOMETRIC
    array, axes, kind = page.asarray(maxworkers=1), page.axes, page.photometric
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
    if kind == kinds.PALETTE:
        colours = np.moveaxis(np.asarray(page.colormap), 0, -1)
        array = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)[array]
    elif kind == kinds.MINISWHITE:
        array = ~array if array.dtype.kind in "ub" else -array.astype(np.float64)
    elif kind not in (kinds.MINISBLACK, kinds.RGB, kinds.YCBCR) or (kind == kinds.YCBCR and page.compression == 1):
        raise RejectionError(
            f"{UNREADABLE}: a TIFF with colours of kind {getattr(kind, 'name', kind)}; expected grey or RGB"
        )
    if kind in (kinds.MINISBLACK, kinds.MINISWHITE) and "S" in axes:
        array = array[..., :1]  # the rest is alpha
    coloured = "S" in axes or kind == kinds.PALETTE
    planes = array.reshape(-1, *array.shape[-3 if coloured else -2 :])
    return [to_grey(plane) if coloured else plane for plane in planes]


_READERS = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _read_tiff),
    b"\x89PNG": _read_png,
    **dict.fromkeys((b"\xff\xd8\xff", b"BM"), _read_pillow),
}
