"""A study's file: what is read, and what is refused."""

from pathlib import Path

import pytest
import yaml

from dataset_conversion.benchmarks import DATASETS as BENCHMARKS
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.study.definition import slug
from nnunetv2_retina.study.runs import Resolved, planned_runs
from nnunetv2_retina.study.study_file import read_study
from nnunetv2_retina.training import baselines, trainers

STUDIES = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.yaml"))
TRAINERS = {*trainers.__all__, *baselines.__all__, "nnUNetTrainer"}
STUDY = """
name: small
seeds: [1, 2]
reference: RETINA
weights: {em: weights/em.pth}
datasets:
  - {dataset: 901, iterations: [2, 4], training: {learning_rate: 0.03}}
  - {dataset: Dataset902_test, iterations: [4], title: Ignored}
systems:
  - {name: RETINA, trainer: nnUNetTrainerRETINA_tiny, weights: em}
  - {name: TransUNet (random), trainer: nnUNetTrainerTransUNet_tiny, datasets: [901]}
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write the study above with some text replaced; its path."""

    def write(old: str = "", new: str = "") -> Path:
        assert old in STUDY
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.replace(old, new) if old else STUDY, encoding="utf-8")
        return path

    return write


def test_a_study_is_read(write, tmp_path: Path) -> None:
    study = read_study(write())
    assert study.seeds == (1, 2) and study.datasets[0].dataset == "901" and study.datasets[0].iterations == (2, 4)
    assert study.datasets[0].fold == "all" and study.datasets[0].training == {"learning_rate": 0.03}
    assert study.weights == {"em": str(tmp_path / "weights" / "em.pth")}
    assert [entry.dataset for entry in study.runs_on(study.systems[0])] == ["901", "Dataset902_test"]
    assert [entry.dataset for entry in study.runs_on(study.systems[1])] == ["901"]
    assert study.systems[1].slug == "transunet_random"


PRIMARY = "reference: RETINA\nprimary: [{}]"


