"""The quickstart: its settings, folders, progress and errors; and, slowly, the whole chain."""

import html
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.checks import noting
from helpers.own_images import write_own

from dataset_conversion.convert import main as convert
from nnunetv2_retina import console
from nnunetv2_retina.commands import quickstart as command
from nnunetv2_retina.display.pages import contents, html_page
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.commands import Workspace
from nnunetv2_retina.protocol import FEW_LABELS, Protocol
from nnunetv2_retina.quickstart import run as quickstart
from nnunetv2_retina.quickstart.data import Source
from nnunetv2_retina.quickstart.folder import MARKER, Output
from nnunetv2_retina.quickstart.run import run_quickstart
from nnunetv2_retina.quickstart.settings import QuickstartSettings

TINY = QuickstartSettings(
    iterations=4,
    iterations_per_epoch=2,
    batch_size=2,
    patch_size=64,
    train_volumes=2,
    test_volumes=1,
    shape=(2, 120, 120),
    device="cpu",
)


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
def test_wrong_settings_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(RetinaError, match=message):
        QuickstartSettings(**setting)


def test_few_iterations_are_one_epoch() -> None:
    assert QuickstartSettings(iterations=5).epochs == 1
    assert QuickstartSettings(iterations=31).epochs == 2


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
    for name in ("nnUNet_raw", "data", "scores"):
        (tmp_path / name).mkdir()
    for name in ("report.html", "notes.txt", "data/a.tif"):
        (tmp_path / name).touch()
    Output(tmp_path).prepare(overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "nnUNet_raw", "notes.txt"]


def test_the_folder_of_an_older_version_is_replaced_whole(tmp_path: Path) -> None:
    for name in (MARKER, "overlay.png", "scores.json"):
        (tmp_path / name).touch()
    Output(tmp_path).prepare(overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "nnUNet_raw"]


