"""Evaluation of folders: which files belong together, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
from helpers.label_files import dataset_json, save_nifti, save_png, two_images

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation import evaluate as evaluation
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import as_json, table


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return two_images(tmp_path)


def run(folder: Path, dataset=None, **options):
    return evaluate(folder / "predictions", folder / "labels", dataset or folder / "dataset.json", **options)


# Files


def test_folders_of_images(folders) -> None:
    scores = run(folders)
    assert [case.name for case in scores.cases] == ["a", "b"]
    assert scores.mean["iou"] == pytest.approx(1 / 3)  # b is in neither: undefined, left out
    assert scores.mean["mfd_mean"] == (1 / 2 + 1 / 2) / 2
    assert scores.dataset == folders.name


def test_objects_and_hidden_files_are_no_predictions(folders) -> None:
    for name in ("a_instances.png", "c.png", "d_instances.png", "._a.png"):
        save_png(folders / "predictions" / name, np.full((2, 4), 7))
    save_png(folders / "predictions" / ".unfinished" / "e" / "e.png", np.full((2, 4), 7))
    scores = run(folders)
    assert scores.extra_predictions == ("c", "d_instances")  # of a case d there is no prediction
    save_png(folders / "labels" / "a_instances.png", np.zeros((2, 4)))  # a case of that name is a case
    save_png(folders / "predictions" / "a_instances.png", np.zeros((2, 4)))
    assert [case.name for case in run(folders).cases] == ["a", "a_instances", "b"]


def test_nifti_volumes_take_the_spacing_of_the_truth(tmp_path) -> None:
    truth, prediction = np.zeros((2, 4, 5, 6), int)
    truth[0, 0, 0] = prediction[2, 0, 0] = prediction[0, 0, 3] = 1
    save_nifti(tmp_path / "labels" / "v.nii.gz", truth)
    save_nifti(tmp_path / "predictions" / "v.nii.gz", prediction)
    scores = run(tmp_path, dataset_json(ending=".nii.gz", distance_tolerance=50))
    assert tuple(scores.cases[0].spacing) == pytest.approx((40, 4, 4))
    assert scores.mean["cremi_adgt"] == pytest.approx((80 + 12) / 2)
    assert scores.mean["cremi_adf"] == pytest.approx(12)
    assert (scores.mean["cremi_fp"], scores.mean["cremi_fn"]) == (1, 0)
    assert run(tmp_path, dataset_json(ending=".nii.gz"), tolerance=100.0).mean["cremi_fp"] == 0


def test_tiff_volumes(tmp_path) -> None:
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "v.tif", np.eye(6, 7, dtype=np.uint8)[None].repeat(5, axis=0))
    scores = run(tmp_path, dataset_json(ending=".tif"))
    assert scores.cases[0].shape == (5, 6, 7) and scores.mean["iou"] == 1


def test_several_processes_give_the_same_in_the_same_order(folders) -> None:
    assert as_json(run(folders, processes=2)) == as_json(run(folders, processes=1))


def test_an_error_in_another_process_arrives(folders) -> None:
    (folders / "predictions" / "b.png").write_bytes(b"no image")
    with pytest.raises(RetinaError, match=r"b\.png: cannot be read"):
        run(folders, processes=2)


def test_a_killed_process_is_reported(folders, monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "_score_files", os._exit)
    with pytest.raises(RetinaError, match="one of 2 processes was killed, most likely for lack of memory"):
        evaluation._score_all(cast("Any", [3, 3]), 2, lambda done, total: None)


def test_without_distances(folders) -> None:
    assert list(run(folders, distances=False).mean) == ["iou", "f", "precision", "recall"]


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"dataset\.json cannot be read as JSON"),
        ("[]", r"dataset\.json holds a list; expected an object"),
        ('{"file_ending": ".png"}', r"dataset\.json: no labels\. Expected nnU-Net's"),
        ('{"labels": {}, "file_ending": ".png"}', r"dataset\.json has no labels; expected"),
        (
            '{"labels": {"background": 0}, "file_ending": ".png"}',
            "expected values of these labels.* at least one class",
        ),
        ('{"labels": {"background": 0, "a": "x"}, "file_ending": ".png"}', "label a is 'x'; expected a whole number"),
        (
            json.dumps(dataset_json(evaluated_classes=[5])),
            r"the labels are .*'cleft': 1.*evaluated_classes .* is \[5\]; expected values of these labels",
        ),
        (json.dumps(dataset_json(distance_tolerance=-1)), "distance_tolerance is -1; expected a number of at least 0"),
    ],
)
def test_an_unusable_dataset_json(folders, text, message) -> None:
    (folders / "dataset.json").write_text(text)
    with pytest.raises(RetinaError, match=message):
        run(folders)


def test_missing_predictions_are_named(folders) -> None:
    (folders / "predictions" / "b.png").unlink()
    with pytest.raises(RetinaError, match=r"no prediction for 1 of 2 cases of .*labels: b\. Expected .*b\.png"):
        run(folders)


def test_predictions_without_a_truth_are_reported_and_not_scored(folders) -> None:
    save_png(folders / "predictions" / "zzz.png", np.ones((2, 2)))
    scores = run(folders)
    assert scores.extra_predictions == ("zzz",) and len(scores.cases) == 2
    assert "without a ground truth, not scored: zzz" in table(scores)


@pytest.mark.parametrize(("folder", "role"), [("labels", "ground truth"), ("predictions", "prediction")])
def test_an_empty_or_missing_folder(folders, folder, role) -> None:
    for path in (folders / folder).iterdir():
        path.rename(path.with_suffix(".bmp"))
    with pytest.raises(RetinaError, match=rf"{folder} holds no {role} \(\*\.png, .*it holds a\.bmp, b\.bmp"):
        run(folders)
    (folders / folder).rename(folders / "elsewhere")
    with pytest.raises(RetinaError, match=rf"{folder} is not a folder; expected the folder of {role} files"):
        run(folders)


def test_another_shape(folders) -> None:
    save_png(folders / "predictions" / "a.png", np.zeros((3, 4)))
    with pytest.raises(
        RetinaError, match=r"case a: the prediction has shape \(1, 3, 4\), the ground truth \(1, 2, 4\)"
    ):
        run(folders)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spacing": (4, 4, 50)}, r"case v: the prediction has spacing \(50, 4, 4\), the ground truth \(40, 4, 4\)"),
        ({"origin": (0, 0, 400)}, r"case v: the prediction has origin \(0, 0, 400\), the ground truth \(0, 0, 0\)"),
        (
            {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)},
            r"case v: the prediction has direction \(-1, 0, 0.*expected the same",
        ),
    ],
)
def test_another_geometry(tmp_path, changed, message) -> None:
    save_nifti(tmp_path / "labels" / "v.nii.gz", np.zeros((2, 3, 4)))
    save_nifti(tmp_path / "predictions" / "v.nii.gz", np.zeros((2, 3, 4)), **changed)
    with pytest.raises(RetinaError, match=message):
        run(tmp_path, dataset_json(ending=".nii.gz"))


@pytest.mark.parametrize("folder", ["labels", "predictions"])
def test_values_the_dataset_lacks(folders, folder) -> None:
    save_png(folders / folder / "a.png", [[0, 255, 0, 0], [7, 0, 0, 0]])
    with pytest.raises(
        RetinaError, match=rf"{folder}.a\.png holds the values 7, 255, which the data set lacks.* are 0, 1"
    ):
        run(folders)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "0 processes; expected at least 1"),
        ({"tolerance": -2.0}, "tolerance is -2.0; expected a number of at least 0, in nm"),
    ],
)
def test_options_out_of_range(folders, options, message) -> None:
    with pytest.raises(RetinaError, match=message):
        run(folders, **options)


def test_one_folder_as_predictions_and_truths(folders) -> None:
    with pytest.raises(RetinaError, match=r"predictions and ground truths are both .*labels: every score would be 1"):
        evaluate(folders / "labels", folders / "labels" / ".." / "labels", folders / "dataset.json")


@pytest.mark.parametrize("lacking", ["labels", "predictions"])
def test_a_spacing_beside_one_tiff_alone_counts_for_both(tmp_path, lacking) -> None:
    volume = np.zeros((6, 4, 5), np.uint8)
    volume[1, 2, 2] = 1
    for name in ("labels", "predictions"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", volume)
        if name != lacking:
            (tmp_path / name / "a.json").write_text(json.dumps({"spacing": [40, 4, 4]}))
    scores = run(tmp_path, dataset_json(ending=".tif"))
    assert tuple(scores.cases[0].spacing) == (40, 4, 4) and scores.mean["iou"] == 1


SLOW = """
import os, sys, time
from nnunetv2_retina.commands import evaluate as command
from nnunetv2_retina.evaluation import evaluate
def slow(job):
    os.write(1, b"scoring\\n")  # at once, whole beside that of the other process
    time.sleep(3)
evaluate._score_files = slow
if __name__ == "__main__":
    sys.exit(command.main(sys.argv[1:]))
"""


def test_an_interrupt_is_one_line_though_several_processes_score(folders, tmp_path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    options = ["-p", "predictions", "-g", "labels", "-d", "dataset.json", "-o", "scores", "-np", "2"]
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "slow.py"), *options],
        cwd=folders, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background ignores it
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "scoring\n"
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, shown = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, "interrupted\n")
