"""What must not be taken for something that it is not: places, names, numbers of objects, values, pictures."""

import json
import unicodedata

import mrcfile
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from helpers.raw_datasets import read_back, report_of
from PIL import Image
from scipy import ndimage

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
