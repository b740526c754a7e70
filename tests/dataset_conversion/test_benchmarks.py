"""The benchmarks' values against the published ones, the options they share, ``--list`` and ``--download``."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import benchmark_sources
from helpers.checks import known

from dataset_conversion import convert
from dataset_conversion.available import availability
from dataset_conversion.benchmarks import CREMI, DATASETS, KASTHURI, datasets, spec
from dataset_conversion.command import Command
from dataset_conversion.converters.converter import convert_benchmark
from dataset_conversion.downloads import fetch as download
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

PUBLISHED = {
    801: ("CREMI", 5000, None, (1,), "stack", "none", "volume", (0.50387249, 0.10911144)),
    802: ("Guay", 2500, (0.1, 0.1, 1, 1, 0.1, 3, 3), (2, 3, 4, 5, 6), "stack", "foreground", "volume",
          (0.55412821, 0.15759415)),
    803: ("KasthuriPP", 10000, None, (1,), "stack", "none", "slice", (0.27342241, 0.26917548)),
    804: ("PerezLysosomes", 2500, None, (1,), "stack", "instance_match", "slice", (0.35047498, 0.01674651)),
    805: ("PerezMitochondria", 2500, None, (1,), "stack", "instance_match", "slice", (0.35009244, 0.01705255)),
    806: ("PerezNuclei", 2500, None, (1,), "stack", "instance_match", "slice", (0.35176219, 0.01545297)),
    807: ("PerezNucleoli", 2500, None, (1,), "stack", "instance_match", "slice", (0.35167108, 0.01306738)),
    808: ("UroCell", 1000, (0.1, 1, 1), (1, 2), "orthoplane", "none", "volume", (0.76752738, 0.10404078)),
}  # fmt: skip
"""RETINA Table 1 and CEM500K's benchmark scripts."""


RELEASED = {
    801: (10000, 0.8), 802: (3000, None), 803: (10000, 0.8), 804: (10000, None), 805: (3000, None), 806: (3000, None),
    807: (3000, None), 808: (3000, 0.8),
}  # fmt: skip
"""``iters`` and the probability of ``CropNonEmptyMaskIfExists`` in the released configurations."""


def parsed(benchmark, *argv):
    parser = argparse.ArgumentParser()
    convert.COMMANDS[benchmark].add_arguments(parser)
    return parser.parse_args(list(argv))


def test_published_values():
    assert [dataset.id for dataset in DATASETS] == list(PUBLISHED)
    for dataset in DATASETS:
        p = dataset.protocol
        found = (dataset.name, p.iterations, p.class_weights, p.evaluated_classes, p.inference, p.mask_rule)
        assert (*found, p.score_unit, p.normalisation) == PUBLISHED[dataset.id]
        assert "Table 1" in known(p.source)
        assert (p.learning_rate, p.patch_size, p.batch_size) == (0.003, 224, 16)
        assert dataset.reference and dataset.licence


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.key)
def test_both_protocols_make_a_description(dataset):
    """The writer checks weights and classes against the labels when the description is made."""
    clean, paper = spec(dataset), spec(dataset, "paper", dataset_id=17)
    assert (clean.id, paper.id) == (dataset.id, 17)
    assert paper.labels == dataset.labels
    ignores = dataset in (CREMI, KASTHURI)
    assert clean.labels == (dict(dataset.labels) | {"ignore": 2} if ignores else dataset.labels)
    assert len(clean.remarks) == ignores and len(paper.remarks) == ignores + 1
    assert clean.protocol == dataset.protocol
    trained = paper.protocol
    assert trained.clip is None and trained.frozen_dropout and "released configuration" in known(trained.source)
    assert (trained.schedule_iterations, trained.foreground) == RELEASED[dataset.id]
    assert Protocol.from_dataset_json({"retina": trained.to_json()}) == trained


def test_unknown_names():
    with pytest.raises(RetinaError, match=r"benchmark 'lucchi' is not known; expected one of cremi, guay, kasthuri"):
        datasets("lucchi")
    with pytest.raises(RetinaError, match=r"protocol is 'cem'; expected one of clean, paper"):
        spec(CREMI, "cem")


def test_ids_of_the_command_line():
    assert spec(CREMI, dataset_id=parsed("cremi", "src").id).folder_name == "Dataset801_CREMI"
    assert spec(CREMI, dataset_id=parsed("cremi", "src", "-d", "7").id).folder_name == "Dataset007_CREMI"


def test_missing_source(tmp_path):
    message = r"nowhere does not exist; expected a folder .* add --download to fetch them there"
    with pytest.raises(RetinaError, match=message):
        convert_benchmark("cremi", tmp_path / "nowhere", root=tmp_path)


def test_a_target_in_the_way_is_found_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("fetched"))
    (tmp_path / "Dataset802_Guay").mkdir()
    with pytest.raises(RetinaError, match=r"Dataset802_Guay exists already"):
        convert_benchmark("guay", tmp_path / "new", download=True, root=tmp_path)


def test_download_comes_before_the_conversion(tmp_path, monkeypatch):
    """Stands for the network: fetching makes the files."""

    def fetch(key: str, folder: Path, progress: object = None) -> None:
        assert key == "guay"
        folder.mkdir()
        benchmark_sources.guay(folder)

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert convert.main(["guay", str(tmp_path / "new"), "--download", "-d", "9"]) == 0
    assert (tmp_path / "Dataset009_Guay" / "conversion_report.json").is_file()


def test_list(tmp_path, capsys):
    benchmark_sources.guay(tmp_path)
    assert convert.main(["--list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    shown = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert shown["guay"].endswith("complete")
    assert shown["urocell"].endswith("nothing")
    assert "804 to 807" in shown["perez"]
    assert "25 GB" in out
    assert "CC BY-NC-SA 4.0" in shown["urocell:"]


def test_list_of_no_folder(tmp_path):
    with pytest.raises(RetinaError, match=r"nowhere is not a folder; expected the one that holds"):
        availability(tmp_path / "nowhere")


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit):
        convert.main([])
    assert "a COMMAND is needed: folder, images, cremi, guay, kasthuri, perez, urocell, cem500k; or --list" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("command", convert.COMMANDS)
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        convert.main([command, "--help"])
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


def test_error_goes_to_stderr(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert convert.main(["cremi", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_interrupted(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(convert.COMMANDS, "guay", Command("", "", convert.COMMANDS["guay"].add_arguments, interrupt))
    assert convert.main(["guay", "source"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["folder", "--help"], ["perez", "--help"]])
def test_answers_that_need_nothing_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom dataset_conversion.convert import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    heavy = {"numpy", "torch", "nnunetv2", "scipy", "matplotlib", "SimpleITK", "h5py", "PIL"}
    assert done.stdout
    assert not heavy & set(done.stderr.split())
