"""LZW codes: those of two encoders pass, and damage that would send a decoder out of its table is found."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers.image_bytes import pillow, tiff
from PIL import Image
from scipy import ndimage

from nnunetv2_retina.images.decoder import read_grey_pages
from nnunetv2_retina.images.lzw import check_lzw
from nnunetv2_retina.images.picture import ImageError

NOISE = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
SMOOTH = ndimage.gaussian_filter(NOISE, 4)


@pytest.mark.parametrize("values", [NOISE, SMOOTH, SMOOTH // 8, NOISE * 0, NOISE[:1, :1], NOISE[:5]])
def test_whole_data_pass(values):
    check_lzw(bytes(imagecodecs.lzw_encode(values.tobytes())))
    np.testing.assert_array_equal(read_grey_pages(tiff(values, compression="lzw", rowsperstrip=64), 1 << 24)[0], values)
    of_libtiff = pillow(Image.fromarray(values), "TIFF", compression="tiff_lzw")
    with tifffile.TiffFile(io.BytesIO(of_libtiff)) as file:
        assert file.pages[0].compression == 5
    np.testing.assert_array_equal(read_grey_pages(of_libtiff, 1 << 24)[0], values)


def test_an_impossible_code_is_damage():
    """Changed bits make a code too large, or shift all that follow by a table that is emptied too early."""
    data = bytes(imagecodecs.lzw_encode(SMOOTH.tobytes()))
    found = 0
    for place in range(20, len(data), len(data) // 60):
        changed = bytearray(data)
        changed[place] ^= 0x55
        try:
            check_lzw(bytes(changed))
        except ImageError:
            found += 1
    assert found > 5
    with pytest.raises(ImageError, match="its LZW data are damaged"):
        check_lzw(bytes([0x80, 0x3F, 0xFF, 0xFF]))  # clear, then 511 of an empty table
    check_lzw(data[: len(data) // 2])
    check_lzw(b"")
