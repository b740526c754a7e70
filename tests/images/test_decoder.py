"""The one decoder on a small file of each format and trap, made here, with the right array beside it."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers.image_bytes import pillow, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from nnunetv2_retina.images.decoder import read_grey_pages, read_label_pages, read_picture
from nnunetv2_retina.images.picture import ImageError, TooLargeError, oriented, to_grey

MOST = 1 << 24
GREY = np.random.default_rng(0).integers(0, 256, (30, 26), dtype=np.uint8)
COLOUR = np.stack([GREY, np.roll(GREY, 3), np.roll(GREY, 5)], axis=-1)
STACK = np.stack([GREY, GREY[::-1], 255 - GREY])
OBJECT = np.pad(np.ones((10, 8), np.uint8), ((5, 15), (6, 12)))
"""A mask: 1 in a rectangle."""


def png(values, bits, kind=0, extra=b"") -> bytes:
    """A PNG of 1, 2, 4 or 8 bits a pixel, written by hand: Pillow writes no grey of 2 and 4 bits."""

    def part(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape
    each = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :]
    rows = np.packbits(each.reshape(height, width * bits), axis=1)
    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    pixels = part(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, extra, pixels, part(b"IEND", b"")])


def palette_png(indices, colours, opacity=None) -> bytes:
    image = Image.fromarray(indices).convert("P")
    image.frombytes(indices.tobytes())
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return pillow(image, "PNG", **({} if opacity is None else {"transparency": bytes(opacity)}))


@pytest.fixture
def picture(tmp_path):
    """Reads bytes as a file, under a name that says nothing true."""

    def read(data, most_bytes=MOST):
        (tmp_path / "image.dat").write_bytes(data)
        return read_picture(tmp_path / "image.dat", most_bytes)

    return read


# ---------------------------------------------------------------------------------------------------- what is shown

SHUFFLED = np.random.default_rng(1).permutation(256).astype(np.uint8)
FILES: dict[str, tuple[bytes, np.ndarray]] = {
    "png": (pillow(GREY, "PNG"), GREY),
    "png 16 bit": (bytes(imagecodecs.png_encode(GREY.astype(np.uint16) * 257)), GREY.astype(np.uint16) * 257),
    "png 1 bit": (png(GREY >> 7, 1), (GREY >> 7) * 255),
    "png 2 bit": (png(GREY >> 6, 2), (GREY >> 6) * 85),
    "png 4 bit": (png(GREY >> 4, 4), (GREY >> 4) * 17),
    "png grey alpha": (pillow(np.dstack([GREY, 255 - GREY]), "PNG"), GREY),
    "png rgb": (pillow(COLOUR, "PNG"), COLOUR),
    "png rgba": (pillow(np.dstack([COLOUR, GREY]), "PNG"), COLOUR),
    "png rgb 16 bit": (bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257)), COLOUR.astype(np.uint16) * 257),
    "png palette": (palette_png(GREY, np.tile(SHUFFLED[:, None], 3)), SHUFFLED[GREY]),
    "png palette colours": (palette_png(GREY, COLOUR.reshape(-1, 3)[:256]), COLOUR.reshape(-1, 3)[:256][GREY]),
    "bmp": (pillow(GREY, "BMP"), GREY),
    "bmp 1 bit": (pillow(Image.fromarray(GREY > 127), "BMP"), np.where(GREY > 127, 255, 0)),
    "bmp rgb": (pillow(COLOUR, "BMP"), COLOUR),
    "jpeg": (pillow(np.full((30, 26), 90, np.uint8), "JPEG"), np.full((30, 26), 90)),
    "tiff": (tiff(GREY), GREY),
    "tiff deflate tiles": (tiff(GREY, tile=(16, 16), compression="zlib", predictor=True), GREY),
    "tiff lzw strips": (tiff(GREY, rowsperstrip=7, compression="lzw"), GREY),
    "tiff zstd": (tiff(GREY, compression="zstd"), GREY),
    "tiff big endian": (tiff(GREY.astype(np.uint16) * 9, byteorder=">"), GREY.astype(np.uint16) * 9),
    "tiff bigtiff": (tiff(GREY, bigtiff=True), GREY),
    "tiff float": (tiff(GREY / np.float32(7)), GREY / np.float32(7)),
    "tiff white is zero": (tiff(255 - GREY, photometric="miniswhite"), GREY),
    "tiff white is zero 16 bit": (tiff(65535 - GREY.astype(np.uint16), photometric="miniswhite"), GREY),
    "tiff white is zero float": (tiff(-GREY.astype(np.float32), photometric="miniswhite"), GREY),
    "tiff white is zero 1 bit": (tiff(GREY < 128, photometric="miniswhite"), np.where(GREY < 128, 0, 255)),
    "tiff 4 bit": (tiff(GREY >> 4, bitspersample=4), (GREY >> 4) * 17),
    "tiff palette": (
        tiff(GREY, photometric="palette", colormap=np.tile(SHUFFLED.astype(np.uint16) * 257, (3, 1))),
        SHUFFLED[GREY],
    ),
    "tiff rgb": (tiff(COLOUR, photometric="rgb"), COLOUR),
    "tiff rgb planes": (tiff(np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"), COLOUR),
    "tiff rgba": (tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=["unassalpha"]), COLOUR),
    "tiff grey alpha": (
        tiff(np.dstack([GREY, 255 - GREY]), planarconfig="contig", extrasamples=["unassalpha"]), GREY,
    ),
    "tiff jpeg": (tiff(np.full((30, 26), 90, np.uint8), compression="jpeg"), np.full((30, 26), 90)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_shown(picture, name):
    data, shown = FILES[name]
    read = picture(data)
    np.testing.assert_array_equal(read.shown(), shown)
    assert read.axes == "YX"
    assert read.lossy == ("jpeg" in name)
    (page,) = read_grey_pages(data, MOST)
    np.testing.assert_array_equal(page, to_grey(shown) if shown.ndim == 3 else shown)


def test_the_name_says_nothing(tmp_path):
    (tmp_path / "mask.png").write_bytes(pillow(OBJECT, "JPEG"))
    assert read_picture(tmp_path / "mask.png", MOST).lossy
    (tmp_path / "mask.tif").write_bytes(pillow(OBJECT, "PNG"))
    np.testing.assert_array_equal(read_picture(tmp_path / "mask.tif", MOST).labels(), OBJECT)


@pytest.mark.parametrize("number", range(1, 9))
def test_orientation_is_followed_and_named(picture, number):
    expected = GREY
    if number > 1:
        exif = Image.Exif()
        exif[274] = number
        jpeg = Image.open(io.BytesIO(pillow(GREY, "JPEG", quality=95, exif=exif)))
        expected = np.asarray(ImageOps.exif_transpose(jpeg))
        read = picture(pillow(GREY, "JPEG", quality=95, exif=exif))
        np.testing.assert_array_equal(read.shown(), expected)
        np.testing.assert_array_equal(oriented(np.asarray(jpeg), number, 0), expected)
        assert read.remarks == (f"orientation {number} of the file was followed: rows or columns turned",)
    read = picture(tiff(COLOUR, photometric="rgb", extratags=[(274, 3, 1, number, True)]))
    np.testing.assert_array_equal(read.shown(), oriented(COLOUR, number, 0))
    assert bool(read.remarks) == (number > 1)


# ---------------------------------------------------------------------------------------------------- stacks


@pytest.mark.parametrize(
    ("data", "axes"),
    [
        (tiff(STACK, metadata={"axes": "ZYX"}), "ZYX"),
        (tiff(STACK, imagej=True, metadata={"axes": "ZYX"}), "ZYX"),
        (tiff(STACK, ome=True, metadata={"axes": "TYX"}), "TYX"),
        (tiff(STACK, metadata=None), "IYX"),
        (tiff(STACK, truncate=True), "QYX"),
    ],
    ids=["shaped", "imagej", "ome", "plain", "one page"],
)
def test_stacks(picture, data, axes):
    read = picture(data)
    assert read.axes == axes
    np.testing.assert_array_equal(read.shown(), STACK)
    np.testing.assert_array_equal(np.stack(read_grey_pages(data, MOST)), STACK)


def test_a_stale_description_of_the_shape_does_not_count(picture):
    """Programs that crop keep the description that tifffile wrote for the larger image."""
    data = tiff(GREY, description='{"shape": [512, 512]}', metadata=None)
    np.testing.assert_array_equal(read_grey_pages(data, MOST), [GREY])
    np.testing.assert_array_equal(picture(data).shown(), GREY)


def test_three_equal_channels_of_a_composite_are_colours(picture):
    read = picture(tiff(np.stack([GREY] * 3), imagej=True, metadata={"axes": "CYX"}))
    assert read.axes == "YX"
    np.testing.assert_array_equal(read.shown(), np.stack([GREY] * 3, axis=-1))


def test_images_of_different_shape(picture):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GREY, photometric="minisblack", metadata=None)
        writer.write(GREY[:20], photometric="minisblack", metadata=None)
        writer.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    read = picture(file.getvalue())
    np.testing.assert_array_equal(read.shown(), GREY)
    assert "images of different shape; the first was taken" in read.remarks[0]
    assert [page.shape for page in read_grey_pages(file.getvalue(), MOST)] == [(30, 26), (20, 26)]


@pytest.mark.parametrize("colours", [False, True])
def test_planes_written_one_by_one_are_a_stack(picture, colours):
    """As a program does that has one plane at a time; tifffile takes each for an image of its own."""
    planes = [np.stack([GREY + number] * 3, axis=-1) if colours else GREY + number for number in range(4)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for plane in planes:
            writer.write(plane, photometric="rgb" if colours else "minisblack")
    read = picture(file.getvalue())
    np.testing.assert_array_equal(read.shown(), np.stack(planes))
    assert read.remarks == () and len(read.axes) == 3
    assert len(read_grey_pages(file.getvalue(), MOST)) == 4


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="26" SizeY="30" SizeZ="2" SizeC="1" SizeT="1">
<Channel ID="Channel:0:0" SamplesPerPixel="1"/>
<TiffData IFD="0" FirstZ="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" FirstZ="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>"""


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (OME, r"one file of several of an OME-TIFF \(another is b.ome.tif\). Save all in one file"),
        (OME.replace("uuid:2", "uuid:1"), "holds 1 of the 2 planes that its OME description lists: cut off"),
        (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly MetadataFile="c.companion.ome" '
            'UUID="urn:uuid:3"/></OME>',
            "one file of several of an OME-TIFF; c.companion.ome describes all",
        ),
    ],
)
def test_one_file_of_several_is_no_stack(picture, description, text):
    data = tiff(GREY, description=description.encode(), metadata=None)
    with pytest.raises(ImageError, match=text):
        picture(data)
    np.testing.assert_array_equal(read_grey_pages(data, MOST), [GREY])