def test_images_in_the_folder_to_be_replaced_are_refused(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
    write_own(tmp_path / "data" / "train", ["a", "b"])
    write_own(tmp_path / "data" / "test", ["c"])
    with pytest.raises(RetinaError, match="lies among the files that the quickstart replaces"):
        run_quickstart(tmp_path, tmp_path / "data", TINY)
    assert (tmp_path / "data" / "test" / "images" / "c.png").is_file()


def test_data_are_examined_before_anything_is_written(tmp_path: Path) -> None:
    write_own(tmp_path / "own", ["a", "b"])
    with pytest.raises(RetinaError, match="holds 2 training images with masks"):
        run_quickstart(tmp_path / "out", tmp_path / "own", TINY)
    assert not (tmp_path / "out").exists()


# ---- the commands


def test_commands_are_those_that_a_user_types(tmp_path: Path, monkeypatch) -> None:
    typed: list[list[str]] = []

    def run(name: str, words: list[str], workspace: Workspace, watch, say) -> None:
        typed.append([name, *words])
        for line in ("what the picture shows\n", "weights.png\n"):
            watch(line)

    monkeypatch.setattr(quickstart, "run_command", run)
    source, files = Source(tmp_path / "my data", "", ("--labels", "1=mitochondria")), Output(tmp_path)
    lines: list[str] = []
    explanation = quickstart._run_commands(files, source, TINY, time.monotonic(), lines.append)
    assert explanation == "what the picture shows"
    network = ["nnUNetv2_train", "retina_predict", "retina_evaluate"]
    assert [words[0] for words in typed] == [
        "retina_convert", "nnUNetv2_plan_and_preprocess", "retina_pretrain", *network, *network, "retina_report",
    ]  # fmt: skip
    assert typed[0][1:4] == ["folder", str(tmp_path / "my data"), "-d"] and typed[0][-1] == "1=mitochondria"
    assert typed[3] == ["nnUNetv2_train", "1", "2d", "0", "-tr", "nnUNetTrainerRETINA_full_tiny", "-device", "cpu"]
    assert typed[6] == ["nnUNetv2_train", "1", "2d", "0", "-tr", "nnUNetTrainerTransUNet_tiny", "-device", "cpu"]
    assert not any("{" in word for words in typed for word in words)
    assert f"nnUNet_raw={tmp_path / 'nnUNet_raw'}" in lines[0] and lines[0].endswith(
        " RETINA_SEED=0 RETINA_WEIGHTS=open"
    )
    assert [line[9:].split()[0] for line in lines[1:] if "/11" in line] == [f"{number}/11" for number in range(2, 12)]


@pytest.mark.parametrize(
    ("given", "baseline", "names"),
    [
        ({}, "nnUNetTrainerTransUNet_tiny", 10),
        ({"trainer": "nnUNetTrainerRETINA"}, "nnUNetTrainerTransUNet", 10),
        ({"baseline": False}, None, 7),
        ({"trainer": "nnUNetTrainerRETINA_few"}, None, 7),
        ({"trainer": "nnUNetTrainerTransUNet_tiny"}, None, 6),
    ],
)
def test_only_what_starts_from_weights_has_its_like_beside_it(
    given: dict[str, Any], baseline: str | None, names: int
) -> None:
    settings = QuickstartSettings(**given)
    assert settings.baseline_trainer == baseline and len(quickstart.steps(settings)) == names


def test_weights_that_cannot_be_drawn_do_not_end_the_chain(tmp_path: Path, monkeypatch) -> None:
    def fail(command: str, words: list[str], workspace: Workspace, watch, say) -> None:
        watch("error: no images in imagesTr\n")
        raise RetinaError("retina_pretrain failed")

    lines: list[str] = []
    monkeypatch.setattr(quickstart, "run_command", fail)
    assert quickstart._look("retina_pretrain", [], Workspace(tmp_path), lines.append) is None
    assert lines == ["         No picture: error: no images in imagesTr"]


@pytest.fixture
def only_convert(tmp_path: Path, monkeypatch) -> list[str]:
    """Of all commands, run the conversion alone, in this process; return the commands' names."""
    names: list[str] = []

    def run(name: str, words: list[str], workspace: Workspace, *_: object) -> None:
        names.append(name)
        if name == "retina_report":
            Path(words[-1]).write_text(html_page("report", [contents([])]))
        if name == "retina_convert":
            for variable, folder in workspace.folders().items():
                monkeypatch.setenv(variable, str(folder))
            assert convert(words) == 0

    monkeypatch.setattr(quickstart, "run_command", run)
    monkeypatch.setattr("nnunetv2_retina.quickstart.results.compare_with_threshold", lambda *_: ["a: mean IoU 1"])
    monkeypatch.setattr("nnunetv2_retina.quickstart.beside.blocks", lambda *_: ["<p>beside</p>"])
    monkeypatch.setattr("nnunetv2_retina.quickstart.beside.sentence", lambda *_: "mean IoU 1 beside 0")
    monkeypatch.setattr(quickstart, "_look", lambda *_: None)
    return names


def test_generated_volumes_are_converted_with_the_settings(tmp_path: Path, only_convert: list[str]) -> None:
    lines: list[str] = []
    page = run_quickstart(tmp_path / "out", settings=TINY, say=lines.append)
    assert page == tmp_path / "out" / "report.html" and lines[-8:-5] == [
        "a: mean IoU 1", "mean IoU 1 beside 0", "Now your data:",
    ]  # fmt: skip
    text = page.read_text()
    assert (
        "EMPIAR" in text
        and "<p>beside</p>" in text
        and "a: mean IoU 1" in text
        and all(html.escape(line[4:]) in text for line in lines[-5:])
    )
    assert only_convert[-1] == "retina_report"
    dataset = Output(tmp_path / "out").dataset
    contents = json.loads((dataset / "dataset.json").read_text())
    assert contents["labels"] == {"background": 0, "mitochondria": 1} and contents["numTraining"] == 2
    protocol = Protocol.from_dataset_json(contents)
    settings = (protocol.iterations, protocol.iterations_per_epoch, protocol.batch_size, protocol.patch_size)
    assert settings == (4, 2, 2, 64)
    assert {key: getattr(protocol, key) for key in FEW_LABELS} == FEW_LABELS
    assert [path.name for path in (dataset / "labelsTs").iterdir()] == ["test_02.nii.gz"]


def test_own_images_are_converted_with_some_held_out(tmp_path: Path, only_convert: list[str]) -> None:
    write_own(tmp_path / "own", ["a", "b", "c"])
    lines: list[str] = []
    run_quickstart(tmp_path / "out", tmp_path / "own", TINY, say=lines.append)
    assert any(line.endswith("held out for the scores: c.") for line in lines)
    dataset = Output(tmp_path / "out").dataset
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == ["a.png", "b.png"]
    assert [path.name for path in (dataset / "labelsTs").iterdir()] == ["c.png"]


def test_own_slices_are_volumes_with_their_options(tmp_path: Path, only_convert: list[str]) -> None:
    for number in range(3):
        write_own(tmp_path / "one" / str(number), [f"z{z}" for z in (1, 2, 3)])
        for kind in ("images", "masks"):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "one" / str(number) / kind).rename(tmp_path / "own" / kind / f"v{number}")
    options = ["--labels", "1=mito", "--spacing", "40", "8", "8", "--slices-as-volume"]
    lines: list[str] = []
    run_quickstart(tmp_path / "out", tmp_path / "own", TINY, say=lines.append, options=options)
    dataset = Output(tmp_path / "out").dataset
    assert sorted(path.name for path in (dataset / "labelsTr").iterdir()) == ["v0.nii.gz", "v1.nii.gz"]
    assert json.loads((dataset / "dataset.json").read_text())["labels"] == {"background": 0, "mito": 1}
    converted, predict = lines[-4].split(), lines[-1].split()
    assert converted[2] == str(tmp_path / "own") and all(word in converted for word in options)
    assert predict[-5:] == ["--spacing", "40", "8", "8", "--slices-as-volume"]


