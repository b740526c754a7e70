"""A study's results in tables."""

import math
import statistics
from dataclasses import replace

import pytest
from helpers.study_results import outline, paper_study, result

from nnunetv2_retina.evaluation.metric import metric_of
from nnunetv2_retina.study.findings.paper_numbers import PUBLISHED, SYSTEMS, published
from nnunetv2_retina.study.findings.summary import beside_the_paper, undefined_scores
from nnunetv2_retina.study.findings.tables import Table, build_table, class_tables, shown_cell, shown_iterations

ORGANELLES = ("lysosomes", "mitochondria", "nuclei", "nucleoli")


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


def test_the_papers_mean_stands_beside_that_of_its_own_members_alone() -> None:
    study, results = paper_study()
    assert next(row for row in build_table(study, results).rows if row.name == "Perez").paper == "Perez"
    for changed in (
        tuple(replace(entry, paper=None) if entry.title == "Perez nuclei" else entry for entry in study.datasets),
        tuple(replace(entry, group="Perez") if entry.title == "CREMI" else entry for entry in study.datasets),
        tuple(entry for entry in study.datasets if entry.title != "Perez nuclei"),
    ):
        rows = build_table(replace(study, datasets=changed), results).rows
        assert next(row for row in rows if row.name == "Perez").paper is None


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


def test_table_of_a_metric_nobody_has_is_empty() -> None:
    table: Table = build_table(outline(), [result()], metric_of("cremi_score"))
    assert table.is_empty and table.cells["Dataset_A", "ours"].undefined == 1
