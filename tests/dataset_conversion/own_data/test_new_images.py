"""New images alone: the format of a data set's images, and what is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_conversion.convert import main
from dataset_conversion.own_data.new_images import convert_images
from nnunetv2_retina.errors import RetinaError

IMAGE = np.arange(600, dtype=np.uint8).reshape(20, 30)


@pytest.fixture
def dataset(tmp_path):
    contents = {"labels": {"background": 0, "one": 1}, "channel_names": {"0": "EM"}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(contents))
    return tmp_path


def test_images_become_what_the_model_takes(source, dataset, capsys):
    tifffile.imwrite(source / "Zelle 1.tif", IMAGE)
    Image.fromarray(IMAGE.T).save(source / "b.png")
    (source / "notes.txt").touch()
    target = dataset / "new"
    assert main(["images", str(source), str(target), "-d", str(dataset)]) == 0
    shown = capsys.readouterr().out
    assert "Wrote 2 images" in shown and "notes.txt" in shown and f"retina_predict -i {target}" in shown
    np.testing.assert_array_equal(np.asarray(Image.open(target / "Zelle_1_0000.png")), IMAGE)
    np.testing.assert_array_equal(np.asarray(Image.open(target / "b_0000.png")), IMAGE.T)


def test_what_does_not_suit_leaves_nothing(source, dataset):
    tifffile.imwrite(source / "a.tif", IMAGE.astype(np.float32))
    with pytest.raises(RetinaError, match=r"case a is a 2D image of type float32, .* the data set's images are \.png"):
        convert_images(source, dataset / "new", dataset)
    assert not (dataset / "new").exists()
    with pytest.raises(RetinaError, match="exists already"):
        convert_images(source, source, dataset)


def test_what_folder_reads_is_read_here_too(source, dataset):
    """A data set inside an HDF5 file, several by a star, and a Zarr volume."""
    with h5py.File(source / "v.h5", "w") as file:
        file["one/raw"], file["two/raw"] = IMAGE, IMAGE + 1
    convert_images(Path(f"{source / 'v.h5'}::one/raw"), dataset / "inside", dataset)
    assert [path.name for path in (dataset / "inside").iterdir()] == ["v_0000.png"]
    convert_images(source / "v.h5", dataset / "star", dataset, hdf5="*/raw")
    assert sorted(path.name for path in (dataset / "star").iterdir()) == ["v_one_0000.png", "v_two_0000.png"]
    with pytest.raises(RetinaError, match=r"absent: no such file or folder. Check the path"):
        convert_images(source / "absent", dataset / "none", dataset)


def test_negative_values_are_named(source, dataset, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(dataset))
    for part, array in (("images", IMAGE), ("masks", np.where(IMAGE > 90, 1, np.where(IMAGE > 20, 0, -2)))):
        (source / part).mkdir()
        tifffile.imwrite(source / part / "a.tif", array.astype(np.int16))
    assert main(["folder", str(source), "-d", "501", "--name", "X", "--labels", "1=one", "-2=two"]) == 0
    assert "-2" in capsys.readouterr().out
