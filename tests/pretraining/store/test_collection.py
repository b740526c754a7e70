"""Images of nnU-Net's raw data sets as a source of a pre-training."""

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights import checkpoint
from pretraining.cli import main
from pretraining.store.collection import collect, find_groups


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
    groups = find_groups(["710"], [tmp_path / "more"])
    folder = collect(tmp_path / "out" / "images", groups)
    assert sorted(path.name for path in folder.iterdir()) == ["Dataset710_Mito", "more"]
    assert (folder / "Dataset710_Mito").resolve() == raw / "Dataset710_Mito" / "imagesTr"
    assert collect(folder, find_groups(["Dataset710_Mito"], [tmp_path / "more"])) == folder  # again
    with pytest.raises(RetinaError, match=r"was made for other images: more\. Name the same data sets and folders"):
        collect(folder, find_groups(["710"]))
    tested = collect(tmp_path / "tested", find_groups(["710"], with_test=True))
    assert (tested / "Dataset710_Mito_test").resolve().name == "imagesTs"
    write(tmp_path / "other" / "more", 1)
    with pytest.raises(RetinaError, match="more is there twice"):
        find_groups(["710"], [tmp_path / "more", tmp_path / "other" / "more"])
    with pytest.raises(RetinaError, match="no folder of images"):
        find_groups(["710"], [tmp_path / "absent"])
    write(tmp_path / ".hidden", 1)
    with pytest.raises(RetinaError, match=r"\.hidden: folders of such a name are passed over"):
        find_groups(["710"], [tmp_path / ".hidden"])


def test_what_systems_and_other_processes_leave_is_no_link(raw: Path, tmp_path: Path) -> None:
    groups = find_groups(["710"])
    folder = collect(tmp_path / "images", groups)
    for name in (".17.probe", ".DS_Store", "Thumbs.db"):
        (folder / name).touch()
    assert collect(folder, groups) == folder
    (folder / "copied").mkdir()
    with pytest.raises(RetinaError, match="was made for other images: copied"):
        collect(folder, groups)


def test_an_output_folder_among_the_images_is_refused(raw: Path, tmp_path: Path, capsys) -> None:
    inside = raw / "Dataset710_Mito" / "imagesTr" / "run"
    for command in (
        ["--dataset", "710", "-o", str(inside)],
        ["--dataset", "710", "--also", str(tmp_path / "more"), "-o", str(tmp_path / "more" / "a" / "run")],
        [str(tmp_path / "more"), "-o", str(tmp_path / "more")],
        [str(tmp_path / "more"), "-o", str(tmp_path / "more" / "run")],
        [str(tmp_path / "more"), "-o", str(tmp_path / "store"), "--store", str(tmp_path / "store")],
        [str(tmp_path / "more"), "-o", str(tmp_path / "more.retina_store")],
    ):
        assert main([*command, "--device", "cpu", "--size", "tiny"]) == 2
        text = capsys.readouterr().err
        assert "the output folder" in text and "Choose another one outside of it (-o)" in text
    assert not inside.exists() and sorted(path.name for path in (tmp_path / "more").iterdir()) == [
        "more_0_0000.png",
        "more_1_0000.png",
    ]


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
