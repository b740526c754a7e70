"""Every command that opens a checkpoint or weights file refuses one that runs code; its code has not run.

``tests/weights/test_unpickling.py`` has the readers themselves, ``tests/training/test_untrusted.py`` the trainings.
"""

import importlib
import json
from pathlib import Path

import pytest
import torch
from helpers.commands import SCRIPTS
from helpers.untrusted import Marker, checkpoint_with

from nnunetv2_retina.errors import RetinaError


@pytest.fixture
def marker(tmp_path):
    return Marker(tmp_path / "marker")


@pytest.fixture
def model(tmp_path: Path, marker) -> Path:
    """A model folder of two folds; the checkpoint of the second one runs code."""
    folder = tmp_path / "nnUNetTrainerTransUNet_tiny__nnUNetPlans__2d"
    for fold, note in enumerate((None, marker)):
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(checkpoint_with(note), folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text(json.dumps({}))
    return folder


def test_prediction(model, marker):
    from nnunetv2_retina.nnunet import models

    with pytest.raises(RetinaError, match=r"fold_1/checkpoint_final\.pth is not opened: it asks for"):
        models.initialise(None, model, [0, 1], "checkpoint_final.pth")
    assert not marker.path.exists()


def test_report(model, marker):
    from nnunetv2_retina.nnunet.record import read_record

    with pytest.raises(RetinaError, match=r"fold_1/checkpoint_final\.pth is not opened"):
        read_record(model, "1")
    assert not marker.path.exists()


def test_doctor(model, marker, monkeypatch):
    from nnunetv2_retina.commands import doctor

    monkeypatch.setenv("RETINA_WEIGHTS", str(model / "fold_1" / "checkpoint_final.pth"))
    (finding,) = doctor._weights()
    assert finding.level == "wrong" and "checkpoint_final.pth is not opened" in finding.text
    assert not marker.path.exists()


def test_pretraining_starts_from_none_and_continues_none(tmp_path, marker):
    import numpy as np
    from PIL import Image

    from pretraining.cli import main

    (tmp_path / "images").mkdir()
    for i in range(5):
        grey = np.random.default_rng(i).integers(0, 255, (224, 224), np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{i}.png")
    options = ["--size", "tiny", "--batch-size", "2", "--device", "cpu", "--precision", "fp32", "--iterations", "1"]
    command = [str(tmp_path / "images"), "-o", str(tmp_path / "run"), *options]
    torch.save(checkpoint_with(marker), tmp_path / "evil.pth")
    assert main([*command, "--init", str(tmp_path / "evil.pth")]) == 2
    torch.save(checkpoint_with(marker), tmp_path / "run" / "checkpoint_latest.pth")
    assert main(command) == 2
    assert not marker.path.exists()


STUDY = """
name: small
seeds: [1]
reference: RETINA
weights: {em: evil.pth}
datasets: [{dataset: 901, iterations: [2]}]
systems: [{name: RETINA, trainer: nnUNetTrainerRETINA_tiny, weights: em}]
"""
WITHOUT = ("retina_convert", "retina_evaluate", "retina_quickstart", "retina_view")
"""Commands that open no weights but what they have made themselves, or give them to a training, which looks."""
COMMANDS = {
    "retina_import_weights": ["evil.pth", "out.pth"],
    "retina_doctor": [],
    "retina_pretrain": ["images", "-o", "run", "--size", "tiny", "--iterations", "1", "--device", "cpu",
                        "--precision", "fp32", "--batch-size", "2", "--init", "evil.pth"],
    "retina_predict": ["-i", "images", "-o", "out", "-m", "model", "-device", "cpu"],
    "retina_report": ["-m", "model"],
    "retina_benchmark": ["study.yaml", "-o", "out", "-device", "cpu"],
    "retina_share": ["hub", "out", "-m", "model", "--licence", "MIT", "--author", "A"],
    "retina_volume": ["predict", "in.zarr", "out.zarr", "-m", "model", "--spacing", "1,1,1", "-device", "cpu"],
}  # fmt: skip


def test_every_command_is_looked_at():
    assert set(SCRIPTS) == {*COMMANDS, *WITHOUT}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(tmp_path, marker, monkeypatch, capsys, name):
    import numpy as np
    from helpers.model_folders import make_model
    from PIL import Image

    make_model(tmp_path / "model")
    trained = next((tmp_path / "model").rglob("checkpoint_final.pth"))
    torch.save(torch.load(trained, weights_only=False) | {"note": marker}, trained)
    torch.save(checkpoint_with(marker), tmp_path / "evil.pth")
    (tmp_path / "images").mkdir()
    for number in range(4):
        grey = np.random.default_rng(number).integers(0, 255, (224, 224), np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{number}_0000.png")
    (tmp_path / "study.yaml").write_text(STUDY)
    if name == "retina_volume":
        zarr = pytest.importorskip("zarr")
        zarr.save_array(tmp_path / "in.zarr", np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINA_WEIGHTS", str(tmp_path / "evil.pth"))
    module, _, function = SCRIPTS[name].partition(":")
    status = getattr(importlib.import_module(module), function)(COMMANDS[name])
    shown = capsys.readouterr()
    assert status in (1, 2) and ".pth is not opened: it asks for" in shown.out + shown.err
    assert not marker.path.exists()
