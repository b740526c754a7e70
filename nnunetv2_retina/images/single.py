"""PNG, JPEG and BMP: files of one image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_retina.images.picture import ImageError, Picture, check_size, orientation_remark, oriented

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

PNG, JPEG, BMP = b"\x89PNG", b"\xff\xd8\xff", b"BM"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PALETTE, GREY_AND_ALPHA = 3, 4
"""Kinds of a PNG."""
_ORIENTATION = 274
_MOST_OF_A_BYTE = 512
"""Pixels of a JPEG: a block of 8 x 8 takes a bit at least."""
_RUN_LENGTHS = (1, 2)
"""Numbers of the compressions in which a few bytes of a BMP stand for many pixels."""


def read_png(data: bytes, most_bytes: int) -> Picture:
    """Read a PNG. imagecodecs does it, since Pillow cuts 16-bit colour to 8 bits; Pillow gives a palette's indices."""
    import imagecodecs

    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    each = _SAMPLES.get(kind, 4) * (2 if bits == 16 else 1)
    check_size(width * height * each, most_bytes, f"{width} x {height} pixels")
    if kind == PALETTE:
        return _read_palette_png(data)
    array = imagecodecs.png_decode(data)
    samples = array.shape[-1] if array.ndim == 3 else 1
    values = array if array.ndim == 2 else array[..., :3] if samples > 2 else array[..., 0]
    if bits < 8:
        values = values // np.uint8(255 // (2**bits - 1))  # it stretches grey levels to 8 bits
    alpha = array[..., -1] if samples in (2, 4) else None
    return Picture(values=values, alpha=alpha, bits=min(bits, 8), remarks=_animation_remark(data))


def _read_palette_png(data: bytes) -> Picture:
    from PIL.PngImagePlugin import PngImageFile

    chunks = check_png(data)
    with PngImageFile(io.BytesIO(data)) as image:
        indices = np.asarray(image)
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    opacity = np.full(len(palette), 255, np.uint8)
    given = np.frombuffer(chunks.get(b"tRNS", b""), np.uint8)
    opacity[: len(given)] = given
    alpha = opacity[indices] if len(given) else None
    return Picture(values=indices, palette=palette, alpha=alpha, remarks=_animation_remark(data))


def _animation_remark(data: bytes) -> tuple[str, ...]:
    """Say that an animated PNG, whose part acTL counts its images, holds more than the one that is read."""
    position, name = 8, b""
    while name not in (b"IDAT", b"IEND"):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"acTL" and (number := struct.unpack_from(">I", data, position + 8)[0]) > 1:
            return (f"the file holds {number} images (an animation); the first was taken",)
        position += length + 12
    return ()


def check_png(data: bytes) -> dict[bytes, bytes]:
    """Return the parts of a PNG by their names.

    Raises:
        ImageError: if it is cut off, or the checksum of one of them does not fit.
    """
    try:
        return dict(_chunks(data))
    except struct.error as error:
        raise ImageError(f"it ends after {len(data):,} bytes, before its last part: cut off") from error


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and contents of the parts of a PNG, each checked, which Pillow does not do for the pixels."""
    position, name = 8, b""
    while name != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        name, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(name + content) != checksum:
            raise ImageError(f"the checksum of its part {name.decode('latin-1')} does not fit: damaged")
        yield name, content
        position += length + 12


def read_jpeg(data: bytes, most_bytes: int, luma: bool = False) -> Picture:
    """Read a JPEG. Pillow does it, since it says when a file is cut short, unlike other decoders.

    Args:
        data: the file.
        most_bytes: allowed.
        luma: of colours take the stored luma, as OpenCV's ``IMREAD_GRAYSCALE`` does.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(io.BytesIO(data)) as image:
        _check(image, most_bytes)
        if image.width * image.height > len(data) * _MOST_OF_A_BYTE:  # libjpeg fills what is missing with grey
            raise ImageError(f"its header says {image.width} x {image.height} pixels; {len(data):,} bytes hold fewer")
        turn = image.getexif().get(_ORIENTATION, 1)
        if luma and image.mode == "RGB":
            image.draft("L", image.size)
        array = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return Picture(values=oriented(array, turn, 0), lossy=True, remarks=orientation_remark(turn))


def read_bmp(data: bytes, most_bytes: int) -> Picture:
    """Read a BMP."""
    from PIL.BmpImagePlugin import BmpImageFile

    with BmpImageFile(io.BytesIO(data)) as image:
        _check(image, most_bytes)
        (bits,), (packing,) = struct.unpack_from("<H", data, 28), struct.unpack_from("<I", data, 30)
        if packing not in _RUN_LENGTHS and image.width * image.height * bits > 8 * len(data):
            raise ImageError(f"its header says {image.width} x {image.height} pixels; {len(data):,} bytes hold fewer")
        if image.mode == "1":
            return Picture(values=np.asarray(image.convert("L")) // np.uint8(255), bits=1)
        array, mode, palette = np.asarray(image), image.mode, image.getpalette("RGB")
    if mode == "P":
        return Picture(values=array, palette=np.array(palette, np.uint8).reshape(-1, 3))
    alpha = array[..., 3] if mode == "RGBA" else None
    return Picture(values=array if array.ndim == 2 else array[..., :3], alpha=alpha)


def _check(image: ImageFile, most_bytes: int) -> None:
    width, height = image.size
    check_size(width * height * len(image.getbands()), most_bytes, f"{width} x {height} pixels")
