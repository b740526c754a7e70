"""What an evaluation writes: JSON, CSV and the table; and the command."""

import csv
import json
import os

import numpy as np
import pytest
from helpers.label_files import two_images

from nnunetv2_retina.commands import evaluate as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.cases import score_case
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import MOST_CASES, as_json, csv_rows, table, write_scores
from nnunetv2_retina.evaluation.rule import Rule, ScoredClass
from nnunetv2_retina.evaluation.scores import combine

ONE = ScoredClass("cleft", (1,))
TWO = (ScoredClass("a", (1,)), ScoredClass("b", (2,)))


@pytest.fixture
def folders(tmp_path):
    return two_images(tmp_path)


def run(folder, **options):
    return evaluate(folder / "predictions", folder / "labels", folder / "dataset.json", **options)


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
    image = np.array([[1, 2]])
    cases = [score_case(f"case{i}", image, image, rule) for i in range(MOST_CASES + 2)]
    lines = table(combine(cases, rule))
    assert lines[2].split()[1] == "(b)"
    assert "2 more cases are in scores.csv" in lines and "(): not in the means" in lines
    assert lines[3].split()[1] == "mean"


def test_an_output_that_cannot_be_written_is_refused_first(folders, capsys) -> None:
    (folders / "out").write_text("a file")
    arguments = ["-p", "nowhere", "-g", "nowhere", "-d", "nowhere", "-o", str(folders / "out")]
    assert command.main(arguments) == 2
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
    assert command.main([*map(str, arguments), "-np", "1", "--tolerance", "200"]) == 0
    printed = capsys.readouterr().out
    assert "CREMI" in printed.splitlines()[0] and "tolerance 200 nm" in printed
    assert (folders / "out" / "scores.json").is_file() and (folders / "out" / "scores.csv").is_file()
    assert command.main([*map(str, arguments), "-np", "1", "--no-distances"]) == 0
    assert "MFD" not in capsys.readouterr().out


def test_the_command_names_the_missing_case(folders, capsys) -> None:
    (folders / "predictions" / "a.png").unlink()
    arguments = ["-p", folders / "predictions", "-g", folders / "labels", "-d", folders, "-o", folders / "out"]
    assert command.main(list(map(str, arguments))) == 2
    assert "error: no prediction for 1 of 2 cases" in capsys.readouterr().err
