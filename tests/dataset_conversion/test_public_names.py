"""The names at the top of the package: each used once as its user would, and none imported before it is."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import benchmark_sources

import dataset_conversion
from dataset_conversion import Case, DatasetSpec, Spacing, convert_benchmark, convert_folder, write_raw_dataset

VOLUME = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)


def test_the_names():
    assert dataset_conversion.__all__ == [
        "Case", "DatasetSpec", "Spacing", "convert_benchmark", "convert_folder", "write_raw_dataset",
    ]  # fmt: skip
    assert dir(dataset_conversion) == dataset_conversion.__all__
    for name in dataset_conversion.__all__:
        assert getattr(dataset_conversion, name).__name__ == name
        assert getattr(dataset_conversion, name).__doc__
    with pytest.raises(AttributeError, match=r"no attribute 'convert_folders'; public names are Case, "):
        getattr(dataset_conversion, "convert_folders")  # noqa: B009


def test_the_stub_for_editors_has_the_same_names():
    stub = ast.parse(Path(dataset_conversion.__file__).with_suffix(".pyi").read_text())
    imported = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(dataset_conversion.__all__)


def test_write_raw_dataset(tmp_path):
    spec = DatasetSpec(id=801, name="Mine", labels={"background": 0, "mitochondria": 1})
    case = Case("a", VOLUME, VOLUME > 40, Spacing(40, 8, 8, "nm"))
    assert write_raw_dataset(spec, [case], tmp_path) == tmp_path / "Dataset801_Mine"


def test_convert_folder(tmp_path):
    for name, array in (("images", VOLUME), ("masks", VOLUME // 128)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", array, photometric="minisblack")
    folder = convert_folder(tmp_path, 801, "Mine", labels={1: "mitochondria"}, root=tmp_path)
    assert folder == tmp_path / "Dataset801_Mine"


def test_convert_benchmark(tmp_path):
    benchmark_sources.guay(tmp_path)
    assert convert_benchmark("guay", tmp_path, root=tmp_path) == [tmp_path / "Dataset802_Guay"]


def test_importing_the_package_costs_nothing():
    code = "import dataset_conversion, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "nnunetv2", "dataset_conversion.spec"} & set(done.stdout.split())