# ---------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_stored_values_of_few_bits(picture, bits):
    values = GREY >> (8 - bits)
    np.testing.assert_array_equal(picture(png(values, bits)).labels(), values)
    written = tiff(values > 0, photometric="miniswhite") if bits == 1 else tiff(values, bitspersample=bits)
    np.testing.assert_array_equal(picture(written).labels(), values)


def test_indices_of_a_palette_of_colours_are_the_values_of_a_mask(picture):
    colours = [[0, 0, 0], [200, 30, 30], [10, 250, 10]]
    np.testing.assert_array_equal(picture(palette_png(OBJECT * 2, colours)).labels(), OBJECT * 2)


@pytest.mark.parametrize("order", [1, -1])
def test_a_palette_of_grey_levels_is_a_grey_mask_in_whatever_order(picture, order):
    levels = np.array([0, 255])[::order]
    read = picture(palette_png(OBJECT if order > 0 else 1 - OBJECT, np.tile(levels[:, None], 3)))
    np.testing.assert_array_equal(read.labels(), OBJECT * 255)
    np.testing.assert_array_equal(read.shown(), OBJECT * 255)


@pytest.mark.parametrize(
    "data",
    [
        pillow(np.dstack([np.full((30, 26, 3), 255, np.uint8), OBJECT * 255]), "PNG"),
        pillow(np.dstack([np.full((30, 26), 255, np.uint8), OBJECT * 255]), "PNG"),
    ],
)
def test_a_mask_that_only_its_alpha_holds_is_refused(picture, data):
    with pytest.raises(ImageError, match=r"only the transparency differs; .* Export it without transparency"):
        picture(data).labels()


