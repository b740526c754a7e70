"""The weights that come with the package."""

from pathlib import Path

import torch

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.study.study_file import read_study
from nnunetv2_retina.weights import checkpoint, shipped

STUDY = """
name: shipped
seeds: [1]
reference: A
weights: {shipped: open, own: ./open}
datasets: [{dataset: 1, iterations: [1]}]
systems: [{name: A, trainer: nnUNetTrainerRETINA_tiny, weights: shipped}]
"""


def test_a_name_stands_for_a_file_and_other_texts_for_themselves(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/em")
    assert Path(shipped.resolve("open")).is_file() and shipped.resolve(Path("open")) == shipped.resolve("open")
    assert shipped.resolve("./open") == "./open" and shipped.resolve("~/w.pth") == "/home/em/w.pth"


def test_the_file_is_of_size_tiny_and_says_where_it_comes_from() -> None:
    file = checkpoint.load(shipped.resolve(shipped.OPEN))
    assert file.path.stat().st_size < 5e6
    network = TransUNet(1, 1, NetworkConfig.named("tiny")).state_dict()
    assert {key: value.shape for key, value in file.weights.items()} == {key: t.shape for key, t in network.items()}
    assert all(torch.isfinite(value).all() for value in file.weights.values())
    assert file.retina["trained"] == ["cnn.", "embedding.", "transformer."]
    card = (file.path.parent / "README.md").read_text(encoding="utf-8")
    assert f"{file.retina['images']['training']:,} crops" in card and len(file.retina["store"]["sources"]) == 8
    assert not {"cdeep3m-mito-sbem", "vnc-drosophila-sstem"} & set(file.retina["store"]["sources"])


def test_a_study_takes_the_name(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    weights = read_study(tmp_path / "study.yaml").weights
    assert weights == {"shipped": shipped.resolve("open"), "own": str(tmp_path / "open")}
