"""What must not be taken for something that it is not: places, names, numbers of objects, values, pictures."""

import json
import time
import unicodedata

import h5py
import mrcfile
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from helpers.raw_datasets import read_back, report_of
from PIL import Image
from scipy import ndimage

from dataset_conversion.convert import main
from dataset_conversion.own_data.folder import convert_folder
from nnunetv2_retina.errors import RetinaError

IMAGE = np.random.default_rng(1).integers(0, 255, (24, 32)).astype(np.uint8)
MASK = (ndimage.gaussian_filter(IMAGE.astype(float), 2) > 127).astype(np.uint8)
VOLUME, VOLUME_MASK = np.stack([IMAGE, IMAGE[::-1], IMAGE]), np.stack([MASK, MASK[::-1], MASK])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(folder, *names, image=IMAGE, mask=MASK):
    for number, name in enumerate(names):
        save(folder / "images" / f"{name}.png", np.roll(image, number, 1))
        save(folder / "masks" / f"{name}.png", mask)


def convert(source, raw, **options):
    return convert_folder(source, 501, "Mine", root=raw, **options)


def remarks(folder):
    report = report_of(folder)
    return " | ".join([*report["remarks"], *(text for case in report["cases"] for text in case["remarks"])])


def itk(path, array, flipped=False, units=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    sitk.WriteImage(sitk.Flip(image, [True, True, False]) if flipped else image, str(path))


def test_a_mask_that_lies_otherwise_in_space_is_refused(source, raw):
    itk(source / "images/a.nii.gz", VOLUME)
    itk(source / "masks/a.nii.gz", VOLUME_MASK, flipped=True)
    with pytest.raises(
        RetinaError, match=r"case a: the axes of .* direction \(1, 0, 0, .* mask .* \(-1, 0, 0, .*Resam"
    ):
        convert(source, raw)


def test_two_files_that_lie_alike_are_taken(source, raw):
    for part, array in (("images", VOLUME), ("masks", VOLUME_MASK)):
        itk(source / part / "a.nii.gz", array, flipped=True)
    _, label, _ = read_back(convert(source, raw), "a")
    np.testing.assert_array_equal(label, VOLUME_MASK[:, ::-1, ::-1])


def test_the_single_slice_of_a_mask_belongs_to_an_image(source, raw):
    save(source / "images/a.png", IMAGE)
    itk(source / "masks/a.nii.gz", MASK[None])
    folder = convert(source, raw)
    np.testing.assert_array_equal(read_back(folder, "a")[1][0], MASK)
    assert "single slice" in remarks(folder)


def test_mrc_beside_another_format_is_named(source, raw):
    (source / "images").mkdir()
    (source / "masks").mkdir()
    with mrcfile.new(source / "images/a.mrc") as file:
        file.set_data(VOLUME.astype(np.uint16))
    tifffile.imwrite(source / "masks/a.tif", VOLUME_MASK, photometric="minisblack")
    assert "MRC counts rows from the bottom" in remarks(convert(source, raw))


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("", "val", "other")])
def test_folders_that_are_not_read_are_named(source, raw, parts):
    for number, part in enumerate(parts):
        write(source / part, f"a{number}")
    text = remarks(convert(source, raw))
    assert "val/" in text and ("other/" in text) == ("other" in parts)


def test_test_images_beside_images(source, raw):
    write(source, "a", "b")
    save(source / "test/images/t.png", IMAGE[:20])
    assert (convert(source, raw) / "imagesTs/t_0000.png").is_file()


def test_names_are_paired_in_both_forms_of_unicode(source, raw):
    save(source / "images" / f"{unicodedata.normalize('NFD', 'Zürich_é')}.png", IMAGE)
    save(source / "masks" / f"{unicodedata.normalize('NFC', 'Zürich_é')}.png", MASK)
    assert report_of(convert(source, raw))["totals"]["train"]["cases"] == 1


def test_the_channel_number_of_images(source, raw):
    save(source / "images/a_0000.png", IMAGE)
    save(source / "masks/a.png", MASK)
    assert [case["name"] for case in report_of(convert(source, raw))["cases"]] == ["a"]


def test_a_broken_link_is_named(source, raw):
    write(source, "a")
    (source / "images/b.png").symlink_to("/gone/b.png")
    with pytest.raises(RetinaError, match=r"b\.png is a link to /gone/b\.png, which is not there"):
        convert(source, raw)


def test_numbers_of_objects(source, raw):
    ids = np.zeros_like(MASK)
    for number in range(4):
        ids[2:8, 8 * number : 8 * number + 5] = number + 1
    write(source, "a", "b", mask=ids)
    assert "numbers of objects" in remarks(convert(source, raw))
    ids[20, ::2] = 2
    ids[22, ::2] = 1
    write(source, "a", "b", mask=ids)
    assert "numbers of objects" not in remarks(convert(source, raw, overwrite=True))


