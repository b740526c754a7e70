"""Evaluation of folders: which files belong together, what is refused, and what is written."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from nnunetv2_retina import cli
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation import evaluate as evaluation
from nnunetv2_retina.evaluation.evaluate import evaluate, score_case
from nnunetv2_retina.evaluation.output import MOST_CASES, as_json, csv_rows, table, write_scores
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import combine

BINARY = {"background": 0, "cleft": 1}
ONE = ScoredClass("cleft", (1,))
TWO = (ScoredClass("a", (1,)), ScoredClass("b", (2,)))


def dataset_json(labels=BINARY, ending=".png", **block) -> dict:
    return {"name": "Test", "labels": labels, "file_ending": ending} | ({"retina": block} if block else {})


def save_nifti(path: Path, array, spacing=(4.0, 4.0, 40.0), origin=(0.0, 0.0, 0.0), direction=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.asarray(array, np.uint8))
    image.SetSpacing(spacing[: image.GetDimension()])
    image.SetOrigin(origin[: image.GetDimension()])
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))


def save_png(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Predictions and ground truths of two images, and what scores them."""
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    save_png(tmp_path / "labels" / "a.png", truth)
    save_png(tmp_path / "labels" / "b.png", np.zeros((2, 4)))
    save_png(tmp_path / "predictions" / "a.png", [[0, 1, 1, 0], [0, 0, 0, 0]])
    save_png(tmp_path / "predictions" / "b.png", np.zeros((2, 4)))
    (tmp_path / "dataset.json").write_text(json.dumps(dataset_json()))
    return tmp_path


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
        evaluation._score_all([3, 3], 2)


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


def test_fractions_and_negative_values(tmp_path) -> None:
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "v.tiff", np.zeros((2, 3, 4), np.float32), photometric="minisblack")
    for value, message in ((0.5, r"holds 0\.5; expected whole numbers"), (-1, "from -1 to 0; expected label values")):
        array = np.zeros((2, 3, 4), np.float32)
        array[1, 0, 0] = value
        tifffile.imwrite(tmp_path / "predictions" / "v.tiff", array, photometric="minisblack")
        with pytest.raises(RetinaError, match=message):
            run(tmp_path, dataset_json(ending=".tiff"))


def test_a_colour_image(folders) -> None:
    save_png(folders / "predictions" / "a.png", np.zeros((2, 4, 3)))
    with pytest.raises(RetinaError, match=r"a\.png: shape \(3, 1, 2, 4\).*expected a label image of one channel"):
        run(folders)


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".tif", ".tiff"])
def test_an_unreadable_file(tmp_path, ending, capfd) -> None:
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"a{ending}").write_bytes(b"not an image")
    with pytest.raises(RetinaError, match=rf"labels.a{ending}: .*Is the file complete"):
        run(tmp_path, dataset_json(ending=ending))
    assert "Traceback" not in capfd.readouterr().err


