"""Every command that opens a checkpoint or weights file refuses one that runs code; its code has not run.

``tests/weights/test_unpickling.py`` has the readers themselves, ``tests/training/test_untrusted.py`` the trainings.
"""

import json
from pathlib import Path

import pytest
import torch
from helpers.untrusted import Marker, checkpoint_with

from nnunetv2_retina.errors import RetinaError


@pytest.fixture
def marker(tmp_path):
    return Marker(tmp_path / "marker")


@pytest.fixture
def model(tmp_path, marker) -> Path:
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
