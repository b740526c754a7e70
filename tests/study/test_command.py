"""A whole study through nnU-Net on tiny images: checks, runs, resuming, scores at several iterations, the report."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.environment import CASES, LABELS, PROTOCOL, blobs
from helpers.trainings import write_weights
from skimage.io import imsave

from nnunetv2_retina.commands import benchmark as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.protocol.folds import make_splits
from nnunetv2_retina.study import folders
from nnunetv2_retina.study.checks import resolve
from nnunetv2_retina.study.command import StudyOptions, _case_counter, outline, run_study
from nnunetv2_retina.study.pictures import window
from nnunetv2_retina.study.runner import run_one
from nnunetv2_retina.study.runs import RESULT, PlannedRun, planned_runs
from nnunetv2_retina.study.study_file import read_study

STUDY = """
name: small
seeds: [1]
reference: RETINA
weights: {em: em.pth}
prediction: {step_size: 1.0}
datasets:
  - {dataset: 901, iterations: [2, 4], training: {iterations_per_epoch: 1}}
systems:
  - {name: RETINA, trainer: nnUNetTrainerRETINA_tiny, weights: em}
  - {name: TransUNet, trainer: nnUNetTrainerTransUNet_tiny}
"""

STUDY_3D = """
name: small, in 3D
seeds: [3]
reference: 3D
prediction: {step_size: 1.0}
datasets: [{dataset: 904, iterations: [1, 2], fold: 1, scored: validation}]
systems: [{name: 3D, trainer: nnUNetTrainerTransUNet3D_tiny, configuration: 3d_fullres}]
"""


@pytest.fixture
def study(workspace, tmp_path: Path) -> Path:
    """The study above, data set 901 with two test images, and its weights."""
    raw = workspace / "nnUNet_raw" / "Dataset901_test"
    for folder in ("imagesTs", "labelsTs"):
        (raw / folder).mkdir()
    for number in (7, 8):
        image, mask = blobs(number)
        imsave(raw / "imagesTs" / f"test_{number}_0000.png", image, check_contrast=False)
        imsave(raw / "labelsTs" / f"test_{number}.png", mask, check_contrast=False)
    write_weights(tmp_path / "em.pth", "tiny")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def change(study: Path, old: str, new: str) -> Path:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))
    return study


def test_labelled_cases_come_from_those_for_training(study: Path) -> None:
    change(study, "training: {", "labelled: [1, 2], training: {")
    assert sorted(resolve(read_study(study)).folds["901"]["train"]) == sorted(CASES)
    change(study, "labelled: [1, 2]", f"labelled: [1, {len(CASES) + 1}]")
    with pytest.raises(RetinaError, match=f"there are {len(CASES)} training cases. Give fewer"):
        resolve(read_study(study))
    change(study, f"labelled: [1, {len(CASES) + 1}]", "fold: 1, scored: validation, labelled: [1, 2]")
    assert resolve(read_study(study)).folds["901"] == make_splits(CASES, Protocol())[1]


def test_what_a_study_names_is_looked_at_before_anything_runs(study: Path, workspace: Path) -> None:
    resolved = resolve(read_study(study))
    assert resolved.datasets == {"901": "Dataset901_test"} and resolved.training["Dataset901_test"] == PROTOCOL
    assert len(resolved.fingerprints["em"]) == 64 and not resolved.seen
    write_weights(study.parent / "em.pth", "tiny", store={"sources": ["cells", "Dataset901_test_test"]})
    (sentence,) = resolve(read_study(study)).seen
    assert "pre-training of the weights em saw the test cases of Dataset901_test" in sentence
    write_weights(study.parent / "em.pth", "tiny")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "nnUNetTrainerRETINA_tiny",
            "nnUNetTrainerRetina_tiny",
            "'nnUNetTrainerRetina_tiny'. Did you mean nnUNetTrainerRE",
        ),
        ("nnUNetTrainerRETINA_tiny", "Unheard", "no trainer 'Unheard'. Known here are nnUNetTrainerRETINA, "),
        (
            "dataset: 901",
            "dataset: 77",
            r"data set 77 not found in .*convert the data set, then run: nnUNetv2_plan_and_preprocess -d 77",
        ),
        ("em.pth", "gone.pth", "weights em: no checkpoint at .*gone.pth: no such file"),
        ("_tiny, weights: em", "_tiny", "RETINA_tiny starts from pre-trained weights, and none are given. Add weights"),
        ("TransUNet_tiny}", "TransUNet_tiny, weights: em}", "starts from random initialisation, but has weights em"),
        (
            "TransUNet_tiny}",
            "TransUNet_tiny, configuration: 3d_fullres}",
            "has no configuration 3d_fullres .* it has 2d",
        ),
        (
            "iterations: [2, 4]",
            "plans: Mine, iterations: [2, 4]",
            "Mine.json is missing. Run: nnUNetv2_plan_and_prepro",
        ),
    ],
)
def test_what_is_not_there_is_refused(study: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RetinaError, match=message):
        resolve(read_study(change(study, old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "iterations: [2, 4]",
            "fold: 9, iterations: [2, 4]",
            r"901: fold 9 cannot exist: the folds .* are 0, 1, 2, 3, 4",
        ),
        (
            "training: {",
            "fold: 1, scored: validation, training: {folds: [{train: [case_0], val: [case_1]}], ",
            r"fold 1 cannot exist: the folds of 6 training cases are 0 \(and all\)",
        ),
        (
            "systems:",
            "  - {dataset: Dataset901_test, iterations: [2]}\nsystems:",
            "data sets 901 and Dataset901_test: both are Dataset901_test; expected each data set once",
        ),
        ("training: {", "group: Dataset901_test, training: {", "group Dataset901_test has the name of a data set"),
    ],
)
def test_what_could_not_be_run_or_reported_is_refused_before_anything_runs(
    study: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    options = StudyOptions(device="cpu", only="estimate")
    with pytest.raises(RetinaError, match=message):
        run_study(change(study, old, new), tmp_path / "out", options, lambda line: None)
    assert not (tmp_path / "out").exists()


def test_numbers_of_labels_have_groups_of_their_own_and_no_number_of_the_paper(study: Path, tmp_path: Path) -> None:
    change(study, "training: {", "labelled: [1, 2], group: Perez, paper: Perez nuclei, training: {")
    loaded = read_study(study)
    resolved = resolve(loaded)
    outlined = outline(loaded, resolved, planned_runs(loaded, resolved, tmp_path))
    assert [(entry.group, entry.paper) for entry in outlined.datasets] == [
        ("Perez, 1 labelled", None),
        ("Perez, 2 labelled", None),
    ]
    assert len(outlined.runs) == 4 and ("Dataset901_test, 2 labelled", "TransUNet", 1) in outlined.runs


def test_what_is_scored_is_counted(study: Path) -> None:
    loaded = read_study(study)
    resolved = resolve(loaded)
    (planned, *_) = planned_runs(loaded, resolved, Path("out"))
    assert _case_counter(loaded, resolved)(planned) == 2  # the test images
    loaded = read_study(change(study, "iterations: [2, 4]", "fold: 0, scored: validation, iterations: [2, 4]"))
    resolved = resolve(loaded)
    held = make_splits(CASES, Protocol())[0]["val"]
    assert _case_counter(loaded, resolved)(planned) == len(held) and resolved.folds["901"]["val"] == held


def test_a_data_set_without_test_labels_is_refused(study: Path, workspace: Path) -> None:
    raw = workspace / "nnUNet_raw" / "Dataset901_test"
    (raw / "labelsTs" / "test_8.png").unlink()
    with pytest.raises(RetinaError, match=r"1 of 2 test images have no label in .*labelsTs: test_8. A study scores"):
        resolve(read_study(study))
    shutil.rmtree(raw / "imagesTs")
    with pytest.raises(RetinaError, match=r"no input folder .*imagesTs"):
        resolve(read_study(study))
    change(study, "iterations: [2, 4]", "fold: 0, scored: validation, iterations: [2, 4]")
    assert resolve(read_study(study)).datasets == {"901": "Dataset901_test"}


def test_the_commands_messages(study: Path, tmp_path: Path, capsys) -> None:
    assert command.main([str(study), "-o", str(tmp_path / "out"), "--part", "3/2", "-device", "cpu"]) == 2
    assert "--part 3/2: expected i/n" in capsys.readouterr().err
    assert command.main([str(study), "-o", str(tmp_path / "out"), "--report", "-device", "cpu"]) == 0
    assert "no run is finished yet" in capsys.readouterr().out
    if not torch.cuda.is_available():
        assert command.main([str(study), "-o", str(tmp_path / "out")]) == 2
        assert "no CUDA GPU is usable here" in capsys.readouterr().err
    change(study, "[2, 4]", "[4, 2]")
    assert command.main([str(study), "-o", str(tmp_path / "out"), "-device", "cpu"]) == 2
    assert "expected whole numbers above 0 that increase" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_runs_and_is_reported_whatever_becomes_of_one_system(
    study: Path, tmp_path: Path, capsys, warm_processes
) -> None:
    spoiled = "training: {learning_rate: 1.0e+30, weight_decay: 1.0e+10}"  # weights of 1 are beyond float32 in a step
    change(study, "nnUNetTrainerTransUNet_tiny}", f"nnUNetTrainerTransUNet_tiny, {spoiled}}}")
    options = [str(study), "-o", str(tmp_path / "out"), "-device", "cpu"]
    assert command.main([*options, "--estimate"]) == 1
    said = capsys.readouterr().out
    assert (
        "rehearsal: 2 times" in said
        and "s/iteration" in said
        and "one after the other" in said
        and "no estimate for 1 of the runs" in said
    )
    assert "TransUNet, rehearsal: FAILED" in said and "weights became infinite or not a number by epoch" in said
    assert not (tmp_path / "out" / "runs").exists()
    assert command.main([*options, "--no-rehearsal"]) == 1
    assert "1 failed; the same command tries them again" in capsys.readouterr().err
    run = tmp_path / "out" / "runs" / "Dataset901_test" / "retina" / "seed_1"
    result = json.loads((run / RESULT).read_text())
    assert result["iterations"] == [2, 4] and set(result["scores"]) == {"2", "4"}
    assert set(result["scores"]["4"]["cases"]) == {"test_7", "test_8"}
    assert set(result["scores"]["4"]["classes"]) == set(LABELS) - {"background"}
    assert result["parameters"]["trained"] < result["parameters"]["all"]  # frozen blocks
    assert result["made_by"]["weights"]["file"] == "em.pth" and result["made_by"]["versions"]["nnunetv2"]
    assert result["made_by"]["protocol"]["checkpoints"] == [2]
    assert not (run / "nnUNet_preprocessed").exists() and not list(run.rglob("checkpoint_iteration*"))
    assert (run / "predictions" / "4" / "test_7.png").is_file() and not (run / "predictions" / "2").exists()
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "RETINA" in page and "data:image/png;base64," in page and str(tmp_path) not in page
    assert "Dataset901_test, TransUNet, seed 1 failed: exit status 2" in page
    before = (run / RESULT).stat().st_mtime_ns
    assert command.main([*options, "--report"]) == 0
    assert (run / RESULT).stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(study: Path, tmp_path: Path, warm_processes) -> None:
    """First in a process of its own, as a user's."""
    change(study, "[2, 4]", "[2, 8]")
    loaded = read_study(study)
    planned = planned_runs(loaded, resolve(loaded), tmp_path / "out")[0]
    code = (
        "import sys, pathlib, pickle; from nnunetv2_retina.study.runner import run_one;"
        "run_one(pickle.load(open(sys.argv[1], 'rb')), 'cpu')"
    )
    (tmp_path / "planned").write_bytes(pickle.dumps(planned))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "planned")], start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(planned.folder.rglob("checkpoint_latest.pth")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (planned.folder / RESULT).exists()
    assert run_one(planned, "cpu") == 0
    result = json.loads((planned.folder / RESULT).read_text())
    assert set(result["scores"]) == {"2", "8"}
    assert (planned.folder / "log.txt").read_text().count("Epoch 0") == 1  # the second start went on


@pytest.mark.slow
def test_a_3d_system_on_the_validation_cases_of_a_fold(
    workspace: Path, volumes: Path, tmp_path: Path, warm_processes
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(volumes / name, workspace / name, dirs_exist_ok=True)
    (tmp_path / "study.yaml").write_text(STUDY_3D)
    loaded = read_study(tmp_path / "study.yaml")
    (planned,) = planned_runs(loaded, resolve(loaded), tmp_path / "out")
    assert run_one(planned, "cpu") == 0, (planned.folder / "log.txt").read_text()
    result = json.loads((planned.folder / RESULT).read_text())
    assert list(result["scores"]["2"]["cases"]) == make_splits(CASES, Protocol())[1]["val"]
    assert not (planned.folder / "scored").exists()


def test_validation_cases_are_linked_for_scoring(study: Path, workspace: Path, tmp_path: Path, monkeypatch) -> None:
    change(study, "iterations: [2, 4]", "fold: 0, scored: validation, iterations: [2, 4]")
    loaded = read_study(study)
    planned: PlannedRun = planned_runs(loaded, resolve(loaded), tmp_path / "out")[0]
    planned.begin()
    for name, value in folders.make(planned.folder, planned.run).items():
        monkeypatch.setenv(name, value)
    view = planned.folder / "nnUNet_preprocessed" / "Dataset901_test"
    assert json.loads((view / "dataset.json").read_text())["retina"]["checkpoints"] == [2]
    original = workspace / "nnUNet_preprocessed" / "Dataset901_test" / "dataset.json"
    assert json.loads(original.read_text())["retina"] == PROTOCOL  # the user's own stays
    (view / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_4", "case_5"]}]))
    images, labels = folders.scored_files(planned.folder, planned.run)
    assert sorted(path.name for path in images.iterdir()) == ["case_4_0000.png", "case_5_0000.png"]
    assert sorted(path.name for path in labels.iterdir()) == ["case_4.png", "case_5.png"]
    folders.remove(planned.folder)
    assert original.is_file() and not view.exists()


def test_splits_of_the_study_are_there_for_trainers_that_read_no_settings(study: Path, tmp_path: Path) -> None:
    change(study, "training: {", "labelled: [2], training: {")
    loaded = read_study(study)
    planned = planned_runs(loaded, resolve(loaded), tmp_path / "out")[0]
    planned.begin()
    folders.make(planned.folder, planned.run)
    path = planned.folder / "nnUNet_preprocessed" / "Dataset901_test" / "splits_final.json"
    assert json.loads(path.read_text()) == list(planned.run.training["folds"]) and not path.is_symlink()


def test_the_part_that_is_shown_has_the_most_foreground() -> None:
    foreground = np.zeros((100, 60), bool)
    foreground[70:90, 10:20] = True
    assert window(foreground, 40) == (slice(60, 100), slice(0, 40))
    assert window(foreground, 500) == (slice(0, 100), slice(0, 60))
