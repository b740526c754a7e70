"""A study's results: read, checked and selected."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.study_results import FIXTURE, outline, result

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.study.findings.result_files import read_result, read_results
from nnunetv2_retina.study.findings.results import DatasetOutline, select


def test_result_is_read_as_it_was_written() -> None:
    found = read_result(FIXTURE)
    assert found.key == ("Dataset710_Synthetic", "RETINA", 1) and found.last == 200 and list(found.scores) == [50, 200]
    assert found.scores[200].mean["iou"] == 0.61 and math.isnan(found.scores[200].mean["mfd_mean"])
    assert found.scores[200].classes["vesicles"]["f"] == 0.72 and found.scores[200].cases["img_20"]["iou"] == 0.6
    assert found.parameters["trained"] == 20000000 and found.training_seconds == 170
    assert found.made_by["device"] == "cpu"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format_version", 2, "format_version is 2; expected 1"),
        ("seed", "one", "seed is 'one'; expected a whole number"),
        ("dataset", None, "dataset is None; expected a text"),
        ("iterations", [], "expected a list of whole numbers"),
        ("iterations", [50, 300], "scores at 50, 200 iterations; expected the last, 300, too"),
        ("scores", [], "scores is .*; expected an object"),
        ("scores", {"many": {}}, "got 'many'; expected a number of iterations"),
        ("scores", {"200": {"mean": {"iou": "good"}}}, "mean, iou is 'good'; expected a number, or null"),
        ("scores", {"200": {"mean": {}, "cases": {"a": 1}}}, "cases, a: got int; expected an object of metrics"),
        ("training_seconds", True, "training_seconds is True; expected a number"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, key: str, value: object, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(FIXTURE.read_text()) | {key: value}))
    with pytest.raises(RetinaError, match=rf"result.json: .*{said}.*Delete it and run the study again"):
        read_result(path)


@pytest.mark.parametrize("text", ['{"format_version": 1, "see', "[1, NaN]", "\xff"])
def test_damaged_files_are_all_named(tmp_path: Path, text: str) -> None:
    for name in ("a", "b", "fine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(text.encode("latin-1"))
    shutil.copy(FIXTURE, tmp_path / "fine" / "result.json")
    with pytest.raises(RetinaError, match=r"a/result.json is damaged(.|\n)*b/result.json is damaged") as error:
        read_results(tmp_path)
    assert "fine/result" not in str(error.value)


def test_results_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(FIXTURE, tmp_path / name / "result.json")
    with pytest.raises(RetinaError, match=r"RETINA, seed 1: 2 results.*expected one\. Delete the others"):
        read_results(tmp_path)
    shutil.rmtree(tmp_path / "b")
    assert [found.seed for found in read_results(tmp_path)] == [1]
    assert read_results(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "nobody"}, "reference is 'nobody'; expected one of its systems: ours, theirs"),
        ({"seeds": ()}, "seeds: got none; expected at least one"),
        ({"seeds": (1, 1)}, "seeds: got 1 more than once"),
        ({"datasets": (DatasetOutline("D", "d"),) * 2}, "data sets: got D more than once"),
        (
            {"datasets": (DatasetOutline("D", "d"), DatasetOutline("E", "d"))},
            "titles of data sets: got d more than once",
        ),
        ({"datasets": (DatasetOutline("D", "d", group="D"),)}, "group D has the name of a data set; expected another"),
    ],
)
def test_outline_that_cannot_be_reported_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(RetinaError, match=said):
        replace(outline(), **changes)  # type: ignore[arg-type]


def test_results_of_other_studies_are_left_out_and_the_rest_is_in_order() -> None:
    chosen = select([result("B"), result(seed=9), result(system="theirs"), result()], outline())
    assert [entry.key[1:] for entry in chosen] == [("ours", 1), ("theirs", 1)]


def test_results_of_runs_that_are_not_planned_are_left_out() -> None:
    study = replace(outline(), planned={("Dataset_A", "ours", 1)})
    assert [entry.key for entry in select([result(), result(seed=2)], study)] == [("Dataset_A", "ours", 1)]
    assert study.runs == (("Dataset_A", "ours", 1),) and len(outline().runs) == 6
