"""Results of a study's runs, of small numbers and of the paper's."""

from pathlib import Path

from nnunetv2_retina.study.findings.paper_numbers import PUBLISHED, SYSTEMS
from nnunetv2_retina.study.findings.results import DatasetOutline, Evaluation, Result, StudyOutline, SystemOutline

FIXTURE = Path(__file__).parents[1] / "study" / "findings" / "study_result.json"
SPREAD = (-0.01, 0.002, 0.008)
"""Of the seeds about a mean; adds up to 0."""


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
