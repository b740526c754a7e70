"""A study's results: read, put into tables, and reported."""

import csv
import json
import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.metric import metric_of
from nnunetv2_retina.study.findings.figures import run_boxes, spreads
from nnunetv2_retina.study.findings.page import write_report
from nnunetv2_retina.study.findings.paper_numbers import PUBLISHED, SYSTEMS, published
from nnunetv2_retina.study.findings.provenance import differences, setup_rows, time_rows, version_rows
from nnunetv2_retina.study.findings.result_files import read_result, read_results
from nnunetv2_retina.study.findings.results import (
    DatasetOutline,
    Evaluation,
    Result,
    StudyOutline,
    SystemOutline,
    select,
)
from nnunetv2_retina.study.findings.statistics import compare
from nnunetv2_retina.study.findings.summary import (
    beside_the_paper,
    beyond_chance,
    completeness,
    rankings,
    undefined_scores,
)
from nnunetv2_retina.study.findings.tables import Table, build_table, class_tables, shown_cell, shown_iterations

FIXTURE = Path(__file__).parent / "study_result.json"
SPREAD = (-0.01, 0.002, 0.008)
"""Of the seeds about a mean; adds up to 0."""
ORGANELLES = ("lysosomes", "mitochondria", "nuclei", "nucleoli")


def outline(datasets: str = "A", systems: str = "ours theirs", seeds: int = 3) -> StudyOutline:
    return StudyOutline(
        name="A study",
        datasets=tuple(DatasetOutline(f"Dataset_{name}", name) for name in datasets.split()),
        systems=tuple(map(SystemOutline, systems.split())),
        seeds=tuple(range(1, seeds + 1)),
        reference=systems.split()[0],
    )


def result(dataset: str = "A", system: str = "ours", seed: int = 1, iou: float = 0.6, last: int = 200) -> Result:
    classes = {"one": {"iou": iou + 0.1}, "two": {"iou": iou - 0.1}}
    scores = {last // 4: Evaluation({"iou": iou / 2}), last: Evaluation({"iou": iou, "mfd_mean": 10 * iou}, classes)}
    made_by = {"versions": {"torch": "2.9.0"}, "device": "cpu", "trainer": f"Trainer{system}", "weights": None}
    return Result(f"Dataset_{dataset}", system, seed, scores, {"iou": "overlap"}, 0.5, 100, 20, {}, made_by)


def paper_study() -> tuple[StudyOutline, list[Result]]:
    """Three runs of each system and data set of the paper, whose means are the paper's."""
    keys = [key for key in PUBLISHED if key != "Perez"]
    datasets = tuple(
        DatasetOutline(f"Dataset80{i}", key, key, "Perez" if key.startswith("Perez") else None)
        for i, key in enumerate(keys)
    )
    study = StudyOutline(
        "The paper's", datasets, tuple(SystemOutline(name, name) for name in SYSTEMS), (1, 2, 3), "RETINA"
    )
    results = [
        Result(dataset.name, system, seed, {PUBLISHED[dataset.title].iterations: Evaluation({"iou": score + off})})
        for dataset in datasets
        for system, score in PUBLISHED[dataset.title].iou.items()
        for seed, off in zip((1, 2, 3), SPREAD, strict=True)
    ]
    return study, results


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
        ("iterations", [50, 300], "scores at 200, 50 iterations; expected the last, 300, too"),
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
        ({"datasets": (DatasetOutline("D", "d", group="D"),)}, r"data sets \(or groups\): got D more than once"),
        (
            {"datasets": (DatasetOutline("D", "d", "Crème"),)},
            "paper: Crème; expected one of the paper's data sets: CREMI",
        ),
        ({"systems": (SystemOutline("ours", "best"),)}, "paper: best; expected one of the paper's systems: UNet-RN50"),
    ],
)
def test_outline_that_cannot_be_reported_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(RetinaError, match=said):
        replace(outline(), **changes)  # type: ignore[arg-type]


def test_the_papers_table_comes_out_as_far_as_its_own_arithmetic_goes() -> None:
    study, results = paper_study()
    table = build_table(study, results)
    for row in table.rows:
        for system in SYSTEMS:
            score, cell = published(row.paper, system), table.cells[row.name, system]
            if score is None:
                assert cell.n == 0 and shown_cell(table, row, system) == "-"
                continue
            assert shown_cell(table, row, system) == f"{score:.3f} ± 0.009 (3)"
        assert table.ranking(row)[0] == "RETINA"
    perez = {system: [PUBLISHED[f"Perez {name}"].iou.get(system) for name in ORGANELLES] for system in SYSTEMS}
    for system, scores in perez.items():
        cell = table.cells["Perez", system]
        expected = math.nan if None in scores else statistics.fmean(score for score in scores if score is not None)
        assert cell.mean == pytest.approx(expected, nan_ok=True)
    differing = next(line for line in beside_the_paper(study, table))
    assert differing.startswith("Scores here that the paper has too: 44, of which 44 within 0.01")


