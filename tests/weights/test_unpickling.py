"""No weights file runs code, whatever its format and whoever reads it; what nnU-Net writes is read all the same."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.untrusted import WRITERS, Marker, checkpoint_with

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights import checkpoint, containers, unpickling
from nnunetv2_retina.weights.importing import import_weights, read_weights

READERS: dict[str, Callable[[Path], Any]] = {
    "unpickling.read_file": unpickling.read_file,
    "checkpoint.load": checkpoint.load,
    "containers.read": containers.read,
    "read_weights": read_weights,
    "import_weights": lambda path: import_weights(path, path.with_name("out.pth")),
}
REFUSED = (
    r"evil\.pth is not opened: it asks for .*(pathlib|getattr|instruction|_load_from_bytes).* could run code\. "
    "If you trust whoever made it, set RETINA_TRUST=1"
)


@pytest.fixture
def marker(tmp_path):
    return Marker(tmp_path / "marker")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_runs_code_is_refused_unread(tmp_path, marker, reader, writer):
    path = tmp_path / "evil.pth"
    WRITERS[writer](checkpoint_with(marker), path)
    with pytest.raises(RetinaError, match=REFUSED):
        READERS[reader](path)
    assert not marker.path.exists() and not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("place", ["network_weights", "retina", "training", "init_args"])
def test_code_is_found_in_every_entry(tmp_path, marker, place):
    torch.save({"network_weights": {}, "retina": {}} | {place: {"a": marker}}, tmp_path / "evil.pth")
    with pytest.raises(RetinaError, match=REFUSED):
        checkpoint.load(tmp_path / "evil.pth")
    assert not marker.path.exists()


@pytest.mark.parametrize("by", ["variable", "argument"])
def test_who_trusts_a_file_gets_it(tmp_path, marker, by, monkeypatch):
    torch.save({"weights": torch.ones(2), "note": marker}, tmp_path / "a.pth")
    for value in ("0", "", "no"):
        monkeypatch.setenv("RETINA_TRUST", value)
        with pytest.raises(RetinaError, match="is not opened"):
            unpickling.read_file(tmp_path / "a.pth")
    monkeypatch.setenv("RETINA_TRUST", "1" if by == "variable" else "0")
    content = unpickling.read_file(tmp_path / "a.pth", trust=by == "argument")
    assert content["weights"].sum() == 2 and marker.path.exists()


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"], ids=["NumPy 2", "NumPy 1"])
def test_numbers_of_numpy_are_read(tmp_path, module):
    """As NumPy 1 and 2 name them: nnU-Net's log and scores are such numbers."""
    numbers: dict[str, Any] = {
        "float": np.float64(1.5),
        "half": np.float16(0.25),
        "big-endian": np.dtype(">i4").type(7),
        "flag": np.bool_(True),
        "text": np.str_("abc"),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "empty": np.zeros((0, 3)),
        "reversed": np.arange(4, dtype=">f4"),
    }
    path = tmp_path / "a.pth"
    torch.save(numbers, path, _use_new_zipfile_serialization=False)
    mine = next(name for name in (b"numpy._core.multiarray", b"numpy.core.multiarray") if name in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b"c" + mine, b"c" + module.encode()))
    got = unpickling.read_file(path)
    for name, value in numbers.items():
        native = np.asarray(value).dtype.newbyteorder("=")
        assert np.array_equal(got[name], value) and np.asarray(got[name]).dtype.newbyteorder("=") == native, name
    assert type(got["float"]) is np.float64 and isinstance(got["array"], np.ndarray)


@pytest.mark.parametrize("content", [np.array([{}]), np.array([object], dtype=object)])
def test_arrays_of_objects_are_refused(tmp_path, content):
    torch.save({"a": content}, tmp_path / "a.pth")
    with pytest.raises(RetinaError, match=r"a\.pth is not opened: it asks for "):
        unpickling.read_file(tmp_path / "a.pth")


def test_options_of_training_scripts_are_read(tmp_path):
    torch.save({"args": argparse.Namespace(lr=0.1), "device": torch.device("cpu")}, tmp_path / "a.pth")
    assert unpickling.read_file(tmp_path / "a.pth")["args"].lr == 0.1


def test_modules_and_programs_are_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(RetinaError, match=r"it asks for torch\.nn\.modules\.linear\.Linear, which weights do not need"):
        unpickling.read_file(tmp_path / "module.pth")
    assert isinstance(unpickling.read_file(tmp_path / "module.pth", trust=True), torch.nn.Linear)


@pytest.mark.parametrize("old", [False, True])
def test_a_changed_byte_is_found_where_the_format_has_checksums(tmp_path, old):
    path = tmp_path / "a.pth"
    torch.save({"network_weights": {"a": torch.arange(1000.0)}}, path, _use_new_zipfile_serialization=not old)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    if old:
        assert unpickling.read_file(path)["network_weights"]["a"][500] != 500  # it cannot be known
    else:
        with pytest.raises(RetinaError, match=r"cannot be read as a PyTorch checkpoint: it is truncated, damaged"):
            unpickling.read_file(path)
        assert unpickling.read_file(path, trust=True)["network_weights"]["a"][500] != 500


@pytest.mark.parametrize("place", [38, 10], ids=["marked as a folder", "one listed too few"])
def test_a_damaged_directory_of_the_archive_is_found(tmp_path, place):
    """PyTorch's reader would take for a tensor whatever is in memory, or not notice."""
    path = tmp_path / "a.pth"
    torch.save({"network_weights": {"a": torch.ones(3)}}, path)
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x05\x06" if place == 10 else b"PK\x01\x02") + place
    content[start] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(RetinaError, match="cannot be read as a PyTorch checkpoint: it is truncated, damaged"):
        unpickling.read_file(path)


def test_torch_load_is_called_in_one_place():
    root = Path(checkpoint.__file__).parents[2]
    sources = [path for name in ("nnunetv2_retina", "pretraining") for path in (root / name).rglob("*.py")]
    assert [path.name for path in sources if re.search(r"(?<!safetensors\.)torch\.load\(", path.read_text())] == [
        "unpickling.py"
    ]