def test_masks_of_one_and_masks_of_255(source, raw):
    write(source, "a")
    write(source, "b", mask=MASK * 255)
    with pytest.raises(RetinaError, match=r"none both; .* --labels 1=NAME 255=NAME"):
        convert(source, raw)


def test_minus_one_may_be_unannotated(source, raw):
    save(source / "images/a.png", IMAGE)
    (source / "masks").mkdir()
    tifffile.imwrite(source / "masks/a.tif", MASK.astype(np.int16) * 2 - 1)
    with pytest.raises(RetinaError, match=r"--labels 1=NAME\. .* -1 often marks unannotated voxels: then add --ignore"):
        convert(source, raw)


def test_a_picture_in_train_and_in_test(source, raw):
    write(source / "train", "a", "b")
    write(source / "test", "c")
    text = remarks(convert(source, raw))
    assert "a (train) and c (test) hold the same image: test images must not be trained on" in text


def test_sections_of_volumes(source, raw):
    write(source, *(f"vol{volume}_z{z:03d}" for volume in range(2) for z in range(3)))
    text = remarks(convert(source, raw))
    assert json.dumps({"vol0_z000": "vol0"})[1:-1] in text and '"groups"' in text


def test_numbered_images_are_no_sections(source, raw):
    write(source, *(f"images.{number:03d}" for number in range(4)))
    assert "groups" not in remarks(convert(source, raw))


RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def save_palette(path, indices, *colours):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette([part for colour in colours for part in colour])
    picture.save(path)


def write_palettes(source, *palettes):
    """Write images with masks whose index 1 is the object."""
    for number, colours in enumerate(palettes):
        save(source / "images" / f"{number}.png", np.roll(IMAGE, number, 1))
        save_palette(source / "masks" / f"{number}.png", MASK, *colours)


@pytest.mark.parametrize("options", [{}, {"labels": {1: "one"}}])
def test_an_index_that_stands_for_two_colours_is_refused(source, raw, options):
    write_palettes(source, (BLACK, RED), (BLACK, BLUE))
    message = r"case 1: its mask's palette shows 1 as #0000ff, that of case 0 as #ff0000; expected one palette"
    with pytest.raises(RetinaError, match=message):
        convert(source, raw, **options)


def test_palettes_may_differ_where_nothing_is_meant(source, raw):
    """Colours of indices that do not occur, and those of objects that are all one class."""
    write_palettes(source, (BLACK, RED, BLUE), (BLACK, RED, BLACK))
    assert "the palette's indices are the label values, and 0 is #000000" in remarks(convert(source, raw))
    write_palettes(source, (BLACK, RED), (BLACK, BLUE))
    convert(source, raw, labels={"any": "cell"}, overwrite=True)
    write_palettes(source, (BLACK, RED), (RED, BLACK))
    with pytest.raises(RetinaError, match="shows 0 as #ff0000, that of case 0 as #000000"):
        convert(source, raw, labels={"any": "cell"}, overwrite=True)


def test_an_image_with_and_one_without_channel_number(source, raw):
    write(source, "x", "y")
    save(source / "images/x_0000.png", IMAGE.T)
    with pytest.raises(RetinaError, match=r"two files for one case: .*x\.png and .*x_0000\.png are both x"):
        convert(source, raw)


def test_what_is_not_read_in_a_split_is_said(source, raw):
    write(source / "train", "a", "b")
    save(source / "train/labels/a.png", MASK)
    save(source / "test/images/t.png", IMAGE.T)
    save(source / "test/label/t.png", MASK.T)
    text = remarks(convert(source, raw))
    assert "train: labels/ (read are images/, masks/, boxes/)" in text
    assert "test: label/ (read are images/, masks/, labels/, boxes/)" in text
    (source / "test/boxes").mkdir()
    (source / "test/boxes/t.txt").write_text("0:4,0:4")
    with pytest.raises(RetinaError, match=r"t\.txt: there is no image with a mask t, but"):
        convert(source, raw, overwrite=True)


def imagej(path, array, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / size,) * 2, metadata={"unit": "nm"})


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((8, 4), r"not the same throughout (8 x 8, 4 x 4 nm): none was noted"), ((8, None), "not known for 1: none was")],
)
def test_pixel_sizes_that_are_not_one(source, raw, sizes, said):
    for number, size in enumerate(sizes):
        name, array = source / "images" / str(number), np.roll(IMAGE, number, 1)
        save(name.with_suffix(".png"), array) if size is None else imagej(name.with_suffix(".tif"), array, size)
        save(source / "masks" / f"{number}.png", MASK)
    made = convert(source, raw)
    assert said in remarks(made) and "pixel_size" not in json.loads((made / "dataset.json").read_text())["retina"]


