"""Every file format: the axes and values as written by the format's own library, and one clear error for the rest."""

import json

import h5py
import imagecodecs
import mrcfile
import numpy as np
import pytest
import SimpleITK
import tifffile
from helpers.checks import known
from PIL import Image

from dataset_conversion.readers.hdf5 import match_datasets, split_location
from dataset_conversion.readers.images import SUPPORTED, file_stem, file_suffix, read_image
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

PLANE = (np.arange(2)[:, None] * 100 + np.arange(3)).astype(np.uint16)
"""(y=1, x=2) -> 102"""
VOLUME = (np.arange(4)[:, None, None] * 10000 + PLANE).astype(np.uint16)
"""(z=3, y=1, x=2) -> 30102"""


def write_itk(path, array, spacing):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    SimpleITK.WriteImage(image, str(path))


def write_mrc(path, array, voxel_size=None):
    with mrcfile.new(path) as file:
        file.set_data(array)
        if voxel_size is not None:
            file.voxel_size = voxel_size


def write_hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file[name.replace("__", "/")] = array


# ------------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
def test_itk(tmp_path, ending):
    path = tmp_path / f"a.b{ending}"
    write_itk(path, VOLUME, (40.0, 8.0, 4.0))
    image = read_image(path)
    np.testing.assert_array_equal(image.array, VOLUME)
    assert image.array.dtype == np.uint16 and image.spacing == Spacing(40, 8, 4)  # EM files write nm for mm: no unit
    assert read_image(path, mask=True).spacing is None
    assert (file_stem(path), file_suffix(path)) == ("a.b", ending)


@pytest.mark.parametrize("array", [PLANE, VOLUME])
def test_tiff(tmp_path, array):
    tifffile.imwrite(tmp_path / "a.TIFF", array, photometric="minisblack")
    image = read_image(tmp_path / "a.TIFF")
    np.testing.assert_array_equal(image.array, array)
    assert image.array.dtype == np.uint16 and (image.spacing, image.remarks) == (None, ())


def test_tiff_of_imagej_knows_its_spacing(tmp_path):
    for unit, factor in (("nm", 1), ("micron", 1000), ("\\u00B5m", 1000)):
        metadata = {"spacing": 40, "unit": unit, "axes": "ZYX"}
        tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=True, resolution=(1 / 4, 1 / 8), metadata=metadata)
        spacing = known(read_image(tmp_path / "a.tif").spacing)
        assert tuple(spacing) == pytest.approx((40 * factor, 8 * factor, 4 * factor))
        assert spacing.unit == NANOMETRES


def test_tiff_of_ome_knows_its_spacing(tmp_path):
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.004,
        "PhysicalSizeY": 8,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.04,
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, ome=True, metadata=metadata, photometric="minisblack")
    assert tuple(known(read_image(tmp_path / "a.ome.tif").spacing)) == pytest.approx((40, 8, 4))


def test_tiff_time_taken_as_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=True, metadata={"axes": "TYX"})
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, VOLUME)
    assert image.remarks == ("the file calls its first axis time; it was taken as z",)


def test_tiff_white_is_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="miniswhite")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, 65535 - PLANE)
    assert image.remarks == ("the file shows 0 as white; it was read as it shows",)
    mask = read_image(tmp_path / "a.tif", mask=True)
    np.testing.assert_array_equal(mask.array, PLANE)
    assert mask.remarks == ("the file shows 0 as white; the stored values were taken",)


def test_mrc(tmp_path):
    write_mrc(tmp_path / "a.mrc", VOLUME.astype(np.int16), (40, 80, 400))  # x, y, z in angstrom
    image = read_image(tmp_path / "a.mrc")
    np.testing.assert_array_equal(image.array, VOLUME.astype(np.int16))
    spacing = known(image.spacing)
    assert tuple(spacing) == pytest.approx((40, 8, 4)) and spacing.unit == NANOMETRES
    write_mrc(tmp_path / "b.rec", VOLUME.astype(np.float32))
    assert read_image(tmp_path / "b.rec").spacing is None


