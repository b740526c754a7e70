"""``retina_convert folder IN.zarr LABELS.zarr --box``: annotated parts of a volume become cases."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.ome_volumes import cells, needs_zarr, write
from helpers.raw_datasets import report_of

from dataset_conversion.convert import main

pytestmark = needs_zarr


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    image = cells((20, 60, 50))
    labels = (image > 110).astype(np.uint8)
    write(tmp_path / "in.zarr", image, "0.4", spacing=(40, 4, 4))
    write(tmp_path / "labels.zarr", labels, spacing=(40, 4, 4))
    return tmp_path, image, labels


def test_each_box_is_a_case(volumes):
    folder, image, labels = volumes
    arguments = ["folder", f"{folder}/in.zarr", f"{folder}/labels.zarr", "-d", "701", "--name", "Parts"]
    assert main([*arguments, "--box", "0:8,0:40,0:40", "8:18,:,10:50", "--labels", "1=cells"]) == 0
    target = folder / "raw/Dataset701_Parts"
    about = json.loads((target / "dataset.json").read_text())
    ending = about["file_ending"]
    for name, part in (("in_0_0_0", np.s_[0:8, 0:40, 0:40]), ("in_8_0_10", np.s_[8:18, :, 10:50])):
        case = sitk.ReadImage(str(target / f"imagesTr/{name}_0000{ending}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(case), image[part])
        assert case.GetSpacing() == (4, 4, 40)
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(target / f"labelsTr/{name}{ending}")))
        np.testing.assert_array_equal(truth, labels[part])
    assert about["retina"]["spacing_unit"] == "nm"


def test_labels_that_begin_elsewhere_are_said(volumes):
    folder, _, labels = volumes
    for name, origin in (("moved.zarr", (0, 40, 8)), ("in_place.zarr", (0, 0, 0))):
        write(folder / name, labels, spacing=(40, 4, 4), origin=origin)
        arguments = ["folder", f"{folder}/in.zarr", f"{folder}/{name}", "-d", "701", "--name", "Parts", "--overwrite"]
        assert main([*arguments, "--box", "8:18,:,10:50", "--labels", "1=cells"]) == 0
        text = str(report_of(folder / "raw/Dataset701_Parts"))
        words = "voxel lies at (40, 0, 320), the mask's at (48, 40, 320): paired by index all the same"
        assert (words in text) is (name == "moved.zarr")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["LABELS", "--box", "0:99,:,:"], "--box 0:99,:,:; expected z0:z1,y0:y1,x0:x1 inside 20 x 60 x 50"),
        (["--box", "0:9,:,:"], "is a volume without its labels"),
    ],
)
def test_wrong_boxes(volumes, capsys, more, message):
    folder = volumes[0]
    more = [f"{folder}/labels.zarr" if value == "LABELS" else value for value in more]
    assert main(["folder", f"{folder}/in.zarr", *more, "-d", "701", "--name", "Parts"]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "raw/Dataset701_Parts").exists()