# ---- the command


def test_errors_have_no_traceback(tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert command.main(["-o", str(tmp_path), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and "Traceback" not in out + err


def test_weights_are_looked_for_before_anything_is_written(tmp_path: Path, capsys) -> None:
    missing = str(tmp_path / "nowhere.pth")
    assert command.main(["-o", str(tmp_path / "out"), "--weights", missing, "--device", "cpu"]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_interrupted() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert console.run(interrupt) == 130


def test_help_names_every_option(capsys, monkeypatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    text = shown.getvalue()
    assert stop.value.code == 0
    assert all(name in text for name in ("--output", "--data", "--iterations", "--device", "--seed", "--overwrite"))


def test_arguments_reach_the_settings(tmp_path, monkeypatch, capsys) -> None:
    calls: list[Any] = []
    started = noting(calls, lambda *given: given, lambda *_: Path("report.html"))
    monkeypatch.setattr(quickstart, "run_quickstart", started)
    options = ["--data", str(tmp_path), "--iterations", "7", "--batch-size", "3", "--seed", "5"]
    options += ["--labels", "1=a", "2=b", "--spacing", "40", "8.5", "8", "--slices-as-volume"]
    assert command.main(["-o", "there", *options]) == 0
    output, data, settings, overwrite, _, more = calls[0]
    assert (output, data, overwrite) == (Path("there"), tmp_path, False)
    assert more == ["--labels", "1=a", "2=b", "--spacing", "40", "8.5", "8", "--slices-as-volume"]
    assert (settings.iterations, settings.batch_size, settings.seed, settings.device) == (7, 3, 5, None)
    assert capsys.readouterr().out.splitlines()[-1] == "report.html"


@pytest.fixture
def worker_processes(monkeypatch) -> None:
    """As on a user's machine; nnU-Net's planner fails with the 0 that the other tests use."""
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)


@pytest.mark.slow
def test_whole_chain_on_generated_volumes(tmp_path: Path, worker_processes, warm_processes) -> None:
    lines: list[str] = []
    page = run_quickstart(tmp_path / "out", settings=TINY, say=lines.append)
    text = "\n".join(lines)
    assert page == tmp_path / "out" / "report.html" and page.is_file()
    assert all(f"{stage}/11 " in text for stage in range(1, 12))
    assert text.count("epoch   2 of 2") == text.count("1 of 1   test_02") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        MARKER, "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs",
        "data", "predictions", "scores", "baseline", "weights.png", "report.html",
    }  # fmt: skip
    iou, random = (
        json.loads((tmp_path / "out" / folder / "scores.json").read_text())["mean"]["iou"]
        for folder in ("scores", "baseline/scores")
    )
    assert lines[-8].startswith(f"mitochondria: mean IoU {iou:.3f} by the network, ")
    assert lines[-7] == (
        f"mean IoU {iou:.3f} from the weights, {random:.3f} from random initialisation with the same settings and "
        f"patches: {iou - random:+.3f}"
    )
    transfers = sorted((tmp_path / "out" / "nnUNet_results").rglob("transfer_report.json"))
    assert [len(json.loads(path.read_text())["loaded"]) > 50 for path in transfers] == [True, False]
    written = page.read_text()
    assert f"Mean IoU {iou:.3f} over 1 case." in written and "One training of each is no proof" in written
    assert "Squares of one colour are alike to that network" in written and "test_02: image, ground truth" in written
