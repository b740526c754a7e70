"""Images of nnU-Net's raw data sets as a source of a pre-training."""

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights import checkpoint
from pretraining.cli import main
from pretraining.store.collection import collect


def write(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        image = np.random.default_rng(number).integers(0, 256, (224, 224), dtype=np.uint8)
        imsave(folder / f"{folder.name}_{number}_0000.png", image, check_contrast=False)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    write(tmp_path / "raw" / "Dataset710_Mito" / "imagesTr", 3)
    write(tmp_path / "raw" / "Dataset710_Mito" / "imagesTs", 2)
    write(tmp_path / "more", 2)
    return tmp_path / "raw"


def test_data_sets_and_folders_become_groups(raw: Path, tmp_path: Path) -> None:
    folder = collect(tmp_path / "out" / "images", ["710"], [tmp_path / "more"])
    assert sorted(path.name for path in folder.iterdir()) == ["Dataset710_Mito", "more"]
    assert (folder / "Dataset710_Mito").resolve() == raw / "Dataset710_Mito" / "imagesTr"
    assert collect(folder, ["Dataset710_Mito"], [tmp_path / "more"]) == folder  # again
    with pytest.raises(RetinaError, match=r"was made for other images: more\. Name the same data sets and folders"):
        collect(folder, ["710"])
    tested = collect(tmp_path / "tested", ["710"], with_test=True)
    assert (tested / "Dataset710_Mito_test").resolve().name == "imagesTs"
    write(tmp_path / "other" / "more", 1)
    with pytest.raises(RetinaError, match="more is there twice"):
        collect(tmp_path / "twice", ["710"], [tmp_path / "more", tmp_path / "other" / "more"])
    with pytest.raises(RetinaError, match="no folder of images"):
        collect(tmp_path / "none", ["710"], [tmp_path / "absent"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOURCE", "--dataset", "710"], "got both SOURCE and --dataset; expected one of them"),
        ([], "got neither SOURCE nor --dataset; expected one of them"),
        (["SOURCE", "--with-test"], "--also and --with-test go with --dataset"),
        (["--dataset", "999"], "data set 999 not found in"),
    ],
)
def test_wrong_options(raw: Path, tmp_path: Path, options: list[str], message: str, capsys) -> None:
    given = [str(tmp_path / "more") if option == "SOURCE" else option for option in options]
    assert main([*given, "-o", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_says_whose_images_it_saw(raw: Path, tmp_path: Path) -> None:
    settings = ["--size", "tiny", "--batch-size", "2", "--iterations", "1", "--device", "cpu"]
    command = ["--dataset", "710", "--also", str(tmp_path / "more"), "-o", str(tmp_path / "out"), *settings]
    assert main([*command, "--dry-run"]) == 0 and not (tmp_path / "out").exists()
    assert main(command) == 0
    retina = checkpoint.load(tmp_path / "out" / "checkpoint_final.pth").retina
    assert retina["store"]["sources"] == ["Dataset710_Mito", "more"]
    assert retina["images"]["training"] + retina["images"]["held_out"] == 5
