"""The one writer: what it writes nnU-Net reads back voxel for voxel; what it refuses leaves nothing behind."""

import json
import re
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from helpers.raw_datasets import LABELS, case, coordinates, label_of, read_back, report_of, spec
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from dataset_conversion.readers.pixels import count_values, storable_image
from dataset_conversion.readers.slabs import whole
from dataset_conversion.spec import Case, check_labels
from dataset_conversion.writer import case_files
from dataset_conversion.writer.raw_dataset import write_raw_dataset
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.protocol import Protocol

# ---------------------------------------------------------------------------------------------------- what is written


def test_volume_round_trips_at_the_right_axes(tmp_path):
    original = case(shape=(3, 5, 7), spacing=Spacing(40, 8, 4, NANOMETRES))
    folder = write_raw_dataset(spec(), [original], tmp_path)
    image, label, spacing = read_back(folder, "a")
    assert image.shape == (3, 5, 7)
    assert image[2, 4, 6] == 20406
    np.testing.assert_array_equal(image, original.image)
    np.testing.assert_array_equal(label, original.label)
    assert spacing == pytest.approx((40, 8, 4))


@pytest.mark.parametrize(
    ("dtype", "ending", "stored"),
    [
        (np.uint8, ".png", "uint8"),
        (np.uint16, ".png", "uint16"),
        (np.int64, ".png", "uint16"),
        (">u2", ".png", "uint16"),
        (np.int16, ".tif", "int16"),
        (np.float32, ".tif", "float32"),
        (np.float64, ".tif", "float32"),
    ],
)
def test_2d_types(tmp_path, dtype, ending, stored):
    image = coordinates((2, 60)).astype(dtype)
    folder = write_raw_dataset(spec(), [Case("a", image, label_of(image))], tmp_path)
    pixels, label, spacing = read_back(folder, "a")
    np.testing.assert_array_equal(pixels[0], image.astype(np.float32))
    np.testing.assert_array_equal(label[0], label_of(image))
    assert spacing == (999, 1, 1)
    report = report_of(folder)
    assert report["file_ending"] == ending
    assert report["cases"][0]["stored_dtype"] == stored


def test_storable_image_keeps_values():
    assert storable_image(np.array([True])).dtype == np.uint8
    assert storable_image(np.array([-5, 3], np.int64)).dtype == np.int16
    assert whole(storable_image(np.array([0, 70000], np.uint32))).tolist() == [0.0, 70000.0]


def test_nnunet_accepts_the_whole_data_set(tmp_path):
    """Its own ``--verify_dataset_integrity``, with an ignore label and a test case without mask."""
    labels = {**LABELS, "ignore": 3}
    volume = coordinates((3, 5, 7))
    cases = [
        Case("a", volume, (volume % 4).astype(np.int64), Spacing(30, 4, 4)),
        Case("b-1", volume, (volume % 4).astype(float), Spacing(30, 4, 4)),
        Case("t", volume, None, Spacing(30, 4, 4), split="test"),
    ]
    folder = write_raw_dataset(spec(labels=labels), cases, tmp_path)
    verify_dataset_integrity(str(folder), num_processes=1)
    assert (folder / "imagesTs/t_0000.nii.gz").is_file()
    assert not (folder / "labelsTs").exists()


def test_dataset_json(tmp_path):
    settings = spec(reference="a paper", licence="CC0", description="words", protocol=Protocol(iterations=300))
    written = json.loads((write_raw_dataset(settings, [case()], tmp_path) / "dataset.json").read_text())
    assert written["channel_names"] == {"0": "EM"}
    assert written["labels"] == LABELS
    assert (written["numTraining"], written["file_ending"]) == (1, ".png")
    assert (written["reference"], written["licence"], written["description"]) == ("a paper", "CC0", "words")
    assert Protocol.from_dataset_json(written) == Protocol(iterations=300)


def test_retina_block_is_there_even_if_empty(tmp_path):
    written = json.loads((write_raw_dataset(spec(), [case()], tmp_path) / "dataset.json").read_text())
    assert written["retina"] == {}


def test_groups_of_cases_reach_the_protocol(tmp_path):
    settings = spec(protocol=Protocol(groups={"c": "w"}))
    cases = [case("a", group="v"), case("b", group="v"), case("c")]
    written = json.loads((write_raw_dataset(settings, cases, tmp_path) / "dataset.json").read_text())
    assert written["retina"]["groups"] == {"a": "v", "b": "v", "c": "w"}


