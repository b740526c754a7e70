"""nnU-Net's data sets: how they are found, and what of their dataset.json is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.datasets import (
    PREPROCESSED,
    RAW,
    channel_count,
    find_dataset,
    find_dataset_json,
    nnunet_folder,
    read_dataset_json,
    split_folders,
)


@pytest.mark.parametrize("given", ["7", 7, "007", "Dataset007_Mine", "folder", "file"])
@pytest.mark.parametrize("root", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_dataset_by_number_name_folder_or_file(tmp_path, monkeypatch, given, root) -> None:
    path = tmp_path / root / "Dataset007_Mine" / "dataset.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    assert find_dataset_json({"folder": path.parent, "file": path}.get(given, given)) == path


def test_a_dataset_that_is_not_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(
        RetinaError, match=r"data set 801 not found in \$nnUNet_raw \(.*, which holds no data set\) or .* \(not set\)"
    ):
        find_dataset_json("801")
    with pytest.raises(RetinaError, match=r"holds no dataset\.json"):
        find_dataset_json(tmp_path)
    with pytest.raises(RetinaError, match=r"nowhere/dataset\.json: no such file or folder\. Expected the path of"):
        find_dataset_json("nowhere/dataset.json")
    for name in ("Dataset801_A", "Dataset801_B"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").touch()
    with pytest.raises(RetinaError, match=r"801 is ambiguous in .*: Dataset801_A, Dataset801_B"):
        find_dataset_json("801")


def test_folders_are_looked_through_in_the_order_given(tmp_path: Path, monkeypatch) -> None:
    for variable in (RAW, PREPROCESSED):
        (tmp_path / variable / "Dataset007_Mine").mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / PREPROCESSED / "Dataset008_Other").mkdir()
    assert find_dataset(7, RAW, PREPROCESSED) == tmp_path / RAW / "Dataset007_Mine"
    assert find_dataset("Dataset007_Mine", PREPROCESSED) == tmp_path / PREPROCESSED / "Dataset007_Mine"
    with pytest.raises(RetinaError, match=r"Dataset007_Mine, Dataset008_Other\); .* nnUNetv2_plan_and_preprocess -d 9"):
        find_dataset(9, PREPROCESSED)
    monkeypatch.setenv(RAW, "")
    assert nnunet_folder(RAW) is None


def test_what_a_dataset_json_must_have(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match=r"there is no .*dataset\.json\. Expected nnU-Net's dataset\.json"):
        read_dataset_json(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    with pytest.raises(RetinaError, match=r"dataset\.json: no file_ending\. Expected nnU-Net's"):
        read_dataset_json(tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text('{"labels": {}, "file_ending": ".png", "channel_names": {"0": "EM"}}')
    assert channel_count(read_dataset_json(tmp_path)) == 1
    assert channel_count({"modality": {"0": "a", "1": "b"}}) == 2


def test_images_and_labels_of_a_split() -> None:
    assert split_folders(Path("raw"), "test") == (Path("raw/imagesTs"), Path("raw/labelsTs"))
    assert split_folders(Path("raw"), "train") == (Path("raw/imagesTr"), Path("raw/labelsTr"))


def test_looking_up_imports_neither_torch_nor_nnunet() -> None:
    code = (
        "import sys, nnunetv2_retina.nnunet.datasets, nnunetv2_retina.nnunet.inputs, nnunetv2_retina.nnunet.models\n"
        "sys.exit(', '.join({'torch', 'nnunetv2', 'SimpleITK'} & set(sys.modules)) or None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('{"labels": {"background": 0}}', r"no file_ending\. Expected"),
        ('{"labels": ["a"], "file_ending": ".png"}', r"labels is \['a'\]; expected an object"),
        ('{"labels": {"background": 0}, "file_ending": 5}', r"file_ending is 5; expected a text"),
    ],
)
def test_a_dataset_json_with_wrong_fields(tmp_path, contents, message) -> None:
    (tmp_path / "dataset.json").write_text(contents)
    with pytest.raises(RetinaError, match=message):
        read_dataset_json(tmp_path)


def test_channels_that_are_not_named() -> None:
    with pytest.raises(RetinaError, match=r"no channel_names; expected"):
        channel_count({})
