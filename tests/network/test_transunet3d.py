"""The 3D TransUNet: shapes, positions of other grids, gradients, and nnU-Net's own way of building it."""

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunetv2_retina.network.transunet3d import TRANSFORMERS, TransUNet3D, total_strides

UNET: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "conv_op": nn.Conv3d,
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TransUNet3D(1, 3, transformer=TRANSFORMERS["tiny"], grid=(4, 4, 4), **UNET)


def test_strides_multiply_along_each_axis():
    assert total_strides(UNET["strides"]) == [2, 4, 4]


@pytest.mark.parametrize("size", [(8, 16, 16), (7, 13, 18), (4, 8, 12), (3, 5, 9)])
def test_any_size_gives_logits_of_that_size(network, size):
    logits = network.eval()(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32


def test_positions_are_interpolated_axis_by_axis(network):
    ramp = torch.arange(4.0)
    learned = torch.stack(torch.meshgrid(ramp, ramp, ramp, indexing="ij"))  # a token's three coordinates
    with torch.no_grad():
        network.bottleneck.pos_embed[0, :, :3] = learned.flatten(1).T
        other = network.bottleneck._positions((2, 4, 8))[0, :, :3].T.unflatten(1, (2, 4, 8))
    assert torch.equal(network.bottleneck._positions((4, 4, 4)), network.bottleneck.pos_embed)
    assert torch.allclose(other[0, :, 0, 0], torch.tensor([0.5, 2.5]))
    assert torch.allclose(other[1, 0, :, 0], ramp)
    assert torch.allclose(other[2, 0, 0, :], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))


def test_every_parameter_gets_a_gradient(network):
    network.train()(torch.randn(2, 1, 8, 16, 16)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_without_the_transformer_it_is_the_unet_of_nnunet(network):
    """Same encoder, skips and decoder: with the bottleneck left out, it computes what nnU-Net's network does."""
    unet = PlainConvUNet(1, num_classes=3, **UNET)
    state = network.state_dict()
    same = {key: value for key, value in unet.state_dict().items() if ".seg_layers." not in key}
    assert same.keys() == {key for key in state if not key.startswith("bottleneck.") and ".seg_layers." not in key}
    head = {f"decoder.seg_layers.1.{p}": state[f"decoder.seg_layers.0.{p}"] for p in ("weight", "bias")}
    unet.load_state_dict({**unet.state_dict(), **{key: state[key] for key in same}, **head})
    network.bottleneck = nn.Identity()
    volume = torch.randn(1, 1, 8, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(volume), unet.eval()(volume))


def test_nnunet_builds_it_from_plans():
    names = {"conv_op": "torch.nn.modules.conv.Conv3d", "nonlin": "torch.nn.LeakyReLU"}
    names["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm3d"
    arguments = {**UNET, **names, "transformer": dict(TRANSFORMERS["tiny"]), "grid": [4, 4, 4]}
    built = get_network_from_plans(
        "nnunetv2_retina.network.transunet3d.TransUNet3D", arguments, list(names), 1, 2, deep_supervision=False
    )
    assert built(torch.randn(1, 1, 8, 16, 16)).shape == (1, 2, 8, 16, 16)


def test_the_published_size():
    with torch.device("meta"):
        network = TransUNet3D(1, 2, transformer=TRANSFORMERS["base"], grid=(4, 4, 4), **UNET)
    transformer = sum(p.numel() for p in network.bottleneck.transformer.parameters())
    assert transformer / 1e6 == pytest.approx(85.06, abs=0.01)


def test_deep_supervision_is_refused():
    with pytest.raises(ValueError, match="deep_supervision is True; the 3D TransUNet has one output"):
        TransUNet3D(1, 2, transformer=TRANSFORMERS["tiny"], grid=(4, 4, 4), deep_supervision=True, **UNET)