def test_the_papers_tests_come_out_with_its_three_runs() -> None:
    study, results = paper_study()
    found = {(entry.row.title, entry.other): entry for entry in compare(build_table(study, results), "RETINA")}
    far = found["UroCell", "UNet-RN50 random"]  # 0.407 apart, the runs at most 0.018
    assert far.test is not None and far.test.p == pytest.approx(0.1) and far.superiority == 1
    near = found["Kasthuri++", "UNet-RN50 CEM500K"]  # 0.001 apart: of 9 pairs the reference is better in 6
    pairs = [(0.916 + a) > (0.915 + b) for a in SPREAD for b in SPREAD]
    assert near.superiority == pytest.approx(sum(pairs) / 9) and near.test is not None and near.test.u == sum(pairs)
    assert all(entry.p_holm == 1 for entry in found.values())
    said = " ".join(beyond_chance(list(found.values())))
    assert f"0 of {len(found)} have p < 0.05" in said and "With 3 and 3 runs no p below 0.1 is possible" in said


def test_group_is_the_mean_per_seed_where_all_its_data_sets_are() -> None:
    study = outline(datasets="A B C", seeds=4)
    study = replace(study, datasets=tuple(replace(d, group="AB" if d.title in "AB" else None) for d in study.datasets))
    results = [result(seed=1, iou=0.5), result(seed=2, iou=0.6), result(seed=3, iou=0.7), result("C", seed=1)]
    results += [result("B", seed=1, iou=0.9), result("B", seed=3, iou=math.nan), result("B", seed=4, iou=0.1)]
    table = build_table(study, results)
    assert [row.name for row in table.rows] == ["Dataset_A", "Dataset_B", "AB", "Dataset_C"]
    cell = table.cells["AB", "ours"]
    assert cell.values == pytest.approx((0.7,)) and cell.undefined == 1 and cell.missing == (2, 4)
    assert table.rows[2].title == "AB (mean of 2)" and table.rows[2].paper is None


def test_cell_leaves_out_and_counts_what_is_undefined() -> None:
    study = outline(seeds=4)
    results = [result(seed=1, iou=0.5), result(seed=2, iou=math.nan), result(seed=3, iou=0.7)]
    table = build_table(study, results)
    cell, (row,) = table.cells["Dataset_A", "ours"], table.rows
    assert cell.mean == pytest.approx(0.6) and cell.deviation == pytest.approx(0.02**0.5) and cell.missing == (4,)
    assert shown_cell(table, row, "ours") == "0.600 ± 0.141 (2; 1 undefined)"
    assert undefined_scores(table) == ["Runs whose IoU is undefined, left out of the means: ours on A: 1."]
    alone = build_table(study, results[:1])
    assert shown_cell(alone, row, "ours") == "0.500 (1)" and math.isnan(alone.cells["Dataset_A", "ours"].deviation)
    assert shown_cell(build_table(study, results[1:2]), row, "ours") == "undefined (1)"


def test_tables_at_an_iteration_of_classes_and_where_lower_is_better() -> None:
    study, results = outline(), [result(), result(system="theirs", iou=0.5, last=1000)]
    table = build_table(study, results)
    (row,) = table.rows
    assert shown_iterations(table, row) == "200; theirs: 1000"
    assert build_table(study, results, iteration=50).cells["Dataset_A", "ours"].mean == pytest.approx(0.3)
    assert build_table(study, results, iteration=50).cells["Dataset_A", "theirs"].missing == (1, 2, 3)
    distance = build_table(study, results, metric_of("mfd_mean"))
    assert table.is_best(row, "ours") and not table.is_best(row, "theirs")
    assert distance.is_best(row, "theirs") and distance.ranking(row) == ["theirs", "ours"]
    classes = class_tables(study, results)["Dataset_A"]
    assert classes.cells["two", "ours"].mean == pytest.approx(0.5) and [r.name for r in classes.rows] == ["one", "two"]


def test_systems_that_score_alike_have_no_best() -> None:
    table = build_table(outline(), [result(), result(system="theirs")])
    assert not any(table.is_best(table.rows[0], system) for system in table.systems)
    assert rankings(table, "ours") == ["A: ours has the highest mean IoU, 0.600 (1); theirs has the same."]