def test_a_format_nnunet_cannot_read(tmp_path) -> None:
    for folder in ("labels", "predictions"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.xyz").touch()
    with pytest.raises(
        RetinaError, match=r"nnU-Net has no reader that can open it \(file_ending of dataset\.json: \.xyz"
    ):
        run(tmp_path, dataset_json(ending=".xyz"))


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


# What is written


def test_json_holds_everything_and_null_with_a_reason(folders) -> None:
    path, _ = write_scores(run(folders), folders / "out")
    scores = json.loads(path.read_text())
    assert scores["mean"]["iou"] == pytest.approx(1 / 3)
    empty = scores["cases"]["b"]["classes"]["cleft"]
    assert empty["iou"] is None and empty["reasons"]["iou"] == "in neither the prediction nor the ground truth"
    assert scores["cases"]["a"]["classes"]["cleft"]["voxels"] == {"tp": 1, "fp": 1, "fn": 1}
    assert scores["rule"]["classes"] == [{"name": "cleft", "values": [1], "evaluated": True}]
    assert set(scores["versions"]) >= {"nnunetv2-retina", "nnunetv2", "scipy"}
    assert any("undefined, left out" in sentence for sentence in scores["excluded"])


def test_json_lists_the_scores_of_images() -> None:
    rule = Rule((ONE,), score_unit="slice", ignore=2)
    truth = np.array([[[1, 0]], [[2, 2]], [[0, 0]]])
    entry = as_json(combine([score_case("v", truth % 2, truth, rule)], rule))["cases"]["v"]["classes"]["cleft"]
    assert entry["images"]["index"] == [0, 2]
    assert entry["images"]["iou"] == [1, 1] and entry["images"]["recall"] == [1, None]


def test_csv_has_one_value_a_line(folders) -> None:
    scores = run(folders)
    _, path = write_scores(scores, folders / "out")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(csv_rows(scores)) == 6 * (2 * 2 + 2)
    found = {(row["case"], row["class"], row["metric"]): row for row in rows}
    assert float(found["a", "cleft", "iou"]["value"]) == pytest.approx(1 / 3)
    assert (
        found["b", "cleft", "iou"] | {"value": "", "reason": "in neither the prediction nor the ground truth"}
        == (found["b", "cleft", "iou"])
    )
    assert rows[-1]["case"] == rows[-1]["class"] == "mean"


def test_the_table_is_aligned_and_ends_with_the_means(folders) -> None:
    lines = table(run(folders))
    assert lines[0].split() == ["case", "class", "IoU", "F", "precision", "recall", "MFD-H", "MFD-m"]
    assert lines[2].split() == ["b", "cleft", *["undefined"] * 6]
    assert lines[3].split() == ["mean", "cleft", "0.333", "0.500", "0.500", "0.500", "1.00", "0.50"]
    assert len({len(line) for line in lines[:4]}) == 1


def test_the_table_marks_what_is_aside_and_shortens_long_lists() -> None:
    rule = Rule((TWO[0], ScoredClass("b", (2,), evaluated=False)), distances=False)
    cases = [score_case(f"case{i}", *[np.array([[1, 2]])] * 2, rule) for i in range(MOST_CASES + 2)]
    lines = table(combine(cases, rule))
    assert lines[2].split()[1] == "(b)"
    assert "2 more cases are in scores.csv" in lines and "(): not in the means" in lines
    assert lines[3].split()[1] == "mean"


def test_an_output_that_cannot_be_written_is_refused_first(folders, capsys) -> None:
    (folders / "out").write_text("a file")
    arguments = ["-p", "nowhere", "-g", "nowhere", "-d", "nowhere", "-o", str(folders / "out")]
    assert cli.evaluate(arguments) == 2
    assert "error: cannot write to" in capsys.readouterr().err


def test_earlier_scores_stay_if_new_ones_cannot_be_written(folders, monkeypatch) -> None:
    scores = run(folders)
    path, _ = write_scores(scores, folders / "out")
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RetinaError, match=r"cannot write .*scores\.json \(disk full\)"):
        write_scores(scores, folders / "out")
    assert path.read_text() == before and sorted(file.name for file in path.parent.iterdir()) == [
        "scores.csv",
        "scores.json",
    ]


def test_the_command(folders, capsys) -> None:
    arguments = ["-p", folders / "predictions", "-g", folders / "labels", "-d", folders, "-o", folders / "out"]
    assert cli.evaluate([*map(str, arguments), "-np", "1", "--tolerance", "200"]) == 0
    printed = capsys.readouterr().out
    assert "CREMI" in printed.splitlines()[0] and "tolerance 200 nm" in printed
    assert (folders / "out" / "scores.json").is_file() and (folders / "out" / "scores.csv").is_file()
    assert cli.evaluate([*map(str, arguments), "-np", "1", "--no-distances"]) == 0
    assert "MFD" not in capsys.readouterr().out


def test_the_command_names_the_missing_case(folders, capsys) -> None:
    (folders / "predictions" / "a.png").unlink()
    arguments = ["-p", folders / "predictions", "-g", folders / "labels", "-d", folders, "-o", folders / "out"]
    assert cli.evaluate(list(map(str, arguments))) == 2
    assert "error: no prediction for 1 of 2 cases" in capsys.readouterr().err