def test_many_objects_are_counted_fast(source, raw):
    numbers = np.arange(1, 4097).reshape(64, 64).repeat(16, 0).repeat(16, 1)
    save(source / "images/a.png", (numbers % 251).astype(np.uint8))
    (source / "masks").mkdir()
    tifffile.imwrite(source / "masks/a.tif", numbers.astype(np.uint16))
    start = time.process_time()
    with pytest.raises(RetinaError, match=r"the masks hold 4096 values .* --labels any=NAME"):
        convert(source, raw)
    assert time.process_time() - start < 5


def test_images_of_one_shape_that_are_no_stack(source, raw):
    write(source, "a")
    (source / "images/a.png").unlink()
    with tifffile.TiffWriter(source / "images/a.tif", ome=True) as writer:
        for plane in VOLUME:
            writer.write(plane, photometric="minisblack")
    with pytest.raises(RetinaError, match=r"holds 3 images of 24 x 32 pixels, not one stack of them; save them as one"):
        convert(source, raw)


@pytest.mark.parametrize("extra", ["unspecified", "unassalpha"])
def test_a_second_channel_is_no_transparency(source, raw, extra):
    write(source, "a", "b")
    (source / "images/a.png").unlink()
    tifffile.imwrite(
        source / "images/a.tif", np.stack([IMAGE, IMAGE[::-1]], axis=-1), photometric="minisblack",
        planarconfig="contig", extrasamples=[extra], metadata=None,
    )  # fmt: skip
    if extra == "unspecified":
        with pytest.raises(RetinaError, match=r"two channels, the second of which the file does not call alpha; save"):
            convert(source, raw)
    else:
        assert "its transparency was dropped" in remarks(convert(source, raw))


def test_colours_in_hdf5_without_names_of_axes(source, raw):
    image = np.stack([IMAGE] * 3, axis=-1)
    with h5py.File(source / "a.h5", "w") as file:
        file["raw"], file["mask"] = image, MASK
    made = convert(f"{source / 'a.h5'}::raw", raw, mask=f"{source / 'a.h5'}::mask", labels={1: "one"})
    assert "the last axis has length 3: taken as colours" in remarks(made)
    np.testing.assert_array_equal(read_back(made, "a")[0], IMAGE[None])


def test_accents_that_are_written_apart(source, raw):
    apart = unicodedata.normalize("NFD", "Müll_1")
    write(source, unicodedata.normalize("NFC", apart), "b")
    (source / "boxes").mkdir()
    (source / "boxes" / f"{apart}.txt").write_text("0:4,0:4")
    assert "1 box is annotated" in remarks(convert(source, raw))
    for part, name in (("images", apart), ("masks", unicodedata.normalize("NFC", apart))):
        for number in range(2):
            save(source / "slices" / part / name / f"z{number}.png", IMAGE + number if part == "images" else MASK)
        (source / "slices" / part / name / "z2.gif").touch()
    text = remarks(convert(source / "slices", raw, slices=True, overwrite=True))
    assert "2 slices, z0.png to z1.png, are one volume" in text and "z2.gif" in text


def test_like_a_data_set_whose_files_do_not_say_their_unit(source, raw, monkeypatch):
    """NIfTI files as they lie in imagesTr, whose header says mm, beside a new volume that states nm."""
    monkeypatch.setenv("nnUNet_raw", str(raw))
    nm = {"unit": "nm", "spacing": 50, "axes": "ZYX"}
    for part, array in (("images", VOLUME), ("masks", VOLUME_MASK)):
        (source / part).mkdir()
        tifffile.imwrite(source / part / "a.tif", array, imagej=True, resolution=(1 / 8, 1 / 8), metadata=nm)
    first = convert(source, raw)
    assert json.loads((first / "dataset.json").read_text())["retina"]["spacing_unit"] == "nm"
    for part, copied in (("images", "imagesTr/a_0000.nii.gz"), ("masks", "labelsTr/a.nii.gz")):
        (source / part / "a.tif").rename(source / part / "new.tif")
        (source / part / "a.nii.gz").write_bytes((first / copied).read_bytes())
    command = ["folder", str(source), "-d", "502", "--name", "Two"]
    assert main([*command, "--like", "501"]) == 0
    second = raw / "Dataset502_Two"
    assert json.loads((second / "dataset.json").read_text())["retina"]["spacing_unit"] == "nm"
    assert [case["spacing"] for case in report_of(second)["cases"]] == [[50, 8, 8]] * 2
    assert main([*command, "--overwrite"]) == 0
    assert "the size of a pixel in nm is not known for a: none was noted" in remarks(second)
