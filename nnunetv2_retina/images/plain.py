"""Whether nnU-Net's readers, which pass over much of what PNG, BMP and TIFF files say, take a file as our decoder does.

They read the stored numbers of a TIFF, without its orientation, palette or that 0 is white, and stretch the masks of a
PNG of 2 or 4 bits. Only headers are looked at. A colour image is none of this module's business: channels are counted
where they are known.
"""

from __future__ import annotations

import struct
from pathlib import Path

from nnunetv2_retina.images import single, tiff
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.images.tiff_file import full_images, opened

_HEADER = 32


def check_plain(path: Path, labels: bool = False) -> None:
    """Check that a whole file holds nothing that nnU-Net's readers read otherwise; files of other kinds pass.

    Args:
        path: the file; its content tells the kind, not its name.
        labels: whether the numbers it stores count, or what it shows.

    Raises:
        ImageError: if it does. The text is the reason alone.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER)
    reason = None
    if start.startswith(single.PNG):
        reason = _png(start, labels)
    elif start.startswith(single.BMP) and not labels and struct.unpack_from("<H", start, 28)[0] == 1:
        reason = "it has 1 bit a pixel"
    elif start.startswith(single.JPEG) and labels:
        reason = _LOSSY
    elif start.startswith(tiff.SIGNATURES):
        reason = _tiff(path, labels)
    if reason is not None:
        advice = "Export it as a plain grey PNG or TIFF" if labels else "Convert it: retina_convert images IN OUT -d ID"
        raise ImageError(f"{reason}, which nnU-Net's reader would take for something else. {advice}")


_LOSSY = "its compression (JPEG) changes values"


def _png(start: bytes, labels: bool) -> str | None:
    bits, kind = start[24], start[25]
    if kind == single.GREY_AND_ALPHA:
        return "it has transparency"
    if bits < 8 and kind != single.PALETTE and (bits > 1 if labels else bits == 1):
        return f"it has {bits} {'bit' if bits == 1 else 'bits'} a pixel"
    return None


def _tiff(path: Path, labels: bool) -> str | None:
    with opened(path) as file:
        page = full_images(file)[0]
        turn = page.tags.valueof(tiff.ORIENTATION, 1)
        if turn != 1:
            return f"its rows or columns are turned (orientation {turn})"
        if page.samplesperpixel == 2:
            return "it has transparency"
        if page.photometric == tiff.PALETTE and (not labels or tiff.has_grey_palette(page)):
            return "it has a palette"
        if labels:
            return _LOSSY if int(page.compression) in tiff.LOSSY else None
        if page.photometric == tiff.WHITE_IS_ZERO:
            return "it shows 0 as white"
        return f"it has {page.bitspersample} bits a pixel" if page.bitspersample < 8 else None