@pytest.mark.parametrize(("flags", "expected"), [(0, 200), (1, -56)])
def test_mrc_of_imod_bytes(tmp_path, flags, expected):
    path = tmp_path / "a.rec"
    write_mrc(path, np.full((2, 2, 2), -56, np.int8))
    with path.open("r+b") as file:
        file.seek(152)
        file.write(np.array([1146047817, flags], "<i4").tobytes())
    image = read_image(path)
    assert int(image.array[0, 0, 0]) == expected
    assert bool(image.remarks) == (flags == 0)


def test_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path, raw=VOLUME, volumes__mask=VOLUME > 0, note=np.zeros(3))
    with h5py.File(path, "a") as file:
        file["raw"].attrs["resolution"] = (40, 8, 4)
        file["volumes/mask"].attrs["element_size_um"] = (0.04, 0.008, 0.004)
    image = read_image(path, "/raw")
    np.testing.assert_array_equal(image.array, VOLUME)
    assert image.spacing == Spacing(40, 8, 4, NANOMETRES)
    assert tuple(known(read_image(path, "volumes/mask").spacing)) == pytest.approx((40, 8, 4))
    assert read_image(path, "volumes/mask", mask=True).spacing is None


def test_hdf5_only_data_set(tmp_path):
    write_hdf5(tmp_path / "a.hdf", raw=VOLUME[None])
    image = read_image(tmp_path / "a.hdf")
    np.testing.assert_array_equal(image.array, VOLUME)
    assert image.remarks == ("data set raw: the only one in the file",)


def test_hdf5_several_volumes(tmp_path):
    write_hdf5(tmp_path / "a.h5", one__raw=VOLUME, two__raw=VOLUME, two__deep__raw=VOLUME)
    assert match_datasets(tmp_path / "a.h5", "/*/raw") == {"one": "one/raw", "two": "two/raw"}
    with pytest.raises(RetinaError, match=r"no data set fits '\*/labels'. The file holds: one/raw \(4, 2, 3\), two/"):
        match_datasets(tmp_path / "a.h5", "*/labels")


def test_split_location():
    assert [str(part) for part in split_location("d/a.h5::/x/y")] == ["d/a.h5", "x/y"]
    assert split_location("d/a.tif")[1] is None


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_grey_8_bit(tmp_path, ending):
    array = PLANE.astype(np.uint8)
    Image.fromarray(array).save(tmp_path / f"a{ending}")
    image = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(image.array, array)
    assert image.array.dtype == np.uint8


def test_png_16_and_1_bit(tmp_path):
    Image.fromarray(PLANE * 600).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array, PLANE * 600)
    assert image.array.dtype == np.uint16
    Image.fromarray(PLANE > 2).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").array.tolist() == [[0, 0, 0], [255, 255, 255]]
    assert read_image(tmp_path / "b.png", mask=True).array.tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_colour_channels(tmp_path, mode):
    array = PLANE.astype(np.uint8)
    Image.fromarray(array).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array, array)
    assert (
        image.remarks
        == {
            "RGB": ("grey saved as RGB: the one grey channel was taken",),
            "RGBA": ("its transparency was dropped", "grey saved as RGB: the one grey channel was taken"),
            "LA": ("its transparency was dropped",),
        }[mode]
    )


def test_grey_in_16_bit_colour(tmp_path):
    """Pillow alone would cut it to 8 bits."""
    colour = np.stack([PLANE * 600] * 3, axis=-1)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(colour))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array, PLANE * 600)