def test_sentences_say_who_is_best_and_what_is_missing() -> None:
    study = outline("A B C", "ours theirs third", seeds=2)
    results = [result(system=name, iou=score) for name, score in (("ours", 0.4), ("theirs", 0.6), ("third", 0.5))]
    results += [result("B", seed=seed) for seed in (1, 2)]
    assert rankings(build_table(study, results), "ours") == [
        "A: theirs has the highest mean IoU, 0.600 (1); third follows with 0.500 (1); ours is number 3 of 3 with "
        "0.400 (1).",
        "B: only ours has a score, 0.600 ± 0.000 (2).",
        "C: no score yet.",
    ]
    first, *absent = completeness(study, results)
    assert first == "5 of 18 planned runs are there, 13 missing (3 data sets, 3 systems, 2 seeds)."
    assert absent[:2] == [
        "A: no run of ours (seed 2), theirs (seed 2), third (seed 2).",
        "B: no run of theirs (every seed), third (every seed).",
    ]
    assert completeness(study, results, planned=5)[0].startswith("5 of 5 planned runs are there, none is missing")
    assert len(completeness(study, results, planned=5)) == 1


def test_what_is_significant_is_named() -> None:
    study = outline(systems="ours theirs same", seeds=6)
    results = [
        result(system=system, seed=seed, iou=score + seed / 1000)
        for system, score in (("ours", 0.6), ("theirs", 0.5), ("same", 0.6))
        for seed in study.seeds
    ]
    said = " ".join(beyond_chance(compare(build_table(study, results), "ours")))
    assert "1 of 2 have p < 0.05: ours better in 1, worse in 0. After Holm's correction for making 2, 1 do" in said
    assert "1 do: A (better than theirs)." in said and "no p below" not in said and "leaves out 0 in 1 of 2" in said


def test_corrections_that_no_difference_could_pass_are_said_to_be() -> None:
    names = [f"s{number}" for number in range(25)]  # 24 tests of 6 and 6 runs: 24 * 2 / 924 = 0.052
    study = outline(systems=" ".join(names), seeds=6)
    results = [
        result(system=name, seed=seed, iou=seed / 1000 + (name == "s0") / 2) for name in names for seed in study.seeds
    ]
    said = " ".join(beyond_chance(compare(build_table(study, results), "s0")))
    assert "24 of 24 have p < 0.05" in said and "24, 0 do." in said and "leaves no p below 0.052" in said


def test_figures_draw_the_scores_of_the_runs() -> None:
    study = outline()
    results = [result(seed=seed, iou=0.6 + seed / 100) for seed in (1, 2)] + [result(system="theirs", last=1000)]
    table = build_table(study, results)
    (row,) = table.rows
    ours, theirs = spreads(study, results, row, "iou")
    assert list(ours.x) == [50, 200] and ours.runs == [pytest.approx([0.305, 0.61]), pytest.approx([0.31, 0.62])]
    assert list(theirs.x) == [250, 1000] and ours.over(statistics.fmean) == pytest.approx([0.3075, 0.615])
    boxes = run_boxes(table, row, "ours", compare(table, "ours"))
    assert [(box.name, box.note) for box in boxes] == [("ours", "reference"), ("theirs", "too few runs")]
    assert boxes[0].values == pytest.approx((0.61, 0.62)) and boxes[0].emphasised
    more = [*results, result(system="theirs", seed=2, iou=0.5)]
    table = build_table(study, more)
    assert run_boxes(table, row, "ours", compare(table, "ours"))[1].note == "p = 0.333\nA = 1.00"


def test_runs_that_differ_in_what_made_them_are_pointed_out() -> None:
    study, first = outline(), result()
    made = {"versions": {"torch": "2.8.0"}, "device": "NVIDIA H100", "trainer": "Trainerours", "weights": None}
    results = [first, replace(first, seed=2, made_by=made), replace(first, seed=3, made_by=made | {"fold": 1})]
    said = differences(study, results)
    assert said[0] == "The runs were not all made by the same versions of torch."
    assert "different devices (cpu; NVIDIA H100)" in said[1]
    assert said[2:] == ["Runs of one system on one data set differ in their fold: ours on A."]
    assert version_rows(results)[1] == ["torch", "2.9.0 (1 of 3 runs), 2.8.0 (2 of 3 runs)"]
    assert differences(study, [first]) == []
    assert [row[0] for row in setup_rows(study, results)[1:]] == ["ours", "ours"]
    assert time_rows(study, [read_result(FIXTURE)]) == time_rows(study, [])


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


def test_results_of_other_studies_are_left_out_and_the_rest_is_in_order() -> None:
    chosen = select([result("B"), result(seed=9), result(system="theirs"), result()], outline())
    assert [entry.key[1:] for entry in chosen] == [("ours", 1), ("theirs", 1)]


def test_table_of_a_metric_nobody_has_is_empty() -> None:
    table: Table = build_table(outline(), [result()], metric_of("cremi_score"))
    assert table.is_empty and table.cells["Dataset_A", "ours"].undefined == 1
