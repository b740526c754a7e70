"""What made a study's runs."""

from dataclasses import replace

from helpers.study_results import FIXTURE, outline, result

from nnunetv2_retina.study.findings.provenance import differences, setup_rows, time_rows, version_rows
from nnunetv2_retina.study.findings.result_files import read_result
from nnunetv2_retina.study.findings.results import Result


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


def test_what_the_seed_draws_and_how_files_are_called_is_no_difference() -> None:
    def made(case: str, name: str, print_: str = "f1", rate: float = 0.1) -> Result:
        protocol = {"learning_rate": rate, "folds": [{"train": [case], "val": [case]}]}
        made_by = {"protocol": protocol, "weights": {"file": name, "fingerprint": print_}, "device": "cpu"}
        return replace(result(seed=int(case)), made_by=made_by)

    first = made("1", "em.pth")
    assert differences(outline(), [first, made("2", "copy.pth")]) == []
    assert differences(outline(), [first, made("2", "em.pth", "f2", 0.2)]) == [
        "Runs of one system on one data set differ in their protocol: ours on A.",
        "Runs of one system on one data set differ in their weights: ours on A.",
    ]


def test_setups_are_told_apart() -> None:
    study, first = outline(), result()
    results = [first, replace(first, seed=3, made_by=dict(first.made_by) | {"fold": 1})]
    assert [row[0] for row in setup_rows(study, results)[1:]] == ["ours", "ours"]
    assert time_rows(study, [read_result(FIXTURE)]) == time_rows(study, [])