def test_grey_in_colour_tiff(tmp_path):
    for array in (PLANE, VOLUME):
        tifffile.imwrite(tmp_path / "a.tif", np.stack([array] * 3, axis=-1), photometric="rgb")
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(image.array, array)
        assert "RGB" in image.remarks[0]
    tifffile.imwrite(tmp_path / "b.tif", np.stack([PLANE] * 3), imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").array, PLANE)


def test_palette_mask_gives_its_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    mask = read_image(tmp_path / "a.png", mask=True)
    assert mask.array.tolist() == [[0, 1, 2]]
    assert "palette" in mask.remarks[0]
    with pytest.raises(RetinaError, match="a colour image"):
        read_image(tmp_path / "a.png")


def test_jpeg_is_for_images(tmp_path):
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").remarks == ("JPEG: compressed with loss, which is fine for an image",)
    with pytest.raises(RetinaError, match=r"a.jpg: JPEG changes pixel values, so it cannot hold a mask. Export"):
        read_image(tmp_path / "a.jpg", mask=True)


# ------------------------------------------------------------------------------------------------------------ errors


def test_real_colour(tmp_path):
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[1, 2] = 255, 0, 0
    Image.fromarray(colour).save(tmp_path / "a.png")
    with pytest.raises(RetinaError, match=r"its channels differ in 1 of 6 pixels\); expected grey. Convert .*ImageJ"):
        read_image(tmp_path / "a.png")
    with pytest.raises(RetinaError, match=r"expected grey. Give each class one grey value instead of a colour"):
        read_image(tmp_path / "a.png", mask=True)


@pytest.mark.parametrize("ending", SUPPORTED)
def test_unreadable(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"not an image at all")
    with pytest.raises(RetinaError, match=rf"a{ending}: cannot be read as .* Is the file complete"):
        read_image(path)


def test_unsupported_and_missing(tmp_path):
    with pytest.raises(RetinaError, match=r"a.czi: files ending in .czi are not read; expected .png, .bmp"):
        read_image(tmp_path / "a.czi")
    with pytest.raises(RetinaError, match=r"a.png: no such file"):
        read_image(tmp_path / "a.png")


def test_hdf5_data_set_missing(tmp_path):
    write_hdf5(tmp_path / "a.h5", raw=VOLUME, labels=VOLUME)
    listing = r"The file holds: labels \(4, 2, 3\), raw \(4, 2, 3\)"
    with pytest.raises(RetinaError, match=rf"no data set 'mask' with two or more axes. {listing}"):
        read_image(tmp_path / "a.h5", "mask")
    with pytest.raises(RetinaError, match=rf"which data set\? Name one .*{listing}"):
        read_image(tmp_path / "a.h5")
    write_hdf5(tmp_path / "b.h5", note=np.zeros(3))
    with pytest.raises(RetinaError, match="The file holds no array with two or more axes"):
        read_image(tmp_path / "b.h5")


def test_too_many_axes(tmp_path):
    write_hdf5(tmp_path / "a.h5", raw=np.zeros((2, 2, 3, 3)))
    with pytest.raises(RetinaError, match=r"the image has shape \(2, 2, 3, 3\); expected \(Y, X\) or \(Z, Y, X\)"):
        read_image(tmp_path / "a.h5")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 5, 6), np.uint8), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(RetinaError, match=r"a TIFF with axes CYX and shape \(2, 5, 6\); expected YX or ZYX"):
        read_image(tmp_path / "a.tif")


# --------------------------------------------------------------------------------------------------- axes and units


def test_parts_of_hdf5_that_were_never_written_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (4, 2, 3), np.uint8, chunks=(1, 2, 3), fillvalue=7)[1:3] = 1
    read = read_image(tmp_path / "a.h5")
    assert read.array[:, 0, 0].tolist() == [7, 1, 1, 7]
    assert read.remarks[-1] == "2 of 4 parts of /raw were never written: read as 7"
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("raw", (4, 2, 3), np.uint8)
    assert "1 of 1 parts of /raw were never written" in read_image(tmp_path / "b.h5").remarks[-1]


def test_a_part_of_hdf5_in_a_file_that_is_gone_is_refused(tmp_path):
    write_hdf5(tmp_path / "part.h5", raw=VOLUME)
    layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    layout[:] = h5py.VirtualSource("part.h5", "raw", VOLUME.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    np.testing.assert_array_equal(read_image(tmp_path / "a.h5").array, VOLUME)
    (tmp_path / "part.h5").unlink()
    with pytest.raises(RetinaError, match=r"a part of /raw lies in part\.h5, which is not there"):
        read_image(tmp_path / "a.h5")


def test_hdf5_larger_than_the_memory_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (10**6, 10**6, 10), np.uint8, chunks=(100, 100, 10))
    with pytest.raises(RetinaError, match=r"its header says 1000000 x 1000000 x 10, 10000\.0 GB decoded; .* Cut it"):
        read_image(tmp_path / "a.h5")