def test_alpha_that_follows_the_mask_is_dropped(picture):
    read = picture(pillow(np.dstack([OBJECT * 255, OBJECT * 255]), "PNG"))
    np.testing.assert_array_equal(read.labels(), OBJECT * 255)
    np.testing.assert_array_equal(picture(palette_png(OBJECT, [[0] * 3, [255] * 3], [0, 255])).alpha, OBJECT * 255)


# ---------------------------------------------------------------------------------------------------- sizes


def huge_png() -> bytes:
    data = bytearray(pillow(GREY, "PNG"))
    data[16:24] = struct.pack(">II", 200_000, 200_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def huge_tiff() -> bytes:
    return tiff(np.zeros((3000, 3000), np.uint16), compression="zlib", rowsperstrip=3000)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (huge_png(), "its header says 200000 x 200000 pixels, 40.0 GB decoded; expected at most 16.8 MB"),
        (huge_tiff(), "3000 x 3000 pixels, 18.0 MB decoded"),
        (pillow(Image.new("L", (6000, 3000)), "JPEG"), "6000 x 3000 pixels, 18.0 MB decoded"),
        (pillow(Image.new("L", (6000, 3000)), "BMP"), "6000 x 3000 pixels, 18.0 MB decoded"),
    ],
    ids=["png", "tiff", "jpeg", "bmp"],
)
def test_a_header_is_not_believed_beyond_a_limit(picture, data, text):
    for read in (lambda: picture(data), lambda: read_grey_pages(data, MOST)):
        with pytest.raises(TooLargeError, match=text):
            read()