def test_report(tmp_path):
    label = np.array([[0, 0, 1], [3, 3, 3]])
    image = np.array([[7, 1, 2], [3, 4, 250]], np.uint8)
    settings = spec(labels={**LABELS, "ignore": 3}, source="somewhere", remarks=("said",))
    folder = write_raw_dataset(settings, [Case("a", image, label, Spacing(None, 4, 5), source="A b.png")], tmp_path)
    report = report_of(folder)
    assert (report["source"], report["dataset"], report["ignore_value"]) == ("somewhere", "Dataset501_Test", 3)
    assert report["tool"].startswith("retina_convert ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["date"])
    record = report["cases"][0]
    assert (record["source"], record["axes"], record["shape"]) == ("A b.png", "yx", [2, 3])
    assert (record["spacing"], record["dtype"]) == ([4, 5], "uint8")
    assert (record["intensity_min"], record["intensity_max"]) == (1, 250)
    assert record["label_counts"] == {"0": 2, "1": 1, "2": 0, "3": 3}
    totals = {"cases": 1, "labelled_cases": 1, "label_counts": record["label_counts"], "ignored_voxels": 3}
    assert report["totals"]["train"] == totals
    assert report["remarks"] == ["said", "no training case holds a voxel of er (label value 2)"]


@pytest.mark.parametrize(
    ("spacing", "remark"),
    [
        (None, "no voxel size known: 1 x 1 x 1 was written"),
        (Spacing(15, 16, 16), "the largest spacing is along y: nnU-Net's 2d configuration slices along y, not along z"),
        (Spacing(16, 16, 16), None),
        (Spacing(40, 4, 4), None),
    ],
)
def test_spacing_remarks(tmp_path, spacing, remark):
    report = report_of(write_raw_dataset(spec(), [case(shape=(3, 5, 7), spacing=spacing)], tmp_path))
    assert report["cases"][0]["remarks"] == ([] if remark is None else [remark])


@pytest.mark.parametrize(
    ("shape", "units", "stated"),
    [
        ((3, 5, 7), (NANOMETRES, NANOMETRES), NANOMETRES),
        ((3, 5, 7), (NANOMETRES, None), None),
        ((5, 7), (NANOMETRES, NANOMETRES), None),
    ],
)
def test_unit_of_the_spacing(tmp_path, shape, units, stated):
    """``dataset.json`` states the unit of what the files hold: none in 2D, none where one case leaves it open."""
    cases = [case(f"c{i}", shape, spacing=Spacing.of((4.0,) * len(shape), unit)) for i, unit in enumerate(units)]
    folder = write_raw_dataset(spec(), cases, tmp_path)
    block = json.loads((folder / "dataset.json").read_text())
    assert Protocol.from_dataset_json(block).spacing_unit == stated
    assert report_of(folder)["spacing_unit"] == (NANOMETRES if set(units) == {NANOMETRES} else None)


def test_one_grey_level(tmp_path):
    image = np.full((2, 2), 7, np.uint8)
    report = report_of(write_raw_dataset(spec(), [Case("a", image, image * 0)], tmp_path))
    assert report["cases"][0]["remarks"] == ["the whole image has one grey level (7)"]


def test_one_case_in_memory_at_a_time(tmp_path):
    """The generator is asked for the next case only when the last one is on disk."""
    seen: list[Any] = []

    def cases():
        for name in "abc":
            assert [record.name for record in seen] == [c for c in "abc" if c < name]
            yield case(name)

    write_raw_dataset(spec(), cases(), tmp_path, progress=lambda record, number: seen.append(record))
    assert len(seen) == 3


def test_count_values_beyond_the_table():
    volume = np.array([[[0, 0]], [[70000, 0xFFFFFFFFFFFFFFFF]]], np.uint64)
    assert count_values(volume) == {0: 2, 70000: 1, 0xFFFFFFFFFFFFFFFF: 1}
    assert count_values(np.array([[-1, 2, 2]])) == {-1: 1, 2: 2}
    assert count_values(np.zeros((0, 3), int)) == {}


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        (
            [case(label=np.zeros((7, 5), int))],
            r"case a: the image has shape \(5, 7\), the mask \(7, 5\); expected the same",
        ),
        (
            [case(), case("b", (3, 5, 7))],
            r"case a is 2D, case b is 3D with shape \(3, 5, 7\); expected all 2D or all 3D",
        ),
        ([case(), case("b", dtype=np.float32)], r"case a has type uint16, case b has type float32; .*different scales"),
        ([case("a"), case("A")], r"case A \(train\): the name is already used by a \(train\)"),
        ([case("a"), case("a", split="test")], r"case a \(test\): the name is already used by a \(train\)"),
        ([case("t", split="test")], "no training case; expected at least one image with its mask"),
        ([], "no training case"),
        (
            [case(spacing=Spacing(1, 2, 3))],
            r"case a: spacing 1 2 3 for an image of shape .* expected 2 numbers, in the order y, x",
        ),
        ([case(spacing=(1, 2))], r"spacing is \(1, 2\); expected Spacing.of\(\(y, x\)"),
        ([case(shape=(2, 3, 4, 5))], r"the image has shape \(2, 3, 4, 5\); expected \(Y, X\) or \(Z, Y, X\)"),
        ([Case("a", np.zeros((2, 2), complex), np.zeros((2, 2), int))], "the image has type complex128"),
        ([Case("a", np.zeros((2, 2)), np.zeros((2, 2), "U1"))], "the mask has type <U1; expected whole numbers"),
    ],
)
def test_refused_cases_leave_nothing(tmp_path, cases, message):
    with pytest.raises(RetinaError, match=message):
        write_raw_dataset(spec(), cases, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_undeclared_value_says_where(tmp_path):
    label = np.zeros((3, 5, 7), int)
    label[1, 2, 3] = label[2, 0, 0] = 9
    label[2, 4, 6] = 11
    message = (
        r"case v: label value 9 is not declared \(2 voxels, the first at z=1, y=2, x=3; 1 more such: 11\); "
        r"expected 0, 1, 2\."
    )
    with pytest.raises(RetinaError, match=message):
        write_raw_dataset(spec(), [Case("v", coordinates((3, 5, 7)), label)], tmp_path)


def test_fractional_label(tmp_path):
    label = np.zeros((2, 3))
    label[1, 2] = 0.5
    with pytest.raises(RetinaError, match=r"the mask holds 0.5 at y=1, x=2 \(1 values .* Was it interpolated"):
        write_raw_dataset(spec(), [Case("a", coordinates((2, 3)), label)], tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_not_finite(tmp_path, value):
    image = np.zeros((2, 3), np.float32)
    image[1, 0] = image[1, 1] = value
    message = r"case a: the image holds 2 NaN or infinite values, the first at y=1, x=0; .*nan_to_num"
    with pytest.raises(RetinaError, match=message):
        write_raw_dataset(spec(), [Case("a", image, np.zeros((2, 3), int))], tmp_path)


def test_png_too_large_for_nnunet(tmp_path, monkeypatch):
    monkeypatch.setattr(case_files, "PNG_PIXEL_LIMIT", 34)
    with pytest.raises(RetinaError, match=r"a_0000.png: 5 x 7 pixels; nnU-Net reads PNG images of at most 34"):
        write_raw_dataset(spec(), [case()], tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"mito": 1}, "background is not 0"),
        ({"background": 1, "mito": 0}, "background is not 0"),
        ({"background": 0, "mito": 2}, "the values are not consecutive"),
        ({"background": 0, "mito": 1, "er": 1}, "the values are not consecutive"),
        ({"background": 0, "ignore": 1, "mito": 2}, "ignore is not the highest value"),
        ({"background": 0}, "there is no class but background"),
        ({"background": 0, "ignore": 1}, "there is no class but background"),
        ({"background": 0, "mito": "1"}, "a value is not a whole number"),
        ({"background": 0, " ": 1}, "a class has no name"),
    ],
)
def test_label_table(labels, message):
    with pytest.raises(RetinaError, match=message):
        check_labels(labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": 0}, "data set ID is 0; expected a whole number from 1 to 999"),
        ({"id": 1000}, "data set ID is 1000"),
        ({"name": "a/b"}, "data set name is 'a/b'; expected letters"),
        ({"protocol": Protocol(class_weights=(1, 2))}, "2 class weights for 3 classes"),
        ({"protocol": Protocol(evaluated_classes=(3,))}, r"evaluated_classes \[3\]; the labels are \[0, 1, 2\]"),
    ],
)
def test_description(options, message):
    with pytest.raises(RetinaError, match=message):
        spec(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../a"}, r"case name '\.\./a': expected letters"),
        ({"split": "val"}, "split is 'val'; expected one of train, test"),
        ({"label": None}, "case a: a training case needs a label"),
    ],
)
def test_case(options, message):
    with pytest.raises(RetinaError, match=message):
        case(**options)


