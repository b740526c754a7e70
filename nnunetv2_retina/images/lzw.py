"""Whether LZW data are whole: damaged ones send the decoder (imagecodecs 2026.3.6) to memory that is not its own.

Codes grow from 9 to 12 bits with the table that they refer to, which a clear code empties (TIFF 6.0, section 13). One
that refers to what is not in the table yet is damage.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.images.picture import ImageError

_CLEAR, _END, _FIRST = 256, 257, 258
_HIGHEST: NDArray[np.int64] = _FIRST - 1 + np.maximum(np.arange(3839), 1)
"""That the codes after a clear code may be, the first one apart, which fills no entry; until the table is full."""
_WIDTHS: NDArray[np.int64] = 9 + np.searchsorted([511, 1023, 2047], _HIGHEST, side="right").astype(np.int64)
"""In bits."""
_STARTS: NDArray[np.int64] = np.cumsum(_WIDTHS) - _WIDTHS
_HIGHEST[0] = _END


def check_lzw(data: bytes) -> None:
    """Check the codes of a strip or tile; of an encoder that never clears a full table, those until then.

    Raises:
        ImageError: if one of them is impossible.
    """
    if data[:1] == b"\0" and len(data) > 1 and data[1] & 1:
        return  # an order of bits from before the standard
    content = np.frombuffer(data + bytes(3), np.uint8)
    start, size = 0, 8 * len(data)
    while True:
        codes, ends = _codes(content, start, size)
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        stop = int(stops[0]) if len(stops) else len(codes)
        if (codes[:stop] > _HIGHEST[:stop]).any():
            raise ImageError("its LZW data are damaged")
        if not len(stops) or codes[stop] == _END:
            return
        start = int(ends[stop])


def _codes(content: NDArray[np.uint8], start: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes after a clear code, as many as a table takes and the data hold, and the bits where they end."""
    begins = start + _STARTS
    ends = begins + _WIDTHS
    fitting = int(np.searchsorted(ends, size, side="right"))
    begins, ends, widths = begins[:fitting], ends[:fitting], _WIDTHS[:fitting]
    first = begins >> 3
    high, middle, low = (content[first + byte].astype(np.int64) for byte in range(3))
    wide = (high << 16) | (middle << 8) | low
    return (wide >> (24 - (begins & 7) - widths)) & ((1 << widths) - 1), ends
