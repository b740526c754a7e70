"""No training opens a weights file or checkpoint that runs code, nor one of another trainer."""

from typing import Any

import pytest
import torch
from helpers.trainings import fold_folder, results, train, write_weights
from helpers.untrusted import WRITERS, Marker, checkpoint_with

from nnunetv2_retina.errors import RetinaError

TRAINER = "nnUNetTrainerTransUNet_tiny"


@pytest.fixture
def marker(tmp_path):
    return Marker(tmp_path / "marker")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_weights_that_run_code_are_refused(workspace, tmp_path, marker, by, writer, monkeypatch):
    WRITERS[writer](checkpoint_with(marker), tmp_path / "evil.pth")
    options: dict[str, Any] = {"pretrained_weights": str(tmp_path / "evil.pth")} if by == "option" else {}
    if by == "variable":
        monkeypatch.setenv("RETINA_WEIGHTS", str(tmp_path / "evil.pth"))
    with pytest.raises(RetinaError, match=r"evil\.pth is not opened: it asks for .* could run code"):
        train("nnUNetTrainerRETINA_tiny", **options)
    assert not marker.path.exists() and results(workspace) == []


@pytest.mark.parametrize("options", [{"continue_training": True}, {"only_run_validation": True}])
def test_a_checkpoint_that_runs_code_is_not_continued(workspace, marker, options):
    folder = fold_folder(workspace, TRAINER)
    folder.mkdir(parents=True)
    torch.save(checkpoint_with(marker), folder / "checkpoint_final.pth")
    with pytest.raises(RetinaError, match=r"checkpoint_final\.pth is not opened"):
        train(TRAINER, **options)
    assert not marker.path.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"trainer_name": "nnUNetTrainer"},
            rf"no checkpoint that {TRAINER} can continue: it is of nnUNetTrainer\. Give",
        ),
        ({"init_args": {"retina": {}}}, rf"no checkpoint that {TRAINER} can continue"),
        ({"init_args": {"retina": 5}}, r"is damaged: its entry retina is a int; expected a dictionary"),
        ({"logging": None}, r"can continue: it lacks logging\. "),
        ({"network_weights": None}, r"holds no network_weights"),
    ],
)
def test_a_foreign_checkpoint_is_not_continued(workspace, change, message):
    folder = fold_folder(workspace, TRAINER)
    folder.mkdir(parents=True)
    content = checkpoint_with(None) | change
    torch.save({name: value for name, value in content.items() if name != "logging" or "logging" not in change},
               folder / "checkpoint_latest.pth")  # fmt: skip
    with pytest.raises(RetinaError, match=message):
        train(TRAINER, continue_training=True)


def test_a_damaged_checkpoint_is_not_continued(workspace):
    folder = fold_folder(workspace, TRAINER)
    folder.mkdir(parents=True)
    torch.save(checkpoint_with(None), folder / "checkpoint_latest.pth")
    data = (folder / "checkpoint_latest.pth").read_bytes()
    (folder / "checkpoint_latest.pth").write_bytes(data[:-300])
    with pytest.raises(RetinaError, match=r"checkpoint_latest\.pth .* truncated, damaged or of another kind"):
        train(TRAINER, continue_training=True)


def test_weights_do_not_go_with_continuing(workspace, tmp_path):
    weights = write_weights(tmp_path / "pretrained.pth", "tiny")
    with pytest.raises(RetinaError, match=r"--c continues a training, and -pretrained_weights .* begins one"):
        train("nnUNetTrainerRETINA_tiny", pretrained_weights=str(weights), continue_training=True)
    assert results(workspace) == []
