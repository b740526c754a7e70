"""A folder to convert from, and one to convert to."""

import pytest

from dataset_conversion.writer.sheet import SheetCollector


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return tmp_path / "raw"


@pytest.fixture
def no_drawing(monkeypatch):
    """The sheet of slices takes a second a data set."""
    monkeypatch.setattr(SheetCollector, "write", lambda *_: None)
