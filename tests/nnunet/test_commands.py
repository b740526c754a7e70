"""Commands run in a workspace: their environment, logs, failures, and the progress of a training."""

from pathlib import Path

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet import commands
from nnunetv2_retina.nnunet.commands import TrainingProgress, Workspace, run_command


def test_environment_points_into_the_workspace_and_keeps_what_is_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/elsewhere")
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = Workspace(tmp_path).environment()
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["nnUNet_n_proc_DA"] == "7" and environment["OMP_NUM_THREADS"] == "1"


def test_command_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match="nnUNetv2_dance is not installed for"):
        run_command("nnUNetv2_dance", [], Workspace(tmp_path), lambda line: None, print)


def test_failing_command_shows_the_end_of_its_output_and_its_log(tmp_path: Path, monkeypatch) -> None:
    code = "print('start'); import sys; sys.exit('no such data set')"
    monkeypatch.setattr(commands, "_entry_code", lambda command: code)
    with pytest.raises(RetinaError, match=r"(?s)nnUNetv2_train failed \(exit status 1\).*start\n.*no such data set"):
        run_command("nnUNetv2_train", ["1"], Workspace(tmp_path), lambda line: None, lambda line: None)
    assert "no such data set" in (tmp_path / "logs" / "nnUNetv2_train.log").read_text()


def test_killed_command_suggests_memory(tmp_path: Path, monkeypatch) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(commands, "_entry_code", lambda command: code)
    with pytest.raises(RetinaError, match=r"killed, most likely for want of memory.*\n\n    \(no output\)"):
        run_command("nnUNetv2_train", [], Workspace(tmp_path), lambda line: None, lambda line: None)


def test_command_runs_and_is_watched(tmp_path: Path) -> None:
    said: list[str] = []
    typed = run_command("retina_evaluate", ["-h"], Workspace(tmp_path), lambda line: line[:5] or None, said.append)
    assert typed == "retina_evaluate -h" and said[0] == "$ retina_evaluate -h" and "usage" in said


def test_training_output_becomes_a_line_an_epoch() -> None:
    times = iter([100.0, 110.0])
    progress = TrainingProgress(epochs=4, clock=lambda: next(times))
    stamp = "2026-01-02 03:04:05.678901: "
    lines = [
        "Using device: cpu",
        stamp,
        stamp + "Epoch 0",
        stamp + "Current learning rate: 0.003",
        stamp + "train_loss 0.4567",
        stamp + "val_loss -1e-05",
        stamp + "Pseudo dice [np.float32(0.5), np.float32(nan)]",
        stamp + "Epoch time: 10.0 s",
        stamp + "predicting train_03",
    ]
    said = [message for line in lines if (message := progress(line + "\n")) is not None]
    assert said == [
        "epoch   1 of 4   loss 0.457   validation: loss -0.000, pseudo Dice 0.500 nan   < 1 min left",
        "final validation: predicting train_03",
    ]


def test_output_without_epochs_says_nothing() -> None:
    assert TrainingProgress(epochs=1)("Epoch time: 3 s") is None


@pytest.mark.parametrize(("command", "processes"), [("nnUNetv2_plan_and_preprocess", "1"), ("nnUNetv2_train", "0")])
def test_planning_gets_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, processes: str) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    code = "import os, sys; print(os.environ['nnUNet_n_proc_DA'])"
    monkeypatch.setattr("nnunetv2_retina.nnunet.commands._entry_code", lambda _: code)
    said: list[str] = []
    run_command(command, [], Workspace(tmp_path), str.strip, said.append)
    assert said[-1] == processes
