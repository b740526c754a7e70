"""A user's own folder: every layout that is read, every mistake with its text, and what the command shows."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from helpers.environment import SHARED
from helpers.raw_datasets import coordinates, read_back, report_of
from PIL import Image

from dataset_conversion.convert import main
from dataset_conversion.own_data.folder import convert_folder
from dataset_conversion.own_data.layout import Hdf5Paths, case_names
from dataset_conversion.own_data.mask_values import declared_map, found_map, parse_labels
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing

DATA = SHARED / "data"
IMAGE = coordinates((5, 7), np.uint8)
MASK = (IMAGE % 3).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack" if array.shape[-1] != 3 else "rgb")


def pair(folder, name="a", image=IMAGE, mask=MASK, ending=".png", masks="masks"):
    save(folder / "images" / f"{name}{ending}", image)
    if mask is not None:
        save(folder / masks / f"{name}{ending}", mask)


def convert(source, raw, **options):
    return convert_folder(source, 501, "Mine", root=raw, **options)


def refused(source, raw, message, **options):
    with pytest.raises(RetinaError, match=message):
        convert(source, raw, **options)
    assert list(raw.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_images_and_masks(source, raw, masks):
    pair(source, masks=masks)
    image, label, _ = read_back(convert(source, raw), "a")
    np.testing.assert_array_equal(image[0], IMAGE)
    np.testing.assert_array_equal(label[0], MASK)


def test_train_and_test(source, raw):
    pair(source / "train", "a")
    pair(source / "test", "b")
    pair(source / "test", "c", mask=None)
    folder = convert(source, raw)
    read_back(folder, "b", "Ts")
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == ["b_0000.png", "c_0000.png"]
    assert report_of(folder)["totals"]["test"]["cases"] == 2


def test_test_without_masks_folder(source, raw):
    pair(source / "train", "a")
    pair(source / "test", "b", mask=None)
    assert not (convert(source, raw) / "labelsTs").exists()


def test_volume_keeps_its_axes(source, raw):
    volume = coordinates((3, 5, 7))
    pair(source, image=volume, mask=(volume % 3).astype(np.uint8), ending=".tif")
    image, label, spacing = read_back(convert(source, raw, spacing=Spacing(40, 8, 4, NANOMETRES)), "a")
    assert (image[2, 4, 6], label[2, 4, 6], spacing) == (20406, 20406 % 3, (40, 8, 4))


def test_spacing_of_the_file(source, raw):
    volume = coordinates((3, 5, 7))
    for name, array in (("images", volume), ("masks", (volume % 3).astype(np.uint8))):
        (source / name).mkdir()
        metadata = {"spacing": 40, "unit": "nm", "axes": "ZYX"}
        tifffile.imwrite(source / name / "a.tif", array, imagej=True, resolution=(1 / 4, 1 / 8), metadata=metadata)
    assert read_back(convert(source, raw), "a")[2] == pytest.approx((40, 8, 4))


def test_single_files(source, raw):
    save(source / "x.tif", IMAGE)
    save(source / "y.png", MASK)
    read_back(convert(source / "x.tif", raw, mask=source / "y.png"), "x")
    with pytest.raises(RetinaError, match=r"x.tif is a file without its mask. Give the mask file as second argument"):
        convert(source / "x.tif", raw, overwrite=True)
    with pytest.raises(RetinaError, match=r"no.h5: no such file. Check the path"):
        convert(source / "x.tif", raw, mask=f"{source / 'no.h5'}::*/labels", overwrite=True)
    with pytest.raises(RetinaError, match=r"source is a folder, so its masks lie in it; got also y.png"):
        convert(source, raw, mask="y.png", overwrite=True)


def test_hdf5(source, raw):
    """One file; one file with several volumes; files that hold both, in images/; a file each, in images/ and masks/."""
    volume = coordinates((3, 5, 7))
    label = (volume % 3).astype(np.uint8)
    both = source / "images" / "f.h5"
    both.parent.mkdir()
    with h5py.File(both, "w") as file:
        for prefix in ("", "one/", "two/"):
            file[f"{prefix}raw"], file[f"{prefix}labels"] = volume, label
    paths = Hdf5Paths("raw", "labels")
    forms = [
        ({"source": f"{both}::raw", "mask": f"{both}::/labels"}, ["f"]),
        ({"source": both, "hdf5": paths}, ["f"]),
        ({"source": f"{both}::*/raw", "mask": f"{both}::*/labels"}, ["f_one", "f_two"]),
        ({"source": source, "hdf5": paths}, ["f"]),
        ({"source": source, "hdf5": Hdf5Paths("*/raw", "*/labels")}, ["f_one", "f_two"]),
    ]
    for options, names in forms:
        folder = convert(raw=raw, overwrite=True, **options)
        assert [case["name"] for case in report_of(folder)["cases"]] == names
        image, mask, _ = read_back(folder, names[0])
        assert (image[2, 4, 6], mask[2, 4, 6]) == (20406, 20406 % 3)
    (source / "masks").mkdir()
    with h5py.File(source / "masks" / "f.h5", "w") as file:
        file["only"] = label
    folder = convert(source, raw, hdf5=Hdf5Paths("raw", "only"), overwrite=True)
    assert report_of(folder)["cases"][0]["source"].endswith("f.h5::raw")


def test_16_bit(source, raw):
    image = coordinates((5, 7)) * 90
    pair(source, image=image)
    np.testing.assert_array_equal(read_back(convert(source, raw), "a")[0][0], image)


def test_grey_saved_as_rgb_is_said(source, raw):
    pair(source, image=np.stack([IMAGE] * 3, axis=-1))
    folder = convert(source, raw)
    np.testing.assert_array_equal(read_back(folder, "a")[0][0], IMAGE)
    assert "grey saved as RGB" in report_of(folder)["cases"][0]["remarks"][0]


def test_names(source, raw):
    for name in ("im 1.a", "im_1_a", "IM_1_a", "Zelle-ü"):
        pair(source, name)
    cases = {case["name"]: Path(case["source"]).name for case in report_of(convert(source, raw))["cases"]}
    assert cases == {
        "IM_1_a": "IM_1_a.png", "im_1_a_2": "im_1_a.png", "im_1_a_3": "im 1.a.png", "Zelle": "Zelle-ü.png",
    }  # fmt: skip


def test_case_names_never_merge():
    names = case_names(["a b", "a_b", "a_b_2", "a.b", "..", "ü"])
    assert len({name.lower() for name in names.values()}) == 6
    assert (names["a_b"], names["a_b_2"]) == ("a_b", "a_b_2")


def test_files_that_are_not_read_are_named(source, raw):
    pair(source)
    (source / "images" / "notes.txt").touch()
    (source / "images" / ".DS_Store").touch()
    (source / "images" / "old").mkdir()
    assert "images: notes.txt, old/" in report_of(convert(source, raw))["remarks"][0]


# ------------------------------------------------------------------------------------------------------------ labels


def test_binary_mask_0_255(source, raw):
    pair(source, mask=(MASK == 1).astype(np.uint8) * 255)
    folder = convert(source, raw)
    np.testing.assert_array_equal(read_back(folder, "a")[1][0], MASK == 1)
    assert any("0 and 255: 255 was taken as class 1" in text for text in report_of(folder)["remarks"])


def test_binary_mask_against_declared_labels(source, raw):
    pair(source, mask=(MASK == 1).astype(np.uint8) * 255)
    refused(source, raw, r"label value 255 is not declared .* write --labels 255=mito", labels={1: "mito"})


def test_declared_values_are_remapped(source, raw):
    values = np.array([0, 50, 100, 255], np.uint8)
    pair(source, mask=values[IMAGE % 4])
    folder = convert(source, raw, labels={100: "er", 50: "mito"}, ignore=255)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "mito": 1, "er": 2, "ignore": 3}
    np.testing.assert_array_equal(read_back(folder, "a")[1][0], IMAGE % 4)
    assert "0 -> 0 (background), 50 -> 1 (mito), 100 -> 2 (er), 255 -> 3 (ignore)" in report_of(folder)["remarks"][0]


def test_ignore_among_found_values(source, raw):
    pair(source, mask=MASK)
    folder = convert(source, raw, ignore=2)
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "label_1": 1, "ignore": 2}


def test_instances_as_one_class(source, raw):
    instances = coordinates((5, 7))
    pair(source, mask=instances)
    refused(source, raw, r"the masks hold 34 values \(1, 2, 3, 4, 5 and 29 more\).* --labels any=NAME")
    label = read_back(convert(source, raw, labels={"any": "mito"}), "a")[1][0]
    np.testing.assert_array_equal(label, instances > 0)


def test_declared_map():
    mask = np.array([-1, 0, 3, 7, 9])
    assert declared_map({255: "background", 0: "mito"}).values == {255: 0, 0: 1}
    np.testing.assert_array_equal(declared_map({3: "a", 7: "a", 9: "b"}, -1).apply(mask, "c"), [3, 0, 1, 1, 2])
    np.testing.assert_array_equal(declared_map({7: "a", "any": "b"}, -1).apply(mask, "c"), [3, 0, 2, 1, 2])


@pytest.mark.parametrize(
    ("names", "ignore", "message"),
    [
        ({0: "mito"}, None, "label 0=mito; 0 is the background unless another value is"),
        ({1: "ignore"}, None, "declared with --ignore VALUE alone"),
        ({1: "mito"}, 1, "declared with --ignore VALUE alone"),
        ({1: "mito"}, 0, "value 0 is the background and --ignore"),
        ({255: "background"}, None, "no class but background is declared"),
    ],
)
def test_declared_map_refuses(names, ignore, message):
    with pytest.raises(RetinaError, match=message):
        declared_map(names, ignore)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({0}, "the masks hold no class: only 0"),
        (
            {0, 50, 100},
            r"the values 0, 50, 100; expected 0, 1, 2, .* --labels 50=NAME 100=NAME\. If .* any=NAME\.$",
        ),
        ({0, 1, 255}, r"--labels 1=NAME\. .* 255 often marks unannotated voxels: then add --ignore 255"),
    ],
)
def test_found_map_refuses(found, message):
    with pytest.raises(RetinaError, match=message):
        found_map(found)


@pytest.mark.parametrize(
    ("items", "message"),
    [(["mito"], "label 'mito'; expected VALUE=NAME"), (["1="], "expected VALUE"), (["x=a"], "expected VALUE"),
     (["1=a", "1=b"], "label value 1 is given twice: a and b")],
)  # fmt: skip
def test_parse_labels_refuses(items, message):
    with pytest.raises(RetinaError, match=message):
        parse_labels(items)


def test_parse_labels():
    assert parse_labels(["1=mito", "-1 = a b", "any=c"]) == {1: "mito", -1: "a b", "any": "c"}


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_different_shapes(source, raw):
    pair(source, mask=MASK.T)
    refused(source, raw, r"case a: the image has shape \(5, 7\), the mask \(7, 5\); expected the same")


def test_mask_without_image(source, raw):
    pair(source, "cell_a")
    (source / "images" / "cell_a.png").rename(source / "images" / "cell_a_0001.png")
    refused(source, raw, r"no image for mask cell_a \(.*cell_a.png\); .*The nearest is cell_a_0001. Add the image")


def test_image_without_mask(source, raw):
    pair(source)
    for name in "bc":
        pair(source, name, mask=None)
    refused(source, raw, r"no mask for training image b \(.*b.png\) and 1 more; .* put it into test/images")


def test_undeclared_values(source, raw):
    pair(source)
    found = r"case a: label value 2 is not declared \(12 voxels, the first at y=0, x=2\); expected 0, 1\. "
    refused(source, raw, found + r"Name it .* or correct the mask\.$", labels={1: "mito"})


def test_coloured_image(source, raw):
    pair(source, image=np.stack([IMAGE, IMAGE, IMAGE + 1], axis=-1))
    refused(source, raw, r"a.png: a colour image .* Convert it to grey first")


def test_float_image_with_nan(source, raw):
    image = IMAGE.astype(np.float32)
    image[1, 2] = np.nan
    pair(source, image=image, ending=".tif")
    refused(source, raw, r"case a: the image holds 1 NaN or infinite values, the first at y=1, x=2")


def test_empty_folders(source, raw):
    refused(source, raw, r"source holds nothing; there is no images/. Expected images/ and masks/")
    (source / "data").mkdir()
    (source / "a.png").touch()
    refused(source, raw, r"source holds a.png, data/; there is no images/")
    (source / "images").mkdir()
    refused(source, raw, r"images holds nothing; expected files ending in .png")
    (source / "images" / "a.czi").touch()
    refused(source, raw, r"images holds only a.czi; expected files ending in .png")
    refused(source / "nowhere", raw, r"nowhere: no such file or folder. Expected images/")


def test_no_masks_folder(source, raw):
    pair(source, mask=None)
    refused(source, raw, r"source holds images/; there is no masks/ or labels/. Expected images/ and masks/")


def test_two_files_of_one_name(source, raw):
    pair(source)
    pair(source, ending=".tif")
    refused(source, raw, r"two files for one case: .*a.png and .*a.tif are both a; expected one")


def test_name_in_train_and_test(source, raw):
    pair(source / "train")
    pair(source / "test")
    refused(source, raw, r"the name a is in train \(.*\) and in test .* test images must not be trained on")


def test_lossy_mask(source, raw):
    pair(source, mask=None)
    (source / "masks").mkdir()
    Image.fromarray(MASK).save(source / "masks" / "a.jpg")
    refused(source, raw, r"a.jpg: JPEG changes pixel values, so it cannot hold a mask")


def test_2d_and_3d(source, raw):
    pair(source, ending=".tif")
    pair(source, "b", np.stack([IMAGE] * 2), np.stack([MASK] * 2), ".tif")
    refused(source, raw, "case a is 2D, case b is 3D")


def test_existing_data_set_is_refused_before_reading(source, raw):
    pair(source)
    convert(source, raw)
    with pytest.raises(RetinaError, match="Dataset501_Mine exists already"):
        convert(source / "nowhere", raw)


# ----------------------------------------------------------------------------------------------------------- command


def test_command(source, raw, capsys, monkeypatch):
    pair(source / "train", "a", image=np.stack([IMAGE] * 3, axis=-1))
    pair(source / "test", "b")
    line = f"folder {source} -d 7 --labels 1=mito 2=er --iterations 300 --batch-size 4 --spacing 8 4"
    line += " --learning-rate 0.003"  # the default, which is stated all the same
    assert main(line.split()) == 0
    shown = capsys.readouterr().out
    assert f"Wrote {raw / 'Dataset007_source'}" in shown
    assert "train  a     5 x 7  8 x 4         uint8" in shown
    assert "2 cases: 1 train, 1 test" in shown
    assert "1      mito        11            31.43 %  11           31.43 %" in shown
    assert "a: grey saved as RGB: the one grey channel was taken" in shown
    assert shown.endswith("nnUNetv2_plan_and_preprocess -d 7 -c 2d --verify_dataset_integrity\n")
    written = json.loads((raw / "Dataset007_source/dataset.json").read_text())
    assert written["retina"] == {
        "iterations": 300, "batch_size": 4, "learning_rate": 0.003, "pixel_size": [8.0, 4.0]
    }  # fmt: skip

    (raw / "Dataset007_source").rename(raw / "elsewhere")
    monkeypatch.setenv("nnUNet_preprocessed", str(raw.parent))
    (raw.parent / "Dataset007_source").mkdir()
    assert main(line.split()) == 0
    assert capsys.readouterr().out.endswith("--verify_dataset_integrity --clean\n")


def test_command_reports_an_error_without_traceback(source, raw, capsys):
    assert main(["folder", str(source), "-d", "7"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert "there is no images/" in output.err
    assert main(["folder", str(source), "-d", "0"]) == 2
    assert "data set ID is 0" in capsys.readouterr().err
    pair(source)
    assert main(["folder", str(source), "-d", "7", "--iterations", "0"]) == 2
    assert "iterations is 0" in capsys.readouterr().err
    assert main(["folder", "/", "-d", "7"]) == 2
    assert "Give one: --name NAME" in capsys.readouterr().err


def test_command_reports_the_systems_errors(source, raw, capsys, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    pair(source)
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["folder", str(source), "-d", "7"]) == 2
    assert "error: [Errno 13] Permission denied" in capsys.readouterr().err


def test_help():
    """As a user calls it: a process of its own."""
    command = [sys.executable, "-m", "dataset_conversion.convert", "folder", "--help"]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[3]
    ).stdout
    for text in ("FILE.h5::raw FILE.h5::labels", "--hdf5 raw --hdf5-mask labels", "--ignore VALUE", "any=NAME"):
        assert text in shown


@pytest.mark.parametrize(("name", "cases"), [("cdeep3m", {"train": 20, "test": 10}), ("vnc", {"train": 20, "test": 0})])
def test_real_data(raw, name, cases):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not on this machine")
    totals = report_of(convert(DATA / name, raw))["totals"]
    assert {split: part["cases"] for split, part in totals.items()} == cases
