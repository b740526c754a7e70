"""What the quickstart starts from: generated volumes, and the user's own images with some held out."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.own_images import write_own

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.quickstart.data import OwnImages, write_generated
from nnunetv2_retina.quickstart.settings import QuickstartSettings
from nnunetv2_retina.quickstart.synthetic import generate_volume


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_generated_volumes_are_tiff_files(tmp_path: Path) -> None:
    settings = QuickstartSettings(train_volumes=2, test_volumes=1, shape=(2, 64, 64), seed=7)
    source = write_generated(tmp_path, settings)
    assert files(tmp_path) == [
        f"{part}/{kind}/{name}.tif"
        for part, names in (("test", ["test_02"]), ("train", ["train_00", "train_01"]))
        for kind in ("images", "masks")
        for name in names
    ]
    image, mask = generate_volume((2, 64, 64), seed=7)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "train" / "images" / "train_00.tif"), image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "train" / "masks" / "train_00.tif"), mask)
    assert source.options == ("--labels", "1=mitochondria", "--spacing", "40", "8", "8")


def test_own_images_are_held_out_and_named(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b", "c", "d"])
    own = OwnImages.examine(tmp_path / "own")
    assert own.held_out == ("d",)
    source = own.lay_out(tmp_path / "data")
    assert files(source.folder) == [
        *(f"test/{kind}/d.png" for kind in ("images", "masks")),
        *(f"train/{kind}/{name}.png" for kind in ("images", "masks") for name in "abc"),
    ]
    assert os.readlink(source.folder / "test" / "images" / "d.png") == str(tmp_path / "own" / "images" / "d.png")
    assert source.summary.startswith("3 images of") and source.summary.endswith("held out for the scores: d.")


def test_files_are_copied_where_there_are_no_links(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write_own(tmp_path / "own", ["a", "b", "c"])
    OwnImages.examine(tmp_path / "own").lay_out(tmp_path / "data")
    copy = tmp_path / "data" / "train" / "masks" / "a.png"
    assert not copy.is_symlink() and copy.read_bytes() == (tmp_path / "own" / "masks" / "a.png").read_bytes()


def test_own_test_images_are_used_where_they_lie(tmp_path: Path) -> None:
    write_own(tmp_path / "own" / "train", ["a", "b"])
    write_own(tmp_path / "own" / "test", ["c"])
    source = OwnImages.examine(tmp_path / "own").lay_out(tmp_path / "data")
    assert source.folder == tmp_path / "own" and not (tmp_path / "data").exists()
    assert "its 1 test images" in source.summary


def test_test_images_without_masks_are_kept_beside_those_held_out(tmp_path: Path) -> None:
    write_own(tmp_path / "own" / "train", ["a", "b", "c"])
    write_own(tmp_path / "own" / "test", ["new"])
    (tmp_path / "own" / "test" / "masks" / "new.png").unlink()
    source = OwnImages.examine(tmp_path / "own").lay_out(tmp_path / "data")
    test = [name for name in files(source.folder) if name.startswith("test/")]
    assert test == ["test/images/c.png", "test/images/new.png", "test/masks/c.png"]


def test_a_training_image_without_a_mask_is_left_to_the_conversion_to_refuse(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b", "c"])
    (tmp_path / "own" / "images" / "lone.nii.gz").touch()
    own = OwnImages.examine(tmp_path / "own")
    assert sorted(own.train) == ["a", "b", "c"]
    assert "train/images/lone.nii.gz" in files(own.lay_out(tmp_path / "data").folder)


def test_labels_is_another_name_for_masks(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b", "c"])
    (tmp_path / "own" / "masks").rename(tmp_path / "own" / "labels")
    assert OwnImages.examine(tmp_path / "own").held_out == ("c",)


def test_too_few_own_images(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b"])
    with pytest.raises(RetinaError, match="holds 2 training images with masks and 0 test images with masks; expected"):
        OwnImages.examine(tmp_path / "own")


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").touch()
    with pytest.raises(RetinaError, match=r"holds scan\.tif; expected images/ and masks/"):
        OwnImages.examine(tmp_path)


def test_data_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match=r"none is not a folder; expected one with images/ and masks/"):
        OwnImages.examine(tmp_path / "none")
