"""Images as nnU-Net takes them: how a folder is listed, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from helpers.label_files import save_png

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.inputs import InputCase, first_channel, list_cases, read_channel

TWO_CHANNELS = {"labels": {}, "file_ending": ".png", "channel_names": {"0": "EM", "1": "edges"}}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_a_file_for_each_channel_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b_0001.png", "b_0000.png", "a_1_0000.png", "a_1_0001.png", ".hidden_0000.png", "notes.txt")
    assert list_cases(tmp_path, TWO_CHANNELS) == [
        InputCase("a_1", (tmp_path / "a_1_0000.png", tmp_path / "a_1_0001.png")),
        InputCase("b", (tmp_path / "b_0000.png", tmp_path / "b_0001.png")),
    ]


def test_one_file_may_hold_all_channels(tmp_path: Path) -> None:
    assert [len(case.files) for case in list_cases(touch(tmp_path, "a_0000.png"), TWO_CHANNELS)] == [1]


def test_what_a_folder_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match=r"no input folder .*nowhere: no such folder"):
        list_cases(tmp_path / "nowhere", TWO_CHANNELS)
    with pytest.raises(RetinaError, match=r"no images in .*: it is empty\. Expected names like CASE_0000\.png"):
        list_cases(tmp_path, TWO_CHANNELS)
    with pytest.raises(RetinaError, match=r"no images in .*: it holds a\.png"):
        list_cases(touch(tmp_path, "a.png"), TWO_CHANNELS)
    with pytest.raises(RetinaError, match=r"case a in .* has a_0001\.png; the model takes 2 channels: a_0000\.png, a_"):
        list_cases(touch(tmp_path, "a_0001.png"), TWO_CHANNELS)


def test_a_channel_is_a_volume(tmp_path: Path) -> None:
    path = first_channel(tmp_path, "a", ".png")
    save_png(path, [[0, 1], [2, 3]])
    assert path.name == "a_0000.png"
    np.testing.assert_array_equal(read_channel(path, TWO_CHANNELS), [[[0, 1], [2, 3]]])
    path.write_bytes(b"no image")
    with pytest.raises(RetinaError, match=r"a_0000\.png: cannot be read .* Is the file complete"):
        read_channel(path, TWO_CHANNELS)
