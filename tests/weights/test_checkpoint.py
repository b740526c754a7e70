"""Checkpoints are whole, describe themselves, and wrong ones are refused in one sentence."""

import pytest
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import replacing
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint

TINY = NetworkConfig.named("tiny")


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return TransUNet(1, 1, TINY).state_dict()


def test_round_trip(tmp_path, weights):
    path = tmp_path / "a.pth"
    checkpoint.save(path, weights, TINY, step=7, recipe={"lr": 0.1})
    got = checkpoint.load(path)
    assert got.weights.keys() == weights.keys()
    assert all(torch.equal(got.weights[key], weights[key]) for key in weights)
    assert NetworkConfig.from_dict(got.retina["network"]) == TINY
    assert (got.retina["step"], got.retina["recipe"]) == (7, {"lr": 0.1})
    assert torch.load(path, weights_only=True).keys() == {"network_weights", "retina"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_training_can_be_stored_beside_the_weights(tmp_path, weights):
    path = tmp_path / "checkpoint_latest.pth"
    checkpoint.save(path, weights, TINY, training={"momentum": torch.ones(3), "position": 5})
    got = checkpoint.load(path).training
    assert torch.equal(got["momentum"], torch.ones(3)) and got["position"] == 5
    assert torch.load(path, weights_only=True).keys() == {"network_weights", "retina", "training"}
    checkpoint.save(path, weights, TINY)
    assert checkpoint.load(path).training == {}


def test_fingerprint_is_of_the_values(tmp_path, weights):
    for name in ("a.pth", "b.pth"):
        checkpoint.save(tmp_path / name, dict(reversed(weights.items())) if name == "b.pth" else weights, TINY, step=1)
    a, b = (checkpoint.load(tmp_path / name).fingerprint for name in ("a.pth", "b.pth"))
    assert a == b
    weights["transformer.norm.bias"][0] += 1e-3
    checkpoint.save(tmp_path / "c.pth", weights, TINY)
    assert checkpoint.load(tmp_path / "c.pth").fingerprint != a


def test_a_failed_write_leaves_the_file_before_it(tmp_path, weights):
    path = tmp_path / "a.pth"
    checkpoint.save(path, weights, TINY, step=1)
    with pytest.raises(RuntimeError, match="disk full"), replacing(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise RuntimeError("disk full")
    assert checkpoint.load(path).retina["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_reads_nnunet_checkpoints(tmp_path, weights):
    import numpy as np

    path = tmp_path / "checkpoint_final.pth"
    description = {"network": TINY.to_dict()}
    torch.save({"network_weights": weights, "_best_ema": np.float32(0.5), "init_args": {"retina": description,
                "device": torch.device("cpu")}}, path)  # fmt: skip
    assert checkpoint.load(path).retina == description


def write_truncated(path):
    torch.save({"network_weights": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, r"no checkpoint at .*x\.pth: no such file"),
        (lambda p: p.mkdir(), r"no checkpoint at .*: that is a folder"),
        (write_truncated, r"x\.pth \(1,500 bytes\) cannot be read as a PyTorch checkpoint: it is truncated"),
        (lambda p: p.write_bytes(b""), r"\(0 bytes\) cannot be read"),
        (lambda p: p.write_text("weights"), r"cannot be read as a PyTorch checkpoint"),
        (
            lambda p: torch.save({"model": {}, "epoch": 3}, p),
            r"its entries are model, epoch\)\. .*run: retina_import_weights IN OUT",
        ),
        (lambda p: torch.save([1], p), r"no network_weights \(it holds a list\)"),
        (
            lambda p: torch.save({"module.transformer.embeddings.hybrid_model.root.conv.weight": torch.zeros(1)}, p),
            r"names of the authors' release\. Run: retina_import_weights IN OUT, and give OUT",
        ),
        (
            lambda p: torch.save({"network_weights": {}, "retina": {"format_version": 99}}, p),
            r"format version 99; this is nnunetv2-retina .* install a newer one",
        ),
    ],
)
def test_refuses(tmp_path, write, message):
    path = tmp_path / "x.pth"
    write(path)
    with pytest.raises(RetinaError, match=message):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"junk", b"PK", b"", b"\x80\x02", b"\x89PNG\r\n"])
def test_bytes_that_are_no_checkpoint_are_refused_in_words(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(RetinaError, match=r"a\.pth \(\d+ bytes\) cannot be read as a PyTorch checkpoint"):
        checkpoint.read_file(tmp_path / "a.pth")
