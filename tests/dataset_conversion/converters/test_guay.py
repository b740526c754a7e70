"""Guay: every voxel where it was, its authors' label names, real label volumes and slices; and what is refused."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from helpers.benchmark_sources import GUAY_VOLUMES, coordinates, guay, guay_members, tiff, zipped
from helpers.checks import known
from helpers.environment import SHARED
from helpers.raw_datasets import convert_one, read_back, report_of
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

convert_guay = partial(convert_one, "guay")
REAL = SHARED / "data" / "guay"
ARCHIVE = "platelet_data_1219.zip"


def refused(source, raw, message, **changed):
    """``changed``: members of the archive to replace (``train_labels=...``), None to leave out."""
    members, _ = guay_members()
    for name, content in changed.items():
        key = f"platelet_data/{name.replace('_', '-')}.tif"
        if content is None:
            del members[key]
        else:
            members[key] = content
    zipped(source / ARCHIVE, members)
    with pytest.raises(RetinaError, match=message):
        convert_guay(source, root=raw)
    assert list(raw.iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
def test_every_voxel_is_where_it_was(source, raw, packed):
    members, expected = guay_members()
    if packed:
        zipped(source / ARCHIVE, members)
    else:
        for name, content in members.items():
            (source / Path(name).name).write_bytes(content)
    folder = convert_guay(source, root=raw)
    assert folder.name == "Dataset802_Guay"
    for name, case in expected.items():
        image, label, spacing = read_back(folder, name, case.part)
        np.testing.assert_array_equal(image, case.image)
        np.testing.assert_array_equal(label, case.label)
        assert spacing == pytest.approx((40, 10, 10))
    assert {case["stored_dtype"] for case in report_of(folder)["cases"]} == {"int16"}


def test_labels_and_settings(source, raw):
    guay(source)
    folder = convert_guay(source, root=raw)
    written = json.loads((folder / "dataset.json").read_text())
    assert list(written["labels"]) == [
        "background", "cell", "mitochondrion", "alpha_granule", "canalicular_vessel", "dense_granule_body",
        "dense_granule_core",
    ]  # fmt: skip
    settings = Protocol.from_dataset_json(written)
    assert list(known(settings.class_weights)) == [0.1, 0.1, 1, 1, 0.1, 3, 3]
    assert (settings.evaluated_classes, settings.mask_rule) == ((2, 3, 4, 5, 6), "foreground")
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": ["train"], "val": ["eval"]}]
    assert [path.name for path in (folder / "labelsTs").iterdir()] == ["test.nii.gz"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_real_label_volumes_and_slices(source, raw):
    """The three released label volumes; their images are not here, but for the first slice of two."""
    for volume in GUAY_VOLUMES:
        label = tifffile.imread(REAL / "full_label_volumes" / f"{volume}-labels.tif")
        image = np.zeros(label.shape, np.int16)
        image[:, 0, 0] = -1
        if volume != "test":
            grey = np.asarray(Image.open(REAL / "images" / f"{volume}_z000_uint16.png"))
            image[0] = grey.astype(np.int32) - 32768
        (source / f"{volume}-labels.tif").write_bytes(
            (REAL / "full_label_volumes" / f"{volume}-labels.tif").read_bytes()
        )
        tifffile.imwrite(source / f"{volume}-images.tif", image)
    folder = convert_guay(source, root=raw)
    for case in report_of(folder)["cases"]:
        truth = tifffile.imread(REAL / "full_label_volumes" / f"{case['name']}-labels.tif")
        assert list(case["label_counts"].values()) == np.bincount(truth.ravel(), minlength=7).tolist()
        part = "Ts" if case["split"] == "test" else "Tr"
        image, label = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / file)))
            for file in (f"images{part}/{case['name']}_0000.nii.gz", f"labels{part}/{case['name']}.nii.gz")
        )
        np.testing.assert_array_equal(label, truth)
        if case["split"] == "train":
            grey = np.asarray(Image.open(REAL / "images" / f"{case['name']}_z000_uint16.png"))
            np.testing.assert_array_equal(image[0], grey.astype(np.int32) - 32768)
            mask = np.asarray(Image.open(REAL / "masks" / f"{case['name']}_z000.png"))
            np.testing.assert_array_equal(label[0], mask)
    assert [case["shape"] for case in report_of(folder)["cases"]] == [[50, 800, 800], [24, 800, 800], [121, 609, 400]]


# ---------------------------------------------------------------------------------------------------- what is refused


def test_missing_members_are_named(source, raw):
    refused(source, raw, r"missing eval-images.tif, test-labels.tif; found", eval_images=None, test_labels=None)


def test_unexpected_value_says_which_and_where(source, raw):
    label = np.zeros(GUAY_VOLUMES["eval"], np.uint16)
    label[2, 5, 7] = 9
    message = (
        r"case eval \(.*platelet_data_1219.zip: platelet_data/eval-labels.tif\): label value 9 is not declared "
        r"\(1 voxels, the first at z=2, y=5, x=7\); expected 0, 1, 2, 3, 4, 5, 6. Is it the file"
    )
    refused(source, raw, message, eval_labels=tiff(label))


def test_exchanged(source, raw):
    members, _ = guay_members()
    message = (
        r"train-images.tif holds nothing but 0 to 6, .*train-labels.tif -30000 to .*; expected grey levels in the "
        r"first and labels 0 to 6 in the second. The two look exchanged: rename them"
    )
    images, labels = members["platelet_data/train-images.tif"], members["platelet_data/train-labels.tif"]
    refused(source, raw, message, train_images=labels, train_labels=images)


def test_shapes_differ(source, raw):
    message = r"test-images.tif has shape \(4, 35, 30\), its mask .*test-labels.tif \(4, 30, 35\); expected the same"
    refused(source, raw, message, test_labels=tiff(np.zeros((4, 30, 35), np.uint16)))


def test_single_slice(source, raw):
    slices = tiff(coordinates((5, 6), np.int16)), tiff(np.zeros((5, 6), np.uint16))
    message = r"eval-images.tif has shape \(5, 6\); expected a stack \(z, y, x\)"
    refused(source, raw, message, eval_images=slices[0], eval_labels=slices[1])


def test_truncated_tiff(source, raw):
    content = tiff(coordinates((5, 38, 42), np.int16))
    message = r"platelet_data_1219.zip: platelet_data/train-images.tif: cannot be read as tif .*Is the file complete"
    refused(source, raw, message, train_images=content[:-3000])


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_archive(source, raw, damage):
    guay(source)
    content = bytearray((source / ARCHIVE).read_bytes())
    if damage == "flipped":
        content[200:260] = bytes(60)
    (source / ARCHIVE).write_bytes(bytes(content[: len(content) // 2]) if damage == "truncated" else bytes(content))
    with pytest.raises(RetinaError, match=r"platelet_data_1219.zip.*cannot be read.* download it again"):
        convert_guay(source, root=raw)
    assert list(raw.iterdir()) == []


def test_tiff_helper_writes_pages():
    assert tifffile.imread(io.BytesIO(tiff(np.zeros((4, 5, 6), np.int16)))).shape == (4, 5, 6)
