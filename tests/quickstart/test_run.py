"""The quickstart: its settings, folders, progress and errors; and, slowly, the whole chain."""

import io
import json
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from nnunetv2_retina import cli
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import Counts
from nnunetv2_retina.nnunet import commands
from nnunetv2_retina.nnunet.commands import TrainingProgress, Workspace, run_command
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.quickstart import data as quickstart_data
from nnunetv2_retina.quickstart import results as quickstart_report
from nnunetv2_retina.quickstart import run as quickstart
from nnunetv2_retina.quickstart.run import MARKER, QuickstartSettings, run_quickstart
from nnunetv2_retina.quickstart.synthetic import generate_volume

TINY = QuickstartSettings(
    iterations=4,
    iterations_per_epoch=2,
    batch_size=2,
    patch_size=64,
    train_volumes=2,
    test_volumes=1,
    shape=(2, 96, 96),
    device="cpu",
)


def write_own(folder: Path, names: list[str]) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        image, mask = generate_volume((1, 96, 96), seed)
        iio.imwrite(folder / "images" / f"{name}.png", image[0])
        iio.imwrite(folder / "masks" / f"{name}.png", mask[0])


# ---- settings and folders


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"iterations": 0}, "iterations is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"patch_size": 8}, "patch_size is 8; expected at least 16"),
        ({"train_volumes": 1}, "train_volumes is 1; expected at least 2"),
        ({"test_volumes": 0}, "test_volumes is 0; expected at least 1"),
        ({"device": "tpu"}, "device is 'tpu'; expected cuda or cpu"),
    ],
)
def test_wrong_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(RetinaError, match=message):
        QuickstartSettings(**setting)


def test_few_iterations_are_one_epoch() -> None:
    assert QuickstartSettings(iterations=5).protocol.iterations_per_epoch == 5


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RetinaError, match="is not empty and the quickstart did not make it"):
        run_quickstart(tmp_path, settings=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_nothing_of_the_users_is_replaced_even_when_told(tmp_path: Path) -> None:
    (tmp_path / "nnUNet_raw").mkdir()
    with pytest.raises(RetinaError, match="holds nnUNet_raw, which the quickstart did not make"):
        run_quickstart(tmp_path, settings=TINY, overwrite=True)


def test_a_file_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RetinaError, match="is a file; expected a folder"):
        run_quickstart(tmp_path / "out", settings=TINY)


def test_an_output_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RetinaError, match="cannot write to"):
        run_quickstart(tmp_path / "file" / "out", settings=TINY)


def test_an_earlier_run_is_replaced_and_other_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
    (tmp_path / "nnUNet_raw").mkdir()
    for name in ("report.html", "notes.txt"):
        (tmp_path / name).touch()
    quickstart._prepare(tmp_path, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "notes.txt"]


# ---- nnU-Net's commands


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
    typed = run_command("nnUNetv2_train", ["-h"], Workspace(tmp_path), lambda line: line[:5] or None, said.append)
    assert typed == "nnUNetv2_train -h" and said[0] == "$ nnUNetv2_train -h" and "usage" in said


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
        "epoch   1 of 4   loss 0.457   validation: loss -0.000, pseudo Dice 0.500 nan   30 s left",
        "final validation: predicting train_03",
    ]


def test_output_without_epochs_says_nothing() -> None:
    assert TrainingProgress(epochs=1)("Epoch time: 3 s") is None


# ---- data


def test_generated_volumes_as_a_raw_data_set(tmp_path: Path) -> None:
    dataset = quickstart_data.write_generated(tmp_path, 2, 1, (2, 64, 64), 7, Protocol(iterations=9))
    assert quickstart_data.read_class_names(dataset) == {1: "mitochondria"}
    assert json.loads((dataset / "dataset.json").read_text())["retina"]["iterations"] == 9
    examples = quickstart_data.read_examples(dataset, "Tr")
    image, mask = generate_volume((2, 64, 64), seed=7)
    assert [example.name for example in examples] == ["train_00", "train_01"]
    np.testing.assert_array_equal(examples[0].image, image)
    np.testing.assert_array_equal(examples[0].mask, mask)


