"""The network's contract: shapes, gradients, and what it refuses. Its numerics: test_parity.py."""

import subprocess
import sys
from typing import cast

import pytest
import torch

from nnunetv2_retina.network import NetworkConfig, TransUNet

TINY = NetworkConfig.named("tiny")


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (64, 48), (33, 100)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5), (2, 1)])
def test_output_has_the_size_of_the_input(height, width, channels, classes):
    network = TransUNet(channels, classes, TINY).eval()
    out = network(torch.randn(1, channels, height, width))
    assert out.shape == (1, classes, height, width)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = TransUNet(1, 3, TINY).train()
    network(torch.randn(2, 1, 72, 56)).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A key's bias adds the same to all scores of a query, which the softmax removes: its gradient is rounding noise.
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_padding_is_cropped_back_where_it_was():
    torch.manual_seed(0)
    network = TransUNet(1, 1, TINY).eval()
    image = torch.randn(1, 1, 40, 50)
    padded = torch.nn.functional.pad(image, (0, 14, 0, 8), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[..., :40, :50])


def test_position_embeddings_follow_the_grid():
    torch.manual_seed(0)
    embedding = TransUNet(1, 1, TINY).embedding
    torch.nn.init.normal_(embedding.pos_embed)
    assert embedding._positions(14, 14) is embedding.pos_embed
    # A grid that encodes its rows stays ordered by rows, whatever the sides.
    rows = torch.arange(14.0).repeat_interleave(14)[None, :, None].expand(1, 196, TINY.embed_dim)
    with torch.no_grad():
        embedding.pos_embed.copy_(rows)
        grid = embedding._positions(28, 7)[0, :, 0].reshape(28, 7)
    assert torch.allclose(grid, grid[:, :1].expand(-1, 7), atol=1e-4)
    assert (grid[1:, 0] > grid[:-1, 0]).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 15, 64), r"15 x 64 pixels; both sides must be at least 16"),
        ((1, 3, 64, 64), r"got an image of shape \(1, 3, 64, 64\); expected \(batch, 1 channels"),
        ((1, 64, 64), r"got an image of shape \(1, 64, 64\)"),
    ],
)
def test_refuses_what_it_cannot_take(shape, message):
    with pytest.raises(ValueError, match=message):
        TransUNet(1, 2, TINY)(torch.zeros(shape))


def test_parameters_of_the_published_sizes():
    with torch.device("meta"):
        count = {
            n: sum(p.numel() for p in TransUNet(1, 2, NetworkConfig.named(n)).parameters())
            for n in ("retina", "base", "tiny")
        }
    assert 22e6 < count["retina"] < 22.5e6
    assert 104e6 < count["base"] < 106e6
    assert count["tiny"] < 1.5e6


def test_head_is_what_nnunet_leaves_out():
    keys = [key for key in TransUNet(1, 2, TINY).state_dict() if ".seg_layers." in key]
    assert keys == ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"]


def test_config_round_trip_and_name():
    config = NetworkConfig.named("base")
    assert NetworkConfig.from_dict(config.to_dict()) == config
    assert NetworkConfig.from_dict({**config.to_dict(), "grid_size": 7}).name == "base"
    assert NetworkConfig(embed_dim=96).name is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NetworkConfig.named("huge"), r"unknown network size 'huge'; there are retina, base, tiny"),
        (lambda: NetworkConfig(embed_dim=100), r"embed_dim \(100\) must be divisible by num_heads \(12\)"),
        (lambda: NetworkConfig(stem_channels=48), r"stem_channels \(48\) must be divisible by the 32"),
        (lambda: NetworkConfig(cnn_units=cast("tuple[int, int, int]", (1, 1))), r"cnn_units must have 3 entries"),
        (lambda: NetworkConfig(dropout=1.0), r"dropout \(1.0\) must lie in"),
        (lambda: NetworkConfig.from_dict({"heads": 3}), r"unknown network settings heads"),
        (lambda: NetworkConfig(depth=10**9), r"depth is 1000000000; expected whole numbers from 1 to 8192"),
        (lambda: NetworkConfig(cnn_units=(3, 4, 0)), r"cnn_units is \(3, 4, 0\); expected whole numbers from 1"),
        (lambda: NetworkConfig.from_dict({"embed_dim": "big"}), r"embed_dim is 'big'; expected whole numbers"),
        (lambda: TransUNet(0, 2, TINY), r"in_channels \(0\) and num_classes \(2\) must be at least 1"),
    ],
)
def test_refuses_sizes_that_do_not_fit(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_imports_without_nnunet():
    code = (
        "import sys; sys.modules['nnunetv2'] = None\n"
        "import nnunetv2_retina.network, nnunetv2_retina.weights.checkpoint, nnunetv2_retina.weights.transfer\n"
        "import nnunetv2_retina.evaluation.counts, nnunetv2_retina.protocol, nnunetv2_retina.quickstart.synthetic"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