def test_comparisons_are_named_in_the_file(write) -> None:
    study = read_study(write("reference: RETINA", PRIMARY.format("{dataset: 901, against: TransUNet (random)}")))
    (entry,) = study.primary
    assert (entry.dataset, entry.against, entry.labelled) == ("901", "TransUNet (random)", None)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("{dataset: 903, against: RETINA}", "primary: data set 903 is not among the study's 901, Dataset902_test"),
        (
            "{dataset: 901, against: RETINA}",
            r"RETINA against RETINA; there, it can be compared with TransUNet \(random",
        ),
        ("{dataset: Dataset902_test, against: TransUNet (random)}", "it can be compared with none"),
        (
            "{dataset: 901, against: TransUNet (random), labelled: 2}",
            "labelled is 2; the study's are none: leave it out",
        ),
        ("{dataset: 901, against: TransUNet (random), labelled: [2]}", r"labelled is \[2\]; the study's are none"),
        ("{dataset: 901}", "an entry of primary lacks against"),
        ("{dataset: 901, against: TransUNet (random)}, {dataset: 901, against: TransUNet (random)}", "is there twice"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(write, named, message) -> None:
    with pytest.raises(RetinaError, match=message):
        read_study(write("reference: RETINA", PRIMARY.format(named)))


def test_paths_of_weights_take_variables(write, monkeypatch) -> None:
    monkeypatch.setenv("EM_WEIGHTS", "/data/em.pth")
    assert read_study(write("weights/em.pth", "$EM_WEIGHTS")).weights == {"em": "/data/em.pth"}
    monkeypatch.delenv("EM_WEIGHTS")
    with pytest.raises(RetinaError, match=r"weights em is '\$EM_WEIGHTS', and that variable is not set. Set it"):
        read_study(write("weights/em.pth", "$EM_WEIGHTS"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[2, 4]", "[4, 2]", r"data set 901: iterations is \[4, 2\]; expected whole numbers above 0 that increase"),
        ("[2, 4]", "[2, 2]", r"iterations is \[2, 2\]; expected whole numbers above 0 that increase"),
        ("[2, 4]", "[]", r"iterations is \[\]; expected"),
        ("[2, 4]", "[0, a]", r"iterations is \[0, 'a'\]; expected"),
        ("[2, 4]", "[2, 4], labelled: [2, 1]", r"labelled is \[2, 1\]; expected whole numbers above 0 that increase"),
        ("[2, 4]", "[2, 4], labelled: 2", r"labelled is 2; expected a list, such as \[1, 2, 3\]"),
        ("[2, 4]", "[2, 4], labelled: ", r"entry of datasets: labelled is None; expected a list, such as \[1, 2, 3\]"),
        ("[2, 4]", "", "iterations is None; expected a list"),
        ("title: Ignored", "title: yes", "title is True; expected a text .in quotes"),
        ("datasets: [901]", "own_schedule: 'no'", "own_schedule is 'no'; expected true or false"),
        ("name: small", "name: small\nprediction: {mirroring: 'off'}", "prediction: mirroring is 'off'; expected true"),
        ("[2, 4]", "7", r"iterations is 7; expected a list, such as \[1, 2, 3\]"),
        ("weights: em}", "weights: me}", "system RETINA: weights 'me' are not defined; defined are em"),
        ("datasets: [901]", "datasets: [801]", "data set 801 is not among the study's 901, Dataset902_test"),
        ("reference: RETINA", "reference: retina", "reference is 'retina'; expected one of the systems RETINA, Tran"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seed 1 is there twice"),
        ("seeds: [1, 2]", "seeds: []", r"seeds is \[\]; expected whole numbers from 0, at least one"),
        ("seeds: [1, 2]", "seeds: 3", r"seeds is 3; expected a list"),
        ("TransUNet (random)", "RETINA", "system RETINA is there twice; expected each once"),
        ("TransUNet (random)", "retina", "the systems 'RETINA' and 'retina' would have one folder, retina; expected"),
        ("title: Ignored", "paper: Crème", "data set Dataset902_test: paper is 'Crème'; expected one of CREMI, Guay"),
        ("datasets: [901]", "paper: best", r"system TransUNet \(random\): paper is 'best'; expected one of UNet-RN50"),
        ("title: Ignored", "tilte: Ignored", "unknown setting 'tilte'; known are .* Did you mean title?"),
        ("learning_rate: 0.03", "learning_rat: 0.03", "data set 901: .*unknown key 'learning_rat'.*learning_rate"),
        ("learning_rate: 0.03", "learning_rate: 0", "learning_rate is 0; expected a number above 0"),
        ("learning_rate: 0.03", "iterations: 3", "training has iterations, which the study's iterations decide"),
        ("training: {learning_rate: 0.03}", "training: 3", "training is 3; expected settings, name: value"),
        ("training: {learning_rate: 0.03}", "scored: tests", "scored is 'tests'; expected test or validation"),
        ("training: {learning_rate: 0.03}", "scored: validation", "fold all leaves no validation cases to score"),
        ("training: {learning_rate: 0.03}", "fold: -1", "fold is -1; expected a whole number or all"),
        ("datasets: [901]", "training_on: [901]", r"training_on is \[901\]; expected settings, name: value"),
        ("datasets: [901]", "training_on: {901: 3}", "training_on 901 is 3; expected settings, name: value"),
        ("name: small\n", "", "the file lacks name; it has seeds"),
        ("trainer: nnUNetTrainerRETINA_tiny, ", "", "an entry of systems lacks trainer; it has name, weights"),
        ("name: small", "name: small\nprediction: {step_size: 2}", "step_size is 2; expected a share of the tile"),
        ("name: small", "name: [", "is not YAML: .* Correct it there"),
        ("weights: {em: weights/em.pth}", "weights: [em]", r"weights is \['em'\]; expected settings, name: value"),
        ("weights: {em: weights/em.pth}", "weights: {em: }", "weights em is None; expected the path of a file"),
        ("TransUNet (random)", "", "an entry of systems: name is None; expected a text"),
        ("seeds: [1, 2]", "seeds: [1, 2]\nseeds: [3]", "is not YAML: 'seeds' is there twice .*line 4"),
    ],
)
def test_what_cannot_be_is_refused(write, old: str, new: str, message: str) -> None:
    with pytest.raises(RetinaError, match=message):
        read_study(write(old, new))


def test_all_that_is_wrong_is_said_at_once(write) -> None:
    path = write("[2, 4]", "[4, 2]")
    path.write_text(path.read_text().replace("weights: em}", "weights: me}"))
    with pytest.raises(RetinaError, match=r"iterations is \[4, 2\].*weights 'me' are not defined"):
        read_study(path)


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RetinaError, match=r"cannot be read .* Give the path of a study's YAML file"):
        read_study(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RetinaError, match=r"the file is \[1\]; expected settings, name: value"):
        read_study(tmp_path / "list.yaml")


def test_names_become_folders() -> None:
    assert slug("TransUNet (random)") == "transunet_random" and slug("µ") == "unnamed"


def test_systems_that_would_share_a_folder_are_named_as_they_are_written(write) -> None:
    path = write("name: RETINA, ", "name: ψ, ")
    path.write_text(path.read_text().replace("TransUNet (random)", "β").replace("reference: RETINA", "reference: ψ"))
    with pytest.raises(RetinaError, match="the systems 'ψ' and 'β' would have one folder, unnamed; expected names"):
        read_study(path)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_studies_of_this_repository_can_be_read(path: Path, monkeypatch) -> None:
    for file in yaml.safe_load(path.read_text())["weights"].values():
        if file.startswith("$"):
            monkeypatch.setenv(file[1:].split("/")[0], "/weights.pth")
    study = read_study(path)
    assert {system.trainer for system in study.systems} <= TRAINERS
    assert {system.weights for system in study.systems} - {None} == set(study.weights)


def test_the_papers_study_trains_each_system_as_it_was_published(monkeypatch, tmp_path: Path) -> None:
    path = next(path for path in STUDIES if path.name == "paper.yaml")
    for file in yaml.safe_load(path.read_text())["weights"].values():
        monkeypatch.setenv(file[1:], "/weights.pth")
    study = read_study(path)
    names = {entry.dataset: entry.title for entry in study.datasets}
    resolved = Resolved(names, {name: {} for name in names.values()}, dict.fromkeys(study.weights, "f"))
    runs = {
        (run.system, run.dataset): (run.trainer, Protocol.from_dataset_json({"retina": run.training}))
        for run in (planned.run for planned in planned_runs(study, resolved, tmp_path))
    }
    trainer, protocol = runs["RETINA", "CREMI"]
    assert trainer == "nnUNetTrainerRETINA_encoder" and study.reference == "RETINA"
    assert (protocol.iterations, protocol.schedule_iterations, protocol.foreground) == (5000, 10000, 0.8)
    assert (protocol.clip, protocol.frozen_dropout, protocol.loss) == (None, True, "released")
    assert runs["RETINA of the text", "Guay"][0] == "nnUNetTrainerRETINA"
    assert runs["TransUNet ImageNet", "Guay"][0] == "nnUNetTrainerRETINA_encoder_base"
    for name, patch in {"CREMI": 512, "Guay": 512, "Kasthuri++": 512, "Perez nuclei": 480, "UroCell": 224}.items():
        protocol = runs["UNet-RN50 CEM500K", name][1]
        assert (protocol.optimiser, protocol.learning_rate, protocol.weight_decay) == ("adamw", 0.003, 0.1)
        assert (protocol.schedule, protocol.schedule_iterations, protocol.loss) == ("onecycle", None, "cross_entropy")
        assert (protocol.patch_size, protocol.decay_all) == (patch, True)
    for dataset in BENCHMARKS:
        title = names[str(dataset.id)]
        protocol = runs["RETINA", title][1]
        assert {name: getattr(protocol, name) for name in dataset.released} == dataset.released, title
        assert protocol.iterations == dataset.protocol.iterations
