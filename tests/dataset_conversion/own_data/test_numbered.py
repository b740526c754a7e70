"""Folders of numbered slices as volumes: order, gaps, shapes, masks, spacing."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from dataset_conversion.convert import main
from dataset_conversion.own_data.numbered import find_volumes, open_slices
from dataset_conversion.readers.slabs import whole
from nnunetv2_retina.errors import RetinaError

SPACING = ["--spacing", "40", "8", "9"]


def write_slices(folder: Path, names: list[str], shape: tuple[int, int] = (6, 8), factor: int = 1) -> Path:
    """Slices whose voxels are the places of their names in the list, times a factor, and the column."""
    folder.mkdir(parents=True)
    for place, name in enumerate(names):
        plane = np.full(shape, place * factor, np.uint8)
        plane[0] += np.arange(shape[1], dtype=np.uint8) if factor > 1 else 0
        Image.fromarray(plane).save(folder / name)
    return folder


def test_numbers_count_not_letters(tmp_path):
    write_slices(tmp_path / "v", ["s8_of_12.png", "s9_of_12.png", "s10_of_12.png", "s11_of_12.png"], factor=10)
    remarks: list[str] = []
    volumes = find_volumes(tmp_path / "v", "v", remarks)
    assert [path.name for path in volumes["v"]] == [f"s{i}_of_12.png" for i in (8, 9, 10, 11)] and remarks == []
    assert whole(open_slices(volumes["v"]).array)[:, 1, 0].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["z1.png", "z2.png", "z5.png"],
            r"v has no slice 3 to 4, between z2.png and z5.png; expected numbers without gap",
        ),
        (["z1.png", "z01.png"], r"are both slice 1; expected one of each"),
        (["a1.png", "b2.png"], r"differ in more than a number"),
        (["v1_z1.png", "v1_z2.png", "v2_z1.png"], r"differ in 2 numbers; expected one, the slice's"),
        (["first.png"], r"first.png has no number in its name"),
    ],
)
def test_names_that_do_not_number_slices_are_refused(tmp_path, names, sentence):
    write_slices(tmp_path / "v", names)
    with pytest.raises(RetinaError, match=sentence):
        find_volumes(tmp_path / "v", "v", [])


def test_slices_of_another_shape_are_refused(tmp_path):
    write_slices(tmp_path / "v", ["z1.png", "z2.png"])
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "v" / "z2.png")
    with pytest.raises(RetinaError, match=r"z2.png is 6 x 9 uint8, and .*z1.png 6 x 8 uint8; slices of one volume"):
        open_slices(find_volumes(tmp_path / "v", "v", [])["v"])


def convert(source: Path, *more: str) -> int:
    return main(["folder", str(source), "-d", "700", "--name", "Mine", *more])


def test_a_folder_of_folders_becomes_volumes_with_their_masks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    names = [f"z{i}.png" for i in (1, 2, 10, 11, 3, 4, 5, 6, 7, 8, 9)]
    for volume in ("one", "two"):
        write_slices(tmp_path / "own/images" / volume, names, factor=10)
        write_slices(tmp_path / "own/masks" / volume, [name.replace("z", "label_") for name in names])
    assert (
        convert(tmp_path / "own", "--slices-as-volume", "--labels", *[f"{i}=c{i}" for i in range(1, 11)], *SPACING) == 0
    )
    folder = tmp_path / "raw" / "Dataset700_Mine"
    image = sitk.ReadImage(folder / "imagesTr/two_0000.nii.gz")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(folder / "labelsTr/two.nii.gz"))
    assert image.GetSpacing() == (9, 8, 40)
    right = [names.index(f"z{i}.png") for i in range(1, 12)]
    assert labels[:, 2, 3].tolist() == right
    assert sitk.GetArrayFromImage(image)[:, 2, 3].tolist() == [10 * place for place in right]
    assert json.loads((folder / "conversion_report.json").read_text())["spacing_unit"] == "nm"
    (tmp_path / "own/masks/two/label_11.png").unlink()
    assert convert(tmp_path / "own", "--slices-as-volume", "--overwrite") == 2
    assert "are numbered 1 to 11, those in" in capsys.readouterr().err


def test_slices_of_one_volume_take_the_name_of_their_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    write_slices(tmp_path / "liver/images", ["1.png", "2.png"], factor=10)
    write_slices(tmp_path / "liver/masks", ["1.png", "2.png"])
    assert convert(tmp_path / "liver", "--slices-as-volume") == 0
    assert [path.name for path in (tmp_path / "raw/Dataset700_Mine/labelsTr").iterdir()] == ["liver.nii.gz"]
    new = tmp_path / "new"
    assert main(["images", str(tmp_path / "liver/images"), str(new), "-d", "700", "--slices-as-volume", *SPACING]) == 0
    assert sitk.ReadImage(new / "images_0000.nii.gz").GetSpacing() == (9, 8, 40)
    capsys.readouterr()
    assert (
        main(["images", str(tmp_path / "liver/images/1.png"), str(tmp_path / "x"), "-d", "700", "--slices-as-volume"])
        == 2
    )
    assert "--slices-as-volume is for folders of slices" in capsys.readouterr().err
