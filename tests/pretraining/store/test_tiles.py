"""What becomes of an image file: every rule of ``pretraining.store.tiles`` on files made for it."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers.image_bytes import pillow, tiff
from PIL import Image

from nnunetv2_retina.images.picture import ImageError, to_grey
from pretraining.store import tiles
from pretraining.store.decoding import decode, most_bytes
from pretraining.store.duplicates import difference_hash
from pretraining.store.tiles import cut, read_tiles, to_uint8

NOISE = np.random.default_rng(0).integers(0, 256, (300, 260), dtype=np.uint8)
SQUARE = NOISE[:224, :224]
COLOUR = np.stack([NOISE, np.roll(NOISE, 3), np.roll(NOISE, 5)], axis=-1)
GREY_OF_COLOUR = np.rint(COLOUR @ [0.299, 0.587, 0.114])


def reasons(data: bytes) -> list[str]:
    tiles = read_tiles(data)
    assert not len(tiles.images)
    return [reason for _, reason in tiles.rejected]


# ------------------------------------------------------------------------------------------------------------ tiles


def test_an_image_of_the_right_size_is_taken_as_it_is():
    tiles = read_tiles(tiff(SQUARE), hashes=True)
    np.testing.assert_array_equal(tiles.images, SQUARE[None])
    assert (tiles.places, tiles.rejected) == (((-1, -1, -1),), ())
    assert tiles.sums == (int(SQUARE.sum()),)
    assert tiles.squares == (int((SQUARE.astype(int) ** 2).sum()),)
    assert tiles.hashes == tuple(difference_hash(SQUARE[None]).tolist())
    assert read_tiles(tiff(SQUARE)).hashes == (0,)


@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        ((448, 448), [(0, 0), (0, 224), (224, 0), (224, 224)]),
        ((335, 336), [(0, 0), (0, 224)]),  # 111 px remain below, 112 at the right
        ((560, 224), [(0, 0), (224, 0), (448, 0)]),
        ((225, 112), [(0, 0)]),
        ((224, 224), [(-1, -1)]),
        ((112, 223), [(-1, -1)]),
    ],
)
def test_where_tiles_are_cut(shape, corners):
    page = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.uint8)
    tiles = list(cut(page))
    assert [(y, x) for y, x, _ in tiles] == corners
    for y, x, tile in tiles:
        assert tile.shape == (224, 224)
        part = page[max(y, 0) :, max(x, 0) :][:224, :224]
        np.testing.assert_array_equal(tile[: part.shape[0], : part.shape[1]], part)


def test_remainders_and_small_images_are_mirrored():
    ((_, _, tile),) = cut(NOISE[:112, :200])
    np.testing.assert_array_equal(tile, np.pad(NOISE[:112, :200], ((0, 112), (0, 24)), mode="reflect"))
    assert tile[112, 0] == NOISE[110, 0]
    assert tile[0, 200] == NOISE[0, 198]


@pytest.mark.parametrize("shape", [(111, 300), (300, 111), (1, 1)])
def test_too_small(shape):
    assert reasons(tiff(np.resize(NOISE, shape)))[0].startswith(f"too small: {shape[1]} x {shape[0]} pixels")


def test_constant_tiles_are_left_out():
    image = np.tile(SQUARE, (1, 2))
    image[:, 224:] = 7
    tiles = read_tiles(tiff(image))
    assert tiles.places == ((-1, 0, 0),)
    assert tiles.rejected == (((-1, 0, 224), "constant: all pixels are 7"),)
    assert reasons(tiff(np.full((224, 224), 9, np.uint8))) == ["constant: all pixels are 9"]


# ------------------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize(
    "data",
    [
        tiff(NOISE),
        tiff(NOISE, compression="zlib", rowsperstrip=16),
        tiff(NOISE, tile=(64, 64)),
        tiff(NOISE, bigtiff=True),
        tiff(NOISE, byteorder=">"),
        tiff(255 - NOISE, photometric="miniswhite"),
        tiff(np.stack([NOISE] * 3, axis=-1), photometric="rgb"),
        tiff(np.stack([NOISE] * 3), photometric="rgb", planarconfig="separate"),
        tiff(np.stack([NOISE, 255 - NOISE], axis=-1), planarconfig="contig", extrasamples=["unassalpha"]),
        tiff((NOISE.astype(np.int16) - 128).astype(np.int8)),
        tiff(NOISE, photometric="palette", colormap=np.stack([np.arange(256) * 257] * 3).astype(np.uint16)),
        pillow(NOISE, "PNG"),
        pillow(NOISE, "BMP"),
        pillow(np.stack([NOISE] * 3, axis=-1), "BMP"),
        pillow(np.dstack([NOISE, 255 - NOISE]), "PNG"),
        pillow(np.dstack([NOISE, NOISE, NOISE, 255 - NOISE]), "PNG"),
    ],
)
def test_grey_in_every_guise(data):
    (page,) = to_uint8(decode(data))
    np.testing.assert_array_equal(page, NOISE)


@pytest.mark.parametrize("data", [tiff(COLOUR, photometric="rgb"), pillow(COLOUR, "PNG"), pillow(COLOUR, "BMP")])
def test_colour_becomes_luma(data):
    (page,) = decode(data)
    assert page.dtype == np.uint8
    assert np.abs(page - GREY_OF_COLOUR).max() <= 1


def test_colour_as_opencv_reads_it():
    cv2 = pytest.importorskip("cv2")
    for data in (tiff(COLOUR, photometric="rgb"), pillow(COLOUR, "BMP"), pillow(COLOUR, "JPEG")):
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode(data)[0], expected)


def test_wide_colour():
    wide = COLOUR.astype(np.uint16) * 257
    assert np.abs(to_grey(wide) / 257 - GREY_OF_COLOUR).max() <= 1
    assert np.abs(to_grey(wide.astype(np.float32)) / 257 - GREY_OF_COLOUR).max() <= 1
    np.testing.assert_array_equal(decode(bytes(imagecodecs.png_encode(wide)))[0], to_grey(wide))


def test_colour_palettes():
    palette = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(palette.convert("RGB")) @ [0.299, 0.587, 0.114]
    for kind in ("PNG", "BMP", "TIFF"):
        assert np.abs(decode(pillow(palette, kind))[0] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit(kind):
    (page,) = to_uint8(decode(pillow(Image.fromarray(NOISE > 127), kind)))
    np.testing.assert_array_equal(page, np.where(NOISE > 127, 255, 0))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.uint32])
def test_wide_types_are_mapped_by_percentiles(dtype):
    wide = (NOISE.astype(np.float64) * 100 + 1000).astype(dtype)
    wide[0, 0] = 30000  # a hot pixel
    (page,) = to_uint8(decode(tiff(wide)))
    low, high = np.percentile(wide.astype(float), (0.1, 99.9))
    expected = np.rint(np.clip((wide.astype(float) - low) * 255 / (high - low), 0, 255))
    assert page.dtype == np.uint8
    assert np.abs(page - expected).max() <= 1
    assert np.abs(page[1:].astype(int) - NOISE[1:]).max() <= 2


def test_one_mapping_for_all_pages():
    stack = np.stack([NOISE, NOISE // 2]).astype(np.uint16) * 8
    first, second = to_uint8(decode(tiff(stack)))
    assert np.abs(first.astype(int) // 2 - second).max() <= 1


def test_every_page_of_a_stack():
    stack = np.stack([SQUARE, SQUARE[::-1], np.zeros_like(SQUARE)])
    tiles = read_tiles(tiff(stack))
    np.testing.assert_array_equal(tiles.images, stack[:2])
    assert tiles.places == ((0, -1, -1), (1, -1, -1))
    assert tiles.rejected == (((2, -1, -1), "constant: all pixels are 0"),)


def test_stack_that_imagej_describes_in_one_page():
    """As ImageJ writes stacks beyond 4 GB: one directory, then all planes."""
    description = "ImageJ=1.11a\nimages=2\nslices=2\n"
    data = tiff(SQUARE, description=description, metadata=None) + SQUARE[::-1].tobytes()
    np.testing.assert_array_equal(np.stack(decode(data)), [SQUARE, SQUARE[::-1]])


def test_thumbnails_are_left_out():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(NOISE, photometric="minisblack")
        writer.write(NOISE[::2, ::2], photometric="minisblack", subfiletype=1)
    (page,) = decode(file.getvalue())
    np.testing.assert_array_equal(page, NOISE)


# ------------------------------------------------------------------------------------------------------------ rejected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "unreadable: no TIFF, PNG, JPEG or BMP"),
        (tiff(np.where(NOISE == 0, np.nan, NOISE).astype(np.float32)), "not finite: "),
        (tiff(np.where(NOISE == 0, np.inf, NOISE)), "not finite: "),
        (tiff(np.full((224, 224), 5, np.uint16)), "constant: the 0.1 and 99.9 percentiles are both 5"),
        (tiff(NOISE.astype(np.complex64)), "unreadable: values of type complex64"),
        (tiff(np.stack([NOISE] * 4, axis=-1), photometric="separated"), "unreadable: a TIFF with colours of kind"),
    ],
)
def test_rejected(data, reason):
    (found,) = reasons(data)
    assert found.startswith(reason)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize(
    "data",
    [
        tiff(NOISE),
        tiff(NOISE, rowsperstrip=16),
        tiff(NOISE, compression="zlib"),
        tiff(NOISE, tile=(64, 64)),
        tiff(np.stack([NOISE] * 5)),
        tiff(np.stack([NOISE] * 5), metadata=None, compression="zlib"),
        pillow(NOISE, "PNG"),
        pillow(NOISE, "JPEG"),
        pillow(NOISE, "BMP"),
    ],
    ids=["tiff", "strips", "deflate", "tiled", "stack", "deflate-stack", "png", "jpeg", "bmp"],
)
def test_truncated(data, share):
    (found,) = reasons(data[: int(share * len(data))])
    assert found.startswith("unreadable: ")


def test_a_header_is_not_believed():
    """A PNG of a kilobyte that says it has 200,000 x 200,000 pixels."""
    data = bytearray(pillow(NOISE[:30, :30], "PNG"))
    data[16:24] = struct.pack(">II", 200_000, 200_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    text = "too large: its header says 200000 x 200000 pixels, 40.0 GB decoded; expected at most 268.4 MB"
    assert reasons(bytes(data)) == [text]


def test_an_image_that_does_not_fit_into_memory_is_rejected(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(tiles, "to_uint8", no_memory)
    assert reasons(tiff(NOISE)) == ["too large: it does not fit into memory"]


@pytest.mark.parametrize(
    ("packed", "most"), [(2000, 256 << 20), (10 << 20, 1000 << 20), (1 << 30, 4 << 30), (10 << 30, 40 << 30)]
)
def test_how_much_may_come_of_a_file(packed, most):
    assert most_bytes(packed) == most


def test_too_many_channels_are_refused():
    with pytest.raises(ImageError, match="5 channels"):
        to_grey(np.zeros((2, 2, 5)))
