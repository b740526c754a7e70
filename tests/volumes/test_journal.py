"""The journal of an output: what it was begun with is what it goes on with."""

import os
from pathlib import Path

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.volumes.journal import Journal, digest


def test_a_setting_that_is_left_out_is_another_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.zarr")
    journal.begin({"-step_size": 0.5, "--precision": "bfloat16", "--box": None}, {})
    with pytest.raises(RetinaError, match="was begun with --precision bfloat16; this run has none"):
        journal.begin({"-step_size": 0.5}, {})
    with pytest.raises(RetinaError, match="was begun with --more none; this run has 3"):
        journal.begin({"-step_size": 0.5, "--precision": "bfloat16", "--more": 3}, {})


def test_keys_are_of_the_numbers_that_are_stored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.zarr")
    first = journal.begin({"-step_size": 1}, {"chunk": 8})
    again = journal.begin({"-step_size": 1.0}, {"chunk": 16})
    assert digest(again["settings"]) == digest(first["settings"]) and again["plan"] == {"chunk": 8}


def test_two_processes_may_begin_an_output_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, list_folder = tmp_path / "out.zarr", os.listdir
    output.mkdir()

    def begin_meanwhile(folder: Path) -> list[str]:
        monkeypatch.setattr(os, "listdir", list_folder)
        Journal(folder).begin({"-step_size": 1}, {})
        (folder / "0").mkdir()
        return os.listdir(folder)

    monkeypatch.setattr(os, "listdir", begin_meanwhile)
    assert Journal(output).begin({"-step_size": 1}, {})["settings"] == {"-step_size": 1}
