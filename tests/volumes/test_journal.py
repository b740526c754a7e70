"""The journal of an output: what it was begun with is what it goes on with."""

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