def test_own_images_are_held_out_and_named(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b", "c", "d"])
    (tmp_path / "raw").mkdir()
    dataset, source = quickstart_data.write_own(tmp_path / "raw", tmp_path / "own", Protocol())
    assert [example.name for example in quickstart_data.read_examples(dataset, "Ts")] == ["d"]
    assert [example.name for example in quickstart_data.read_examples(dataset, "Tr")] == ["a", "b", "c"]
    assert source.startswith("3 images of") and source.endswith("held out for the scores: d.")


def test_own_test_images_are_used(tmp_path: Path) -> None:
    write_own(tmp_path / "own" / "train", ["a", "b"])
    write_own(tmp_path / "own" / "test", ["c"])
    (tmp_path / "raw").mkdir()
    dataset, source = quickstart_data.write_own(tmp_path / "raw", tmp_path / "own", Protocol())
    assert [example.name for example in quickstart_data.read_examples(dataset, "Ts")] == ["c"]
    assert "its 1 test images" in source


def test_too_few_own_images(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b"])
    with pytest.raises(RetinaError, match="holds 2 training images with masks and 0 test images with masks; expected"):
        quickstart_data.write_own(tmp_path, tmp_path / "own", Protocol())


def test_data_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match=r"none is not a folder; expected one with images/ and masks/"):
        quickstart_data.write_own(tmp_path, tmp_path / "none", Protocol())


# ---- scores and report


@pytest.fixture
def predicted(tmp_path: Path) -> tuple[Path, Path]:
    """A raw data set of two images and one held out, and a prediction that is all background."""
    write_own(tmp_path / "own", ["a", "b", "c"])
    (tmp_path / "raw").mkdir()
    dataset, _ = quickstart_data.write_own(tmp_path / "raw", tmp_path / "own", Protocol())
    (tmp_path / "predictions").mkdir()
    iio.imwrite(tmp_path / "predictions" / "c.png", np.zeros((96, 96), np.uint8))
    return dataset, tmp_path / "predictions"


def test_scores_count_what_the_network_missed(predicted) -> None:
    dataset, predictions = predicted
    results = quickstart_report.score(dataset, predictions)
    voxels = int(np.count_nonzero(generate_volume((1, 96, 96), 2)[1]))
    assert results.classes[0].network == Counts(fn=voxels)
    assert set(results.cases) == {"c"}
    assert "IoU 0.000 by the network" in results.classes[0].sentence()


def test_missing_prediction(predicted) -> None:
    dataset, predictions = predicted
    (predictions / "c.png").unlink()
    with pytest.raises(RetinaError, match=r"c\.png is missing: nnUNetv2_predict wrote no prediction for c"):
        quickstart_report.score(dataset, predictions)


def test_report_stands_alone(predicted, tmp_path: Path) -> None:
    dataset, predictions = predicted
    results = quickstart_report.score(dataset, predictions)
    quickstart_report.write_overlay(tmp_path / "overlay.png", dataset, predictions)
    page = quickstart_report.write_report(
        tmp_path, results, "Three <images>.", [("Training", 12.3)], ["nnUNetv2_train"]
    )
    text = page.read_text()
    assert "Three &lt;images&gt;." in text and "data:image/png;base64," in text and 'src="http' not in text
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["cases"]["c"]["label_1"]["iou"] == 0.0 and "NaN" not in (tmp_path / "scores.json").read_text()


# ---- the command


def test_errors_have_no_traceback(tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.quickstart(["-o", str(tmp_path), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and "Traceback" not in out + err


def test_interrupted() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert cli.guarded(interrupt) == 130


def test_help_names_every_option(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with pytest.raises(SystemExit) as stop:
        cli.quickstart(["--help"])
    text = sys.stdout.getvalue()
    assert stop.value.code == 0
    assert all(name in text for name in ("--output", "--data", "--iterations", "--device", "--seed", "--overwrite"))


def test_arguments_reach_the_settings(monkeypatch, capsys) -> None:
    calls: list = []
    monkeypatch.setattr(quickstart, "run_quickstart", lambda *given: calls.append(given) or Path("report.html"))
    assert (
        cli.quickstart(["-o", "there", "--data", "mine", "--iterations", "7", "--batch-size", "3", "--seed", "5"]) == 0
    )
    output, data, settings, overwrite, _ = calls[0]
    assert (output, data, overwrite) == (Path("there"), Path("mine"), False)
    assert (settings.iterations, settings.batch_size, settings.seed, settings.device) == (7, 3, 5, None)
    assert capsys.readouterr().out.splitlines()[-1] == "report.html"


@pytest.fixture
def worker_processes(monkeypatch) -> None:
    """As on a user's machine; nnU-Net's planner fails with the 0 that the other tests use."""
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)


@pytest.mark.slow
def test_whole_chain_on_generated_volumes(tmp_path: Path, worker_processes) -> None:
    said: list[str] = []
    page = run_quickstart(tmp_path / "out", settings=TINY, say=said.append)
    text = "\n".join(said)
    assert page == tmp_path / "out" / "report.html" and page.is_file()
    assert all(f"{stage}/6 " in text for stage in range(1, 7))
    assert "epoch   2 of 2" in text and "mitochondria: IoU" in said[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        MARKER, "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs",
        "predictions", "report.html", "scores.json", "overlay.png",
    }  # fmt: skip


@pytest.mark.slow
def test_whole_chain_on_own_images_by_the_command(tmp_path: Path, worker_processes) -> None:
    write_own(tmp_path / "own", ["a", "b", "c"])
    code = "import sys; from nnunetv2_retina.cli import quickstart; sys.exit(quickstart(sys.argv[1:]))"
    arguments = ["-o", "out", "--data", "own", "--iterations", "2", "--batch-size", "2", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "held out for the scores: c." in done.stdout
    assert (tmp_path / done.stdout.splitlines()[-1]).name == "report.html"
