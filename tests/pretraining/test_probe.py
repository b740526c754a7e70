"""The probe: its score by plain arithmetic, what it reads of a data set, and that a pre-training logs it unchanged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from pretraining.cli import main
from pretraining.probe import DatasetProbe, auc, fit

CPU = torch.device("cpu")
SETTINGS = ["--size", "tiny", "--batch-size", "4", "--device", "cpu", "--precision", "fp32", "--seed", "5"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Five labelled images, discs of class 2, and one without; returns $nnUNet_raw."""
    folder = tmp_path / "raw" / "Dataset710_Discs"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "discs").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224]
    for number in range(6):
        discs = np.zeros((224, 224), bool)
        for row, column in rng.integers(20, 204, (8, 2)):
            discs |= (y - row) ** 2 + (x - column) ** 2 < 300
        image = Image.fromarray((rng.normal(150, 12, discs.shape) - 90 * discs).clip(0, 255).astype(np.uint8))
        image.save(tmp_path / "discs" / f"{number}.png")
        image.save(folder / "imagesTr" / f"case_{number}_0000.png")
        Image.fromarray((2 * discs * (number > 0)).astype(np.uint8)).save(folder / "labelsTr" / f"case_{number}.png")
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".png", "labels": {}, "channel_names": {}}))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return tmp_path / "raw"


def test_auc_is_that_of_scikit_learn_and_a_linear_target_is_found():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4 * 196, 5))
    target = features @ np.array([1, -2, 0, 0.5, 0]) + 3
    weights, offset = fit(features, target)
    np.testing.assert_allclose(features @ weights + offset, target, atol=0.05)
    scores = np.round(rng.normal(size=300), 1)  # ties
    positive = rng.random(300) < 0.3
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_sections_with_the_class_are_taken_and_the_network_is_left_as_it_was(dataset):
    probe = DatasetProbe("710", label=2)
    assert probe.cells.names == [f"case_{i} 0" for i in range(1, 6)]
    assert set(probe.test).isdisjoint(i for subset in probe.subsets for i in subset)
    torch.manual_seed(0)
    network = TransUNet(1, 1, NetworkConfig.named("tiny")).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured = probe.measure(network, CPU)
    assert measured.keys() == {"probe_cnn_1/16", "probe_tokens_in", "probe_tokens_out"}
    assert all(0.5 < value <= 1 for value in measured.values()) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(RetinaError, match=r"label 7 is in 0 labelled sections .* expected 4 and more"):
        DatasetProbe("710", label=7)


def test_a_pretraining_logs_it_and_trains_the_same(dataset, tmp_path, capsys):
    weights = []
    for name, more in (("plain", []), ("probed", ["--probe", "710", "--probe-label", "2"])):
        out = tmp_path / name
        assert main([str(tmp_path / "discs"), "-o", str(out), *SETTINGS, "--iterations", "2", *more]) == 0
        weights.append(torch.load(out / "checkpoint_final.pth", weights_only=True)["network_weights"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    record = json.loads((tmp_path / "probed" / "log.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["probe_tokens_out"] <= 1 and " in, " in capsys.readouterr().err
    assert main([str(tmp_path / "discs"), "-o", str(tmp_path / "x"), "--probe", "799"]) == 2
    assert "799 not found" in capsys.readouterr().err and not (tmp_path / "x").exists()