def test_protocol_names_unknown_cases(tmp_path):
    folds = ({"train": ["a"], "val": ["nobody"]},)
    with pytest.raises(RetinaError, match="groups or folds name nobody; expected names of training cases: a"):
        write_raw_dataset(spec(protocol=Protocol(folds=folds)), [case("a")], tmp_path)


# ------------------------------------------------------------------------------------------------------ target folder


def test_a_failure_in_the_middle_leaves_the_old_data_set(tmp_path):
    folder = write_raw_dataset(spec(), [case("old")], tmp_path)

    def cases():
        yield case("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raw_dataset(spec(), cases(), tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "imagesTr/old_0000.png").is_file()


def test_existing_data_set(tmp_path):
    folder = write_raw_dataset(spec(), [case("old")], tmp_path)
    with pytest.raises(RetinaError, match=r"Dataset501_Test exists already\. .*--overwrite"):
        write_raw_dataset(spec(), [case("new")], tmp_path)
    write_raw_dataset(spec(), [case("new")], tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == [folder]
    assert [path.name for path in (folder / "labelsTr").iterdir()] == ["new.png"]


def test_id_of_another_data_set(tmp_path, monkeypatch):
    raw, results = tmp_path / "raw", tmp_path / "results"
    (results / "Dataset501_Other").mkdir(parents=True)
    raw.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_results", str(results))
    with pytest.raises(RetinaError, match=r"ID 501 is already used by Dataset501_Other in .*results"):
        write_raw_dataset(spec(), [case()])
    (raw / "Dataset501_Third").mkdir()
    with pytest.raises(RetinaError, match=r"ID 501 is already used by Dataset501_Third in .*raw"):
        write_raw_dataset(spec(), [case()], overwrite=True)


def test_raw_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(RetinaError, match=r"\$nnUNet_raw is not set; .*Run: retina_doctor --init"):
        write_raw_dataset(spec(), [case()])
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "missing"))
    with pytest.raises(RetinaError, match=r"\$nnUNet_raw is .*missing, which does not exist\. Create it: mkdir -p"):
        write_raw_dataset(spec(), [case()])
    (tmp_path / "file").touch()
    with pytest.raises(RetinaError, match=r"the target folder is .*file, which is a file; expected a folder"):
        write_raw_dataset(spec(), [case()], tmp_path / "file")