@pytest.mark.parametrize("keys", ["yxc", "cyx", "xy", "tyx"])
def test_axes_that_ilastik_names(tmp_path, keys):
    array = PLANE.T if keys == "xy" else np.expand_dims(PLANE, next(i for i, key in enumerate(keys) if key in "ct"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("exported_data", data=array)
        item.attrs["axistags"] = json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in keys]})
    image = read_image(tmp_path / "a.h5")
    np.testing.assert_array_equal(image.array, PLANE)
    assert any("by the file's own names: read as yx" in text for text in image.remarks) == (keys != "yx")


def test_a_last_axis_of_one_is_a_channel(tmp_path):
    write_hdf5(tmp_path / "a.h5", raw=PLANE[..., None])
    assert read_image(tmp_path / "a.h5").array.shape == PLANE.shape


def test_several_channels_are_no_slices(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("raw", data=np.zeros((4, 5, 2), np.uint8))
        item.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "yxc"]})
    with pytest.raises(RetinaError, match="raw has 2 channels"):
        read_image(tmp_path / "a.h5")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_mrc_in_any_order_of_axes(tmp_path, order):
    """``order``: which of x, y, z the columns, rows and sections are."""
    stored = VOLUME.transpose([3 - axis for axis in reversed(order)])
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.ascontiguousarray(stored))
        file.header.mapc, file.header.mapr, file.header.maps = order
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc").array, VOLUME)


@pytest.mark.parametrize(("most", "dtype"), [(200, np.uint8), (100, np.int8)])
def test_mrc_bytes_by_the_grey_levels_of_the_header(tmp_path, most, dtype):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 8
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(values.view(np.int8))
        file.header.dmin, file.header.dmax = 0, most
    image = read_image(tmp_path / "a.mrc")
    np.testing.assert_array_equal(image.array, values.view(dtype))
    assert any("signed" in text for text in image.remarks)


@pytest.mark.parametrize(("code", "spacing"), [
    ("micron", Spacing(50, 5, 5, NANOMETRES)), ("mm", Spacing(0.05, 0.005, 0.005)), (0, Spacing(0.05, 0.005, 0.005)),
])  # fmt: skip
def test_the_unit_of_nifti(tmp_path, code, spacing):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.diag([0.005, 0.005, 0.05, 1]))
    image.header.set_xyzt_units(code)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = known(read_image(tmp_path / "a.nii.gz").spacing)
    np.testing.assert_allclose(list(read), list(spacing), rtol=1e-5)
    assert read.unit == spacing.unit


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1e3), ("nm", 1), ("\u00e5", 0.1), ("pm", 1e-3), ("mm", None), ("", None)]
)
def test_the_unit_of_nrrd(tmp_path, unit, factor):
    header = "NRRD0005\ntype: uint16\ndimension: 3\nspace dimension: 3\nsizes: 3 2 4\n"
    header += "space directions: (2,0,0) (0,2,0) (0,0,9)\n"
    header += f'space units: "{unit}" "{unit}" "{unit}"\n' if unit else ""
    (tmp_path / "a.nrrd").write_bytes((header + "encoding: raw\nendian: little\n\n").encode() + VOLUME.tobytes())
    spacing = known(read_image(tmp_path / "a.nrrd").spacing)
    np.testing.assert_allclose(list(spacing), np.multiply((9, 2, 2), factor or 1))
    assert spacing.unit == (NANOMETRES if factor else None)


@pytest.mark.parametrize(("unit", "dots", "expected"), [
    ("inch", 25400000 / 4, 4.0), ("cm", 1e7 / 4, 4.0), ("\\u00c5", 1 / 40, 4.0), ("inch", 72, None),
])  # fmt: skip
def test_units_of_imagej(tmp_path, unit, dots, expected):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, imagej=True, resolution=(dots, dots), metadata={"unit": unit})
    image = read_image(tmp_path / "a.tif")
    assert (image.spacing is None) == (expected is None)
    if expected:
        np.testing.assert_allclose(list(known(image.spacing)), (expected, expected), rtol=1e-3)
    else:
        assert any("a screen's or a printer's" in text for text in image.remarks)
