"""The public names of the three packages: complete, documented with examples that run, and loaded at first use."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import benchmark_sources
from helpers.environment import blobs
from helpers.model_folders import make_model
from skimage.io import imsave

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nnunetv2_retina", "pretraining", "dataset_conversion")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", API, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_resolved_listed_and_documented(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"
        assert re.search(rf"\b{name}\b", SECTIONS[package]), f"docs/api.md lacks {package}.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_that_name'"):
        module.nothing_of_that_name  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_editors_see_the_same_names(package):
    folder = ROOT / package
    stub = ast.parse((folder / "__init__.pyi").read_text())
    imported = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(importlib.import_module(package).__all__)
    assert (folder / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_nothing_else(package):
    code = f"import sys; before = set(sys.modules); import {package}; print(*sorted(set(sys.modules) - before))"
    environment = {"PYTHONPATH": str(ROOT), "RETINA_REGISTER": "0"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    extra = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert extra == {package}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The working folder of the documentation's examples."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model", spacing=(8.0, 8.0))
    network = TransUNet(1, 3, NetworkConfig.named("tiny"))
    checkpoint.save(tmp_path / "weights.pth", network.state_dict(), network.config)
    settings = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "mitochondria": 1, "vesicles": 2},
        "numTraining": 2,
        "file_ending": ".png",
    }
    Path("dataset.json").write_text(json.dumps(settings))
    written = {
        "images/case_{}_0000.png": 0,
        "predictions/case_{}.png": 1,
        "labelsTs/case_{}.png": 1,
        "my_data/images/{}.png": 0,
        "my_data/masks/{}.png": 1,
    }
    for pattern, part in written.items():
        for i in range(3):
            path = Path(pattern.format(i))
            path.parent.mkdir(parents=True, exist_ok=True)
            imsave(path, blobs(i)[part], check_contrast=False)
    Path("em_images").mkdir()
    for i in range(8):
        image = np.random.default_rng(i).integers(0, 255, (224, 224), np.uint8)
        imsave(f"em_images/{i}.png", image, check_contrast=False)
    for folder in ("raw", "downloads"):
        Path(folder).mkdir()
    benchmark_sources.guay(Path("downloads"))


@pytest.mark.parametrize("package", PACKAGES)
def test_examples_run(package, files):
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[package], re.MULTILINE | re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), f"docs/api.md, {package}", "exec"), {"__name__": "example"})