def _changed(data, place, size):
    changed = bytearray(data)
    changed[place : place + len(size)] = size
    return bytes(changed)


JPEG, BMP, TILES = pillow(GREY, "JPEG"), pillow(GREY, "BMP"), tiff(GREY, tile=(16, 16), compression="zlib")
DAMAGED = {
    "jpeg": (_changed(JPEG, JPEG.index(b"\xff\xc0") + 5, b"\xff\xff"), "65535 pixels; [0-9,]+ bytes hold fewer"),
    "bmp": (_changed(BMP, 18, struct.pack("<ii", 5000, 5000)), "5000 x 5000 pixels; 1,918 bytes hold fewer"),
    "tiff": (_changed(TILES, TILES.index(struct.pack("<H", 257)) + 8, b"\x3e"), "has 8 parts by its size; it lists 4"),
    "circle": (
        _changed(tiff(STACK, metadata=None), tiff(STACK, metadata=None).rindex(bytes(4)), struct.pack("<I", 8)),
        "after [23] images its list of them begins anew",
    ),
    "raw tiff": (
        _changed(tiff(GREY), tiff(GREY).index(struct.pack("<H", 257)) + 8, b"\x0a"),
        "needs 260 bytes by its size and type; it lists 780",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_size_that_does_not_fit_what_is_there(picture, name):
    """The decoders would fill up with grey or zeros, take memory for nothing, or show a part."""
    data, text = DAMAGED[name]
    for read in (lambda: picture(data, 1 << 33), lambda: read_grey_pages(data, 1 << 33)):
        with pytest.raises(ImageError, match=text):
            read()


def test_want_of_memory_is_a_reason(monkeypatch):
    def no_memory(_):
        raise MemoryError

    monkeypatch.setattr(imagecodecs, "png_decode", no_memory)
    with pytest.raises(TooLargeError, match="does not fit into memory"):
        read_grey_pages(pillow(GREY, "PNG"), MOST)


# ---------------------------------------------------------------------------------------------------- damage

WHOLE = {name: data for name, (data, _) in FILES.items()} | {
    "imagej stack": tiff(STACK, imagej=True),
    "ome stack": tiff(STACK, ome=True),
    "one page stack": tiff(STACK, truncate=True),
    "plain stack": tiff(STACK, metadata=None, compression="zlib"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_files_are_refused_unless_all_pixels_are_there(picture, name):
    data = WHOLE[name]
    pages, shown = read_grey_pages(data, MOST), picture(data).shown()
    for length in sorted({*range(0, len(data), max(1, len(data) // 25)), len(data) - 1}):
        for read, right in (
            (lambda part: read_grey_pages(part, MOST), pages),
            (lambda part: picture(part).shown(), shown),
        ):
            try:
                np.testing.assert_array_equal(read(data[:length]), right)
            except ImageError:
                continue
            assert length > 0.9 * len(data)  # what was cut off came after the pixels


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), where=st.floats(0, 1), value=st.integers(1, 255))
def test_a_changed_byte_gives_an_image_or_one_reason(tmp_path_factory, name, where, value):
    data = bytearray(WHOLE[name])
    data[int(where * (len(data) - 1))] ^= value
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(data)
    for read in (lambda: read_grey_pages(bytes(data), MOST), lambda: read_picture(path, MOST).shown()):
        try:
            read()
        except ImageError as error:
            assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no TIFF, PNG, JPEG or BMP"),
        (b"<html>not found</html>", r"no TIFF, PNG, JPEG or BMP \(it begins with b'<html>no'\)"),
        (tiff(np.stack([GREY] * 4, axis=-1), photometric="separated"), "colours of kind SEPARATED; expected grey or"),
        (tiff(np.stack([GREY] * 5, axis=-1), planarconfig="contig"), "5 channels; expected grey or RGB"),
    ],
)
def test_other_files(picture, data, text):
    with pytest.raises(ImageError, match=text):
        picture(data)
    with pytest.raises(ImageError, match=text):
        read_grey_pages(data, MOST)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("slices", [3, 4])
def test_slices_that_tifffile_stores_as_colour_planes(picture, slices):
    array = np.arange(slices * 30, dtype=np.uint8).reshape(slices, 5, 6)
    read = picture(tiff(array, metadata={"axes": "ZYX"}))
    assert read.axes == "ZYX"
    np.testing.assert_array_equal(read.shown(), array)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_an_animated_png_says_that_it_holds_more_images(tmp_path, mode):
    frames = [Image.fromarray(plane).convert(mode) for plane in STACK]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    picture = read_picture(tmp_path / "a.png", MOST)
    np.testing.assert_array_equal(picture.shown().reshape(*GREY.shape, -1)[..., 0], GREY)
    assert picture.remarks == ("the file holds 3 images (an animation); the first was taken",)


def test_masks_are_read_as_the_numbers_that_are_stored():
    labels = np.zeros((30, 26), np.uint8)
    labels[5:20] = 1
    coloured = Image.fromarray(labels, "P")
    coloured.putpalette([0, 0, 0, 255, 0, 0])
    for image in (Image.fromarray(labels), Image.fromarray(labels * 255).convert("1"), coloured):
        file = io.BytesIO()
        image.save(file, "PNG")
        (page,) = read_label_pages(file.getvalue(), MOST)
        np.testing.assert_array_equal(page, labels)
    equal, unequal = np.stack([labels] * 3, -1), np.stack([labels, labels, 0 * labels], -1)
    for colours in (equal, unequal):
        file = io.BytesIO()
        Image.fromarray(colours).save(file, "PNG")
        if colours is equal:
            np.testing.assert_array_equal(read_label_pages(file.getvalue(), MOST), [labels])
            continue
        with pytest.raises(ImageError, match="a mask in colours; expected one number a pixel"):
            read_label_pages(file.getvalue(), MOST)
