"""Runs of a study: what defines them, in which order they run, failing, sharing, going on, merging."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import thread_workers

from nnunetv2_retina.console import part_of
from nnunetv2_retina.console.engines import Workers
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.study import folders, runner
from nnunetv2_retina.study.definition import Study, StudyDataset, StudyPrediction, StudySystem
from nnunetv2_retina.study.estimates import estimate_lines, estimates
from nnunetv2_retina.study.runner import merge, open_output, run_all
from nnunetv2_retina.study.runs import (
    FAILED,
    LOG,
    RESULT,
    RUN,
    STUDY,
    PlannedRun,
    Resolved,
    Run,
    planned_runs,
    rehearsals,
)

NAMES = {"901": "Dataset901_a", "902": "Dataset902_b"}
RESOLVED = Resolved(NAMES, {"Dataset901_a": {"batch_size": 2}, "Dataset902_b": {}}, {"em": "f1"})


def make_study(**changes) -> Study:
    settings = {
        "name": "small",
        "seeds": (1, 2),
        "reference": "A",
        "datasets": (
            StudyDataset(dataset="901", iterations=(2, 4), training={"learning_rate": 0.03}),
            StudyDataset(dataset="902", iterations=(8,)),
        ),
        "systems": (
            StudySystem(name="A", trainer="TA", weights="em", training={"learning_rate": 0.1}),
            StudySystem(name="B", trainer="TB", datasets=("901",)),
            StudySystem(name="own", trainer="TC", datasets=("902",), own_schedule=True),
        ),
        "weights": {"em": "/em.pth"},
    }
    return Study(**settings | changes)


def plan(output: Path, **changes) -> list[PlannedRun]:
    return planned_runs(make_study(**changes), RESOLVED, output)


def result(iteration: int = 4, iou: float | None = 0.5) -> str:
    scores = {str(iteration): {"mean": {"iou": iou}}}
    content = {"iterations": [iteration], "scores": scores, "seconds_per_iteration": 2.0, "prediction_seconds": 3.0}
    return json.dumps(content)


def finish(planned: PlannedRun, iou: float | None = 0.5) -> None:
    planned.begin()
    (planned.folder / RESULT).write_text(result(iou=iou))


@pytest.fixture
def pretend(monkeypatch):
    """``run_one`` without work: the runs that it was given; those in ``fails`` fail."""
    begun: list[str] = []
    fails: set[str] = set()

    def run_one(planned: PlannedRun, device: str, threads: int | None) -> int:
        begun.append(planned.name)
        planned.begin()
        (planned.folder / LOG).write_text("first line\nit broke\n")
        if planned.name in fails:
            (planned.folder / FAILED).write_text("exit status 1\n")
            return 1
        finish(planned)
        return 0

    monkeypatch.setattr(runner, "run_one", run_one)
    return begun, fails


def test_settings_of_a_run_come_from_data_set_study_and_system_in_this_order(tmp_path: Path) -> None:
    runs = {planned.name: planned for planned in plan(tmp_path)}
    a = runs["Dataset901_a, A, seed 1"]
    released = {"loss": "released"}
    assert a.run.training == {"batch_size": 2, "learning_rate": 0.1, "iterations": 4, "checkpoints": [2]} | released
    assert a.run.weights == "f1" and a.weights_file == "/em.pth" and a.run.iterations == (2, 4)
    assert runs["Dataset901_a, B, seed 1"].run.training["learning_rate"] == 0.03
    assert runs["Dataset901_a, B, seed 1"].weights_file is None
    assert runs["Dataset902_b, A, seed 2"].run.training == {"learning_rate": 0.1, "iterations": 8} | released
    own = runs["Dataset902_b, own, seed 1"].run
    assert own.iterations == () and "iterations" not in own.training
    assert Run.from_json(a.run.to_json()) == a.run
    assert a.folder == tmp_path / "runs" / "Dataset901_a" / "a" / "seed_1"


def test_settings_that_are_defaults_are_stated_too(tmp_path: Path) -> None:
    """A trainer may have other ones: nnUNetTrainerRETINA_few would train 400 iterations of 4 patches."""
    system = StudySystem(name="A", trainer="TA", training={"batch_size": 16, "optimiser": "sgd"})
    datasets = (StudyDataset(dataset="901", iterations=(5000,)),)
    (planned,) = plan(tmp_path, systems=(system,), datasets=datasets, seeds=(1,))
    assert {"iterations": 5000, "batch_size": 16, "optimiser": "sgd"}.items() <= planned.run.training.items()
    finish(planned)
    stored = json.loads((planned.folder / RUN).read_text())
    del stored["training"]["batch_size"]  # as before they were stated
    (planned.folder / RUN).write_text(json.dumps(stored))
    assert planned.finished()


def test_a_setting_that_was_given_and_is_no_longer_is_another_run(tmp_path: Path) -> None:
    """Also one whose default is none."""

    def now(**training: Any) -> PlannedRun:
        datasets = (StudyDataset(dataset="901", iterations=(2, 4), training=training),)
        return plan(tmp_path, datasets=datasets, systems=make_study().systems[:1], seeds=(1,))[0]

    finish(now(class_weights=[1, 2]))
    assert now(class_weights=[1, 2]).finished()
    with pytest.raises(RetinaError, match=r"its training's class_weights is \[1, 2\], in this study it is None"):
        now().finished()


def test_a_system_may_differ_on_single_data_sets(tmp_path: Path) -> None:
    system = StudySystem(name="A", trainer="TA", training={"patch_size": 480}, training_on={"901": {"patch_size": 512}})
    runs = {planned.run.dataset: planned.run for planned in plan(tmp_path, systems=(system,), seeds=(1,))}
    assert [runs[name].training["patch_size"] for name in NAMES.values()] == [512, 480]
    for where, message in ((("903", {}), "data set 903 is not among"), (("901", {"clip": 0}), "A on 901: .*clip is 0")):
        with pytest.raises(RetinaError, match=message):
            make_study(systems=(StudySystem(name="A", trainer="TA", training_on=dict([where])),))


def test_a_run_from_before_there_was_a_choice_of_losses_is_one_with_the_squared_dice(tmp_path: Path) -> None:
    def now(loss: str) -> PlannedRun:
        datasets = (StudyDataset(dataset="901", iterations=(2, 4), training={"loss": loss}),)
        return plan(tmp_path, datasets=datasets, systems=make_study().systems[:1], seeds=(1,))[0]

    finish(now("squared"))
    path = now("squared").folder / RUN
    stored = json.loads(path.read_text())
    del stored["training"]["loss"]
    path.write_text(json.dumps(stored))
    assert now("squared").finished()
    with pytest.raises(RetinaError, match=r"its training's loss is 'squared', in this study it is 'released'"):
        now("released").finished()


def test_every_system_has_one_seed_before_any_has_two(tmp_path: Path) -> None:
    assert [planned.name[-1] for planned in plan(tmp_path)] == ["1"] * 4 + ["2"] * 4


def test_a_rehearsal_is_a_few_steps_of_every_pair(tmp_path: Path) -> None:
    found = rehearsals(plan(tmp_path), tmp_path)
    assert [planned.folder for planned in found] == [
        tmp_path / "rehearsals" / place
        for place in ("Dataset901_a/a", "Dataset901_a/b", "Dataset902_b/a", "Dataset902_b/own")
    ]
    run = found[0].run
    assert run.rehearsal and run.iterations == (4,) and run.training["iterations"] == 4
    assert "checkpoints" not in run.training and found[3].run.iterations == ()


def test_a_failing_run_stops_no_other_and_is_tried_again(tmp_path: Path, pretend) -> None:
    begun, fails = pretend
    fails.add("Dataset901_a, B, seed 1")
    said: list[str] = []
    outcome = run_all(plan(tmp_path), "cpu", said.append)
    assert len(begun) == 8 and outcome.finished == 7 and [p.name for p in outcome.failed] == list(fails)
    assert any("FAILED" in line and "it broke" in line for line in said)
    assert any(str(tmp_path / "runs" / "Dataset901_a" / "b" / "seed_1" / LOG) in line for line in said)
    fails.clear()
    outcome = run_all(plan(tmp_path), "cpu", said.append)
    assert begun[8:] == ["Dataset901_a, B, seed 1"] and outcome.finished == 1 and not outcome.failed


def test_workers_share_the_runs(tmp_path: Path, pretend, monkeypatch) -> None:
    thread_workers.use(monkeypatch)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    begun, fails = pretend
    fails.add("Dataset901_a, B, seed 1")
    taken = plan(tmp_path)[0]
    taken.folder.mkdir(parents=True)
    said: list[str] = []
    with FileLock(taken.folder / ".lock"):
        outcome = run_all(plan(tmp_path), "cpu", said.append, Workers(workers=2))
    assert len(begun) == 7 and outcome.finished == 6 and [planned.name for planned in outcome.failed] == list(fails)
    assert [planned.name for planned in outcome.held] == [taken.name]
    assert sum("IoU 0.5" in line for line in said) == 6 and sum("another process has it" in line for line in said) == 1


def test_a_run_that_another_process_has_is_left_to_it(tmp_path: Path, pretend) -> None:
    begun, _ = pretend
    taken = plan(tmp_path)[0]
    taken.folder.mkdir(parents=True)
    with FileLock(taken.folder / ".lock"):
        outcome = run_all(plan(tmp_path), "cpu", lambda line: None)
    assert taken.name not in begun and [planned.name for planned in outcome.held] == [taken.name]
    assert run_all(plan(tmp_path), "cpu", lambda line: None).finished == 1  # the lock has gone with its process


def test_more_seeds_and_systems_may_be_added_but_a_changed_run_is_refused(tmp_path: Path, pretend) -> None:
    begun, _ = pretend
    open_output(make_study(), tmp_path / "out")
    run_all(plan(tmp_path / "out"), "cpu", lambda line: None)
    open_output(make_study(seeds=(1, 2, 3)), tmp_path / "out")
    run_all(plan(tmp_path / "out", seeds=(1, 2, 3)), "cpu", lambda line: None)
    assert len(begun) == 12 and all(title.endswith("3") for title in begun[8:])
    other = (StudyDataset(dataset="901", iterations=(2, 6)), StudyDataset(dataset="902", iterations=(8,)))
    with pytest.raises(RetinaError, match=r"a run of another study: its iterations is \[2, 4\], in this .* \[2, 6\]"):
        run_all(plan(tmp_path / "out", datasets=other), "cpu", lambda line: None)


def test_what_a_corrected_setting_leaves_behind_is_thrown_away_while_nothing_was_trained(tmp_path: Path) -> None:
    corrected = (StudyDataset(dataset="901", iterations=(2, 6)), StudyDataset(dataset="902", iterations=(8,)))
    before, after = plan(tmp_path)[0], plan(tmp_path, datasets=corrected)[0]
    before.begin()
    (before.folder / FAILED).write_text("exit status 2\n")
    (before.folder / "nnUNet_results" / "fold_0").mkdir(parents=True)
    with FileLock(before.folder / ".lock"):
        assert not after.finished()
        after.begin()
    assert {path.name for path in after.folder.iterdir()} - {".lock"} == {RUN}
    assert Run.from_json(json.loads((after.folder / RUN).read_text())) == after.run
    (after.folder / "nnUNet_results" / "fold_0").mkdir(parents=True)
    (after.folder / "nnUNet_results" / "fold_0" / "checkpoint_latest.pth").write_text("an hour of work")
    with pytest.raises(RetinaError, match=r"its iterations is \[2, 6\], in this .* \[2, 4\]"):
        before.begin()
    assert (after.folder / "nnUNet_results" / "fold_0" / "checkpoint_latest.pth").is_file()


def test_a_rehearsal_with_other_settings_is_made_again(tmp_path: Path) -> None:
    before = rehearsals(plan(tmp_path), tmp_path)[0]
    finish(before)
    assert before.finished()
    after = rehearsals(plan(tmp_path, prediction=StudyPrediction(mirroring=True)), tmp_path)[0]
    assert after.folder == before.folder and not after.finished()
    assert not estimates(plan(tmp_path, prediction=StudyPrediction(mirroring=True)), tmp_path, lambda planned: 1)
    finish(after)
    assert after.finished() and not before.finished()


def test_the_output_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    open_output(make_study(), tmp_path / "out")
    open_output(make_study(), tmp_path / "out")
    with pytest.raises(
        RetinaError, match=r"holds the results of study 'small'; this file is study 'large'. Give anoth"
    ):
        open_output(make_study(name="large"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RetinaError, match=r"is not empty and holds no results of a study \(no study.json\)"):
        open_output(make_study(), tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RetinaError, match=r"cannot write to .*file"):
        open_output(make_study(), tmp_path / "file")


def test_two_processes_may_begin_a_study_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / f"{STUDY}.4711.tmp").write_text("{")  # the other one is still writing
    open_output(make_study(), tmp_path / "early")
    list_folder = Path.iterdir

    def begin_meanwhile(folder: Path) -> Iterator[Path]:
        monkeypatch.setattr(Path, "iterdir", list_folder)
        open_output(make_study(), folder)
        (folder / "runs").mkdir()
        return folder.iterdir()

    (tmp_path / "late").mkdir()
    monkeypatch.setattr(Path, "iterdir", begin_meanwhile)
    open_output(make_study(), tmp_path / "late")


def test_parts_are_disjoint_and_together_all(tmp_path: Path) -> None:
    runs = plan(tmp_path)
    parts = [part_of(runs, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(p.name for part in parts for p in part) == sorted(p.name for p in runs)
    assert part_of(runs, None) == runs
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(RetinaError, match=f"--part {text}: expected i/n"):
            part_of(runs, text)


def test_finished_runs_of_other_folders_are_taken(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        open_output(make_study(), folder)
    mine, theirs = plan(here), plan(there)
    finish(mine[0], 0.1)
    for planned in theirs[:3]:
        finish(planned, 0.2)
    theirs[3].begin()  # not finished there
    (mine[1].folder).mkdir(parents=True)  # begun here
    said: list[str] = []
    assert merge(mine, here, [there], said.append) == 2
    assert [planned.finished() for planned in mine[:4]] == [True, True, True, False]
    scores = json.loads((mine[0].folder / RESULT).read_text())["scores"]
    assert scores["4"]["mean"]["iou"] == 0.1  # what was here stays
    assert said == [f"{there}: 2 runs taken"]
    with pytest.raises(RetinaError, match="holds no results of a study"):
        merge(mine, here, [tmp_path], said.append)
    content = json.loads((theirs[2].folder / RUN).read_text()) | {"seed": 9}
    (theirs[2].folder / RUN).write_text(json.dumps(content))
    with pytest.raises(RetinaError, match="a run of another study: its seed is 9"):
        merge(mine, here, [there], said.append)


def test_a_run_that_another_process_has_is_not_merged_over(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        open_output(make_study(), folder)
    mine, theirs = plan(here)[0], plan(there)[0]
    finish(theirs, 0.2)
    (theirs.folder / ".lock").write_text("theirs")
    (theirs.folder / "scores").mkdir()
    mine.begin()
    (mine.folder / "checkpoint_latest.pth").write_text("an hour of work")
    said: list[str] = []
    with FileLock(mine.folder / ".lock"):
        assert merge([mine], here, [there], said.append) == 0
    assert (mine.folder / "checkpoint_latest.pth").is_file() and not mine.finished()
    assert said == [f"{mine.name}: another process has it; not taken", f"{there}: 0 runs taken"]
    (mine.folder / ".lock").touch()
    inode = (mine.folder / ".lock").stat().st_ino
    assert merge([mine], here, [there], said.append) == 1 and mine.finished()
    assert {path.name for path in mine.folder.iterdir()} == {".lock", RUN, RESULT, "scores"}
    assert (mine.folder / ".lock").stat().st_ino == inode and list(mine.folder.parent.iterdir()) == [mine.folder]


def test_estimates_come_from_rehearsals_then_from_runs(tmp_path: Path) -> None:
    runs = plan(tmp_path)
    assert estimates(runs, tmp_path, lambda planned: 10) == []
    for planned in rehearsals(runs, tmp_path)[:2]:
        finish(planned)
    found = estimates(runs, tmp_path, lambda planned: 10)
    # 4 iterations of 2 s, and 10 images of 3 s after 2 and after 4 iterations
    assert [(e.system, e.seconds_per_run, e.left, e.measured_on) for e in found] == [
        ("A", 68.0, 2, "rehearsal"),
        ("B", 68.0, 2, "rehearsal"),
    ]
    finish(runs[0])
    found = estimates(runs, tmp_path, lambda planned: 10)
    assert (found[0].seconds_per_run, found[0].left, found[0].measured_on) == (14.0, 1, "runs")
    lines = estimate_lines(found, missing=7)
    assert lines[2:] == [
        "about 2 min for these 3 runs, one after the other",
        "no estimate for 4 of the runs, not rehearsed yet",
    ]
    assert estimate_lines([], missing=0) == []


def test_a_process_that_fails_leaves_the_end_of_its_output(tmp_path: Path, monkeypatch) -> None:
    planned = plan(tmp_path)[0]
    monkeypatch.setattr(folders, "make", lambda folder, run: {})
    monkeypatch.setattr(sys, "executable", "python3")
    started = subprocess.Popen
    code = ["python3", "-c", "import os; print('seed', os.environ['RETINA_SEED']); print('no memory'); exit(3)"]
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: started(code, **options))
    assert runner.run_one(planned, "cpu") == 3
    text = (planned.folder / FAILED).read_text()
    assert text.startswith("exit status 3") and "no memory" in text and "seed 1" in text
    code[2] = "print('all is well')"
    assert runner.run_one(planned, "cpu") == 1  # ends well, but without a result


def test_a_data_set_that_cannot_be_linked_fails_its_own_runs_alone(tmp_path: Path, monkeypatch) -> None:
    """A stick with a file system without links, Windows without the right to them; a data set moved away meanwhile."""
    (tmp_path / "pre" / "Dataset901_a").mkdir(parents=True)
    (tmp_path / "pre" / "Dataset901_a" / "nnUNetPlans.json").write_text("{}")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    runs = plan(tmp_path / "out")
    said: list[str] = []
    outcome = run_all(runs, "cpu", said.append)
    assert outcome.failed == runs
    told = "\n".join(said)
    assert "file system with symbolic links; on Windows they need the developer mode" in told
    assert "data set Dataset902_b not found in $nnUNet_preprocessed" in told
    assert all((planned.folder / FAILED).read_text().startswith("it did not begin") for planned in runs)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    planned = plan(tmp_path)[0]
    planned.begin()
    (planned.folder / RUN).write_text("{")
    with pytest.raises(RetinaError, match=r"run.json cannot be read as JSON .* Delete its folder to run it anew"):
        planned.finished()


def test_labelled_cases_are_drawn_by_the_seed_alike_for_all_systems() -> None:
    train, held = [f"case_{number}" for number in range(9)], ["held_0", "held_1"]
    study = make_study()
    entry = replace(study.datasets[0], labelled=(1, 3), fold=2, scored="validation")
    few = replace(study, datasets=(entry,), systems=study.systems[:2])
    resolved = replace(RESOLVED, folds={entry.dataset: {"train": train, "val": held}})
    drawn: dict[tuple[int, int], list[set[str]]] = {}
    for planned in planned_runs(few, resolved, Path("out")):
        run = planned.run
        (fold,) = run.training["folds"]
        assert run.fold == 0 and fold["val"] == held and len(fold["train"]) == run.labelled
        assert run.title == f"{run.dataset}, {run.labelled} labelled" and f"_labelled_{run.labelled}" in str(
            planned.folder
        )
        drawn.setdefault((run.seed, run.labelled), []).append(set(fold["train"]))
    assert len(drawn) == 4 and all(len(sets) == 2 and sets[0] == sets[1] for sets in drawn.values())
    assert drawn[1, 1][0] < drawn[1, 3][0] and drawn[2, 1][0] < drawn[2, 3][0]
    assert drawn[1, 3][0] != drawn[2, 3][0]
    whole = replace(resolved, folds={entry.dataset: {"train": train, "val": []}})  # fold all
    (fold,) = planned_runs(few, whole, Path("out"))[0].run.training["folds"]
    assert fold["val"] == fold["train"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (
            "epoch 0\nerror: lower the rate\nRuntimeError: workers are gone\n",
            2,
            "error: lower the rate",
        ),
        ("error: an earlier start\nepoch 0\n\nKilled\n", -9, "Killed"),
        ("Traceback\nValueError: x\n", 1, "ValueError: x"),
        ("", 1, "it wrote nothing"),
    ],
)
def test_a_failed_run_says_why_whatever_follows_in_its_log(tmp_path: Path, text: str, status: int, words: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    assert runner._last_words(tmp_path / "log.txt", status) == words