def test_read_only_folder(tmp_path, monkeypatch):
    """Patched: for root, as in many containers, no folder is read-only."""

    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RetinaError, match=r"is not writable \(Permission denied\)\. Change its permissions"):
        write_raw_dataset(spec(), [case()], tmp_path)


def test_rename_fails(tmp_path, monkeypatch):
    folder = write_raw_dataset(spec(), [case("old")], tmp_path)
    rename = Path.rename

    def refuse(self, target):
        if ".partial-" in self.name:
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RetinaError, match=r"cannot put .*Dataset501_Test in place \(Permission denied\)"):
        write_raw_dataset(spec(), [case("new")], tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "imagesTr/old_0000.png").is_file()


def test_disk_full(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(iio, "imwrite", refuse)
    with pytest.raises(RetinaError, match=r"cannot write .*a_0000.png: .*No space left.*Is the disk full"):
        write_raw_dataset(spec(), [case()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_conversion_to_an_id_at_a_time(tmp_path):
    def cases():
        yield case("first")
        for name in ("Test", "Other"):
            with pytest.raises(RetinaError, match=r"another conversion is writing a data set with ID 501"):
                write_raw_dataset(spec(name=name), [case("second")], tmp_path, overwrite=True)
        write_raw_dataset(spec(id=502), [case("other")], tmp_path)

    folder = write_raw_dataset(spec(), cases(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset501_Test", "Dataset502_Test"]
    assert [path.name for path in (folder / "labelsTr").iterdir()] == ["first.png"]


def test_what_killed_conversions_left_is_removed_or_put_back(tmp_path):
    folder = write_raw_dataset(spec(), [case("old")], tmp_path)
    folder.rename(tmp_path / ".Dataset501_Test.old-0123abcd")  # killed between the two renames of --overwrite
    (tmp_path / ".Dataset501_Test.partial-0123abcd" / "imagesTr").mkdir(parents=True)
    (tmp_path / ".Dataset502_Test.partial-0123abcd").mkdir()
    with pytest.raises(RetinaError, match=r"Dataset501_Test exists already"):
        write_raw_dataset(spec(), [case("new")], tmp_path)
    assert (folder / "imagesTr/old_0000.png").is_file()
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".Dataset502_Test.partial-0123abcd", folder]
