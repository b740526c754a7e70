"""A study's figures, files and page."""

import csv
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.study_results import FIXTURE, outline, result

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.study.findings.figures import run_boxes, spreads
from nnunetv2_retina.study.findings.page import write_report
from nnunetv2_retina.study.findings.result_files import read_result
from nnunetv2_retina.study.findings.results import SystemOutline
from nnunetv2_retina.study.findings.statistics import compare
from nnunetv2_retina.study.findings.tables import build_table


def test_figures_draw_the_scores_of_the_runs() -> None:
    study = outline()
    results = [result(seed=seed, iou=0.6 + seed / 100) for seed in (1, 2)] + [result(system="theirs", last=1000)]
    table = build_table(study, results)
    (row,) = table.rows
    ours, theirs = spreads(study, results, row, "iou")
    assert list(ours.x) == [50, 200] and np.allclose(ours.runs, [[0.305, 0.61], [0.31, 0.62]])
    assert list(theirs.x) == [250, 1000] and ours.over(statistics.fmean) == pytest.approx([0.3075, 0.615])
    boxes = run_boxes(table, row, "ours", compare(table, "ours"))
    assert [(box.name, box.note) for box in boxes] == [("ours", "reference"), ("theirs", "too few runs")]
    assert boxes[0].values == pytest.approx((0.61, 0.62)) and boxes[0].emphasised
    more = [*results, result(system="theirs", seed=2, iou=0.5)]
    table = build_table(study, more)
    assert run_boxes(table, row, "ours", compare(table, "ours"))[1].note == "p = 0.333\nA = 1.00"


def test_report_of_a_study(tmp_path: Path) -> None:
    study = outline("A B")
    study = replace(study, datasets=(replace(study.datasets[0], paper="UroCell"), study.datasets[1]))
    study = replace(study, systems=(SystemOutline("ours", "RETINA"), SystemOutline("theirs")))
    results = [
        result(system=system, seed=seed, iou=0.6 + seed / 100) for system in ("ours", "theirs") for seed in (1, 2)
    ]
    results.append(replace(read_result(FIXTURE), dataset="Dataset_B", system="ours"))
    results.append(result("elsewhere"))
    page = write_report(study, results, tmp_path / "new", notes=["ours on A, seed 3: failed <loss>."]).read_text()
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {
        *(
            "report.html",
            "scores.json",
            "scores.csv",
            "tables.md",
            "table_iou.csv",
            "table_f.csv",
            "table_mfd_mean.csv",
        ),
        *(f"{kind}_Dataset_{name}.png" for kind in ("convergence", "boxes") for name in "AB"),
    }
    assert "failed &lt;loss&gt;" in page and "paper: 0.610" in page and "5 of 12 planned runs" in page
    assert not re.search(r'(src|href)="(?!data:image|#)', page) and "/a/folder" not in page and "retina.pth" in page
    content = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert content["runs_found"] == 5 and content["tables"]["iou"]["Dataset_A"]["ours"]["values"] == [0.61, 0.62]
    assert content["tables"]["mfd_mean"]["Dataset_B"]["ours"]["undefined"] == 1
    assert content["comparisons"][0]["smallest_p"] == pytest.approx(1 / 3)
    with (tmp_path / "new" / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    chosen = [line for line in lines if line["dataset"] == "Dataset_B" and line["iteration"] == "200"]
    assert {(line["level"], line["name"]) for line in chosen} == {
        *(("mean", ""), ("class", "mitochondria"), ("class", "vesicles"), ("case", "img_20"))
    }
    assert next(line for line in chosen if line["metric"] == "mfd_mean")["value"] == ""
    assert "**" not in (tmp_path / "new" / "tables.md").read_text()  # all means alike
    with (tmp_path / "new" / "table_iou.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["ours: mean"]) == pytest.approx(0.615) and row["ours: n"] == "2" and row["data set"] == "A"


def test_what_was_named_beforehand_begins_the_report(tmp_path: Path) -> None:
    study = replace(outline(), primary=(("Dataset_A", "theirs"),))
    results = [
        result(system=system, seed=seed, iou=iou + seed / 100)
        for system, iou in (("ours", 0.6), ("theirs", 0.5))
        for seed in (1, 2, 3)
    ]
    page = write_report(study, results, tmp_path).read_text()
    assert page.index("Named beforehand, runs of one seed") < page.index("planned runs are there")
    tables = (tmp_path / "tables.md").read_text()
    assert "| theirs * |" in tables and "Named beforehand: the 1 marked *" in tables


def test_names_with_dollars_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["lr $10^{-3$", "$x_{$ and $"]
    study = replace(outline(), systems=tuple(map(SystemOutline, names)), reference=names[0])
    results = [result(system=name, seed=seed) for name in names for seed in (1, 2)]
    assert "lr $10^{-3$" in write_report(study, results, tmp_path).read_text()


@pytest.mark.parametrize("runs", [0, 1])
@pytest.mark.parametrize("seeds", [1, 3])
def test_report_of_next_to_nothing(tmp_path: Path, runs: int, seeds: int) -> None:
    path = write_report(outline(seeds=seeds), [result()][:runs], tmp_path, {"a picture": tmp_path / "absent.png"})
    page = path.read_text()
    assert f"{runs} of {2 * seeds} planned runs are there" in page and "There is no absent.png." in page
    write_report(outline(seeds=seeds), [result()], tmp_path)  # replaces the first
    assert "only ours has a score" in path.read_text()


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RetinaError, match=r"cannot write to .*Give another output folder"):
        write_report(outline(), [], tmp_path / "file")
