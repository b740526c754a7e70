"""The probe: its score by plain arithmetic, what it reads of a data set, and that a pre-training logs it unchanged."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from pretraining.cli import main
from pretraining.probe import STRENGTHS, DatasetProbe, auc, fit, folds, solve

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
    with pytest.raises(
        RetinaError, match=r"label 7 fills half a cell of 16 x 16 px in 0 labelled sections .* expected 4"
    ):
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


def write_dataset(raw, case="case_{}", ending=".png", write=None, label=None, size=224):
    """Six sections whose upper half, or what ``label`` says, is class 1; returns the name of the data set."""
    folder = raw / "Dataset720_Halves"
    labels = np.zeros((size, size), np.uint8)
    labels[: size // 2] = 1
    labels = labels if label is None else label(labels)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(6):
        grey = np.random.default_rng(number).integers(0, 100, (size, size), np.uint8) + 80 * labels
        image, mask = (folder / part / (case.format(number) + end + ending) for part, end in PARTS)
        if write is not None:
            write(image, grey, False)
            write(mask, labels, True)
            continue
        Image.fromarray(grey).save(image)
        Image.fromarray(labels).save(mask)
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ending, "labels": {}, "channel_names": {}}))
    return "720"


PARTS = (("imagesTr", "_0000"), ("labelsTr", ""))


def tiff_with_sidecar(path, values, is_mask):
    tifffile.imwrite(path, values)
    path.with_name(path.name.removesuffix(".tif").removesuffix("_0000") + ".json").write_text('{"spacing": [1, 1, 1]}')


def one_bit(path, values, is_mask):
    Image.fromarray(values * 255).convert("1").save(path) if is_mask else Image.fromarray(values).save(path)


def palette(path, values, is_mask):
    image = Image.fromarray(values)
    if is_mask:
        image = Image.fromarray(values, "P")
        image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path)


@pytest.mark.parametrize(
    "options",
    [
        {"ending": ".tif", "write": tiff_with_sidecar},
        {"case": "images.03{}"},
        {"write": one_bit},
        {"write": palette},
    ],
    ids=["voxel sizes beside TIFF", "names with dots", "one bit", "palette"],
)
def test_a_data_set_is_read_as_nnunet_has_it(dataset, options):
    probe = DatasetProbe(write_dataset(dataset, **options))
    case = options.get("case", "case_{}")
    assert probe.cells.names == [f"{case.format(i)} 0" for i in range(6)]
    assert all(shares.mean() == pytest.approx(0.5, abs=0.01) for shares in probe.cells.shares)


def test_a_class_that_never_fills_half_a_cell_is_refused_at_the_start(dataset, tmp_path, capsys):
    def dots(labels):
        dotted = np.zeros_like(labels)
        dotted[::16, ::16] = 1
        return dotted

    out = tmp_path / "x"
    write_dataset(dataset, label=dots)
    assert main([str(tmp_path / "discs"), "-o", str(out), *SETTINGS, "--iterations", "1", "--probe", "720"]) == 2
    assert "--probe 720: label 1 fills half a cell of 16 x 16 px in 0 labelled sections" in capsys.readouterr().err
    assert not (tmp_path / "discs.retina_store").exists()


def test_a_class_without_any_other_is_refused(dataset):
    write_dataset(dataset, label=np.ones_like)
    with pytest.raises(RetinaError, match=r"--probe 720: of 588 cells .* to score on, 588 have the label"):
        DatasetProbe("720")
    with pytest.raises(RetinaError, match="0 of 9 cells have the label"):
        auc(np.arange(9.0), np.zeros(9, bool))


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_the_strength_is_chosen_by_bands_where_there_are_few_tiles(tiles):
    cells = tiles * 196
    assert set(folds(cells)) == {0, 1, 2, 3} and (np.diff(folds(cells)) >= 0).all()
    assert (folds(cells).reshape(-1, 14) == folds(cells)[::14, None]).all(), "whole rows"
    assert np.bincount(folds(cells)).min() >= 0.7 * cells / 4
    gains = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features, unseen = rng.normal(size=(cells, 192)), rng.normal(size=(800, 192))
        direction = rng.normal(size=192) / np.sqrt(192)
        target = (features @ direction + rng.normal(size=cells) > 0).astype(float)
        chosen, weakest = fit(features, target)[0], solve(features.T @ features, features.T @ target, STRENGTHS[:1])
        positive = unseen @ direction > 0
        gains.append(auc(unseen @ chosen, positive) - auc(unseen @ weakest[:, 0], positive))
    assert np.mean(gains) > 0.01


def test_the_folds_of_many_tiles_are_whole_tiles():
    np.testing.assert_array_equal(folds(6 * 196), np.repeat([0, 1, 2, 3, 0, 1], 196))
