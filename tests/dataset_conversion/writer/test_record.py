"""The report's numbers, the printed table and the sheet of slices."""

import json

import numpy as np
import pytest
from helpers.raw_datasets import LABELS, case, coordinates, report_of, spec
from PIL import Image

from dataset_conversion.readers.slabs import slabs
from dataset_conversion.spec import Case
from dataset_conversion.writer.raw_dataset import write_raw_dataset
from dataset_conversion.writer.record import SHEET, ImageNotes
from dataset_conversion.writer.sheet import SheetCollector, pick_slices
from dataset_conversion.writer.summary import summary
from nnunetv2_retina.nnunet.datasets import SPLITS_JSON
from nnunetv2_retina.protocol import Protocol

# ------------------------------------------------------------------------------------------------------------ padding


def padding_share(image):
    notes = ImageNotes(image, image.min(), image.max())
    for _, slab in slabs(image):
        notes.add(slab)
    return notes.padding


def test_padding_is_black_and_touches_the_border():
    image = np.full((2, 10, 10), 9)
    image[0, :3] = 0  # 30 of the first slice
    image[1, 4:6, 4:6] = 0  # black tissue inside
    assert padding_share(image) == 30 / 200
    assert padding_share(image[0]) == 0.3


def test_black_is_the_lowest_grey_level():
    image = np.full((10, 10), 100, np.int16)
    image[:, 8:] = -32768
    assert padding_share(image) == 0.2


def test_single_black_pixels_are_no_padding():
    image = np.full((100, 100), 9)
    image[0, :9] = 0
    assert padding_share(image) == 0
    image[0, :10] = 0
    assert padding_share(image) == 0.001


def test_flat_image_has_no_padding():
    assert padding_share(np.zeros((4, 4))) == 0


# -------------------------------------------------------------------------------------------------------------- folds


def test_folds_are_reported_and_written_where_nnunet_could_not_make_them(tmp_path):
    settings = spec(protocol=Protocol(folds=({"train": ["a"], "val": ["b"]},)))
    folder = write_raw_dataset(settings, [case("a"), case("b")], tmp_path)
    assert (
        json.loads((folder / SPLITS_JSON).read_text()) == report_of(folder)["folds"] == [{"train": ["a"], "val": ["b"]}]
    )


@pytest.mark.parametrize(("number", "written"), [(1, False), (3, True), (5, False)])
def test_fewer_cases_than_nnunet_has_folds(tmp_path, number, written):
    folder = write_raw_dataset(spec(), [case(name) for name in "abcde"[:number]], tmp_path)
    assert (folder / SPLITS_JSON).is_file() == written
    assert len(report_of(folder)["folds"]) == (number if number > 1 else 0)


# -------------------------------------------------------------------------------------------------------------- table


def test_table(tmp_path):
    image = np.full((5, 40), 9, np.uint8)
    image[:, :10] = 0
    label = np.zeros((5, 40), np.uint8)
    label[:, 30:] = 2
    text = summary(write_raw_dataset(spec(), [Case(name, image, label) for name in "abc"], tmp_path))
    assert "a     5 x 40  1 x 1    uint8  0 to 9       25.0 %   yes" in text
    assert "2      er          150           25.00 %" in text
    assert "fold 0: trains on 2, validates on 1" in text
    assert "fold all: trains on 3" in text
    assert SHEET not in text


@pytest.mark.parametrize("stale", [True, False])
def test_stale_folds_are_to_be_deleted_first(tmp_path, monkeypatch, stale):
    """nnU-Net stops with a bare assertion if the preprocessed data set has other folds than the raw one."""
    preprocessed = tmp_path / "preprocessed" / "Dataset501_Test"
    preprocessed.mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    folder = write_raw_dataset(spec(), [case("a"), case("b")], tmp_path / "raw")
    content = "[]" if stale else (folder / SPLITS_JSON).read_text()
    (preprocessed / SPLITS_JSON).write_text(content)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    text = summary(folder)
    assert ("rm " in text) == stale
    assert text.endswith("--verify_dataset_integrity --clean")


# -------------------------------------------------------------------------------------------------------------- sheet


def test_sheet_is_drawn_for_benchmarks(tmp_path):
    cases = [case("a", (4, 8, 9)), case("b", (4, 8, 9)), case("t", (4, 8, 9), split="test")]
    folder = write_raw_dataset(spec(benchmark=True), cases, tmp_path)
    with Image.open(folder / SHEET) as image:
        assert image.width > 1000
    assert f"Look at {folder / SHEET}" in summary(folder)


def test_slices_are_those_with_most_labels():
    label = np.zeros((6, 4, 4), np.uint8)
    label[1, 0, 0] = label[1, 0, 1] = 1
    label[2, 0, 0], label[2, 0, 1] = 1, 2  # more classes
    label[5, :2] = 1
    label[4, :1] = 1
    image = coordinates((6, 4, 4))
    chosen = pick_slices("v", image, label)
    assert [picked.title for picked in chosen] == ["v, slice 2", "v, slice 5"]
    np.testing.assert_array_equal(chosen[1].image, image[5])
    np.testing.assert_array_equal(chosen[0].label, label[2])


def test_a_single_slice_is_shown_once():
    image = coordinates((1, 4, 4))
    assert len(pick_slices("v", image, np.zeros(image.shape, np.uint8))) == 1


def test_large_slices_are_thinned_out():
    image = np.zeros((1000, 1300), np.uint8)
    assert pick_slices("i", image, image)[0].image.shape == (334, 434)


@pytest.mark.parametrize("number", [1, 6, 7, 12, 13, 100])
def test_cases_shown_are_spread_over_all(number):
    collector = SheetCollector()
    image = np.zeros((2, 2), np.uint8)
    for i in range(number):
        collector.add("train", pick_slices(f"c{i}", image, image))
    shown = [int(picked.title.rsplit("c", 1)[1]) for picked in collector._splits["train"].chosen()]
    assert len(shown) == min(6, number) and shown == sorted(set(shown))
    assert shown[0] == 0 and shown[-1] >= number * 0.75 - 1


@pytest.mark.parametrize("value", [0, 3])
def test_an_ignore_value_that_no_mask_holds_is_said(tmp_path, value):
    labels = LABELS | {"ignore": max(LABELS.values()) + 1}
    one = case()
    one.label[0, 0] = value and labels["ignore"]
    folder = write_raw_dataset(spec(labels=labels), [one], tmp_path)
    assert ("no mask holds an unannotated (ignored) voxel" in summary(folder)) == (value == 0)
