"""The U-Net with a ResNet-50 encoder: shapes, keys, gradients, and an answer where its library is missing."""

import sys

import pytest
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.unet_resnet50 import ENCODER, HEAD, STEM, UNetConfig, UNetResNet50


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UNetResNet50(2, 3)


@pytest.mark.parametrize("size", [(32, 64), (37, 50), (5, 5)])
def test_any_size_gives_logits_of_that_size(network, size):
    with torch.no_grad():
        logits = network.eval()(torch.randn(1, 2, *size))
    assert logits.shape == (1, 3, *size) and logits.dtype == torch.float32


def test_under_autocast_the_logits_are_float32(network):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network.eval()(torch.randn(1, 2, 32, 32)).dtype == torch.float32


def test_what_is_padded_does_not_move_the_rest(network):
    torch.manual_seed(1)
    image = torch.randn(1, 2, 64, 50)
    padded = torch.nn.functional.pad(image, (0, 14, 0, 0), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network.eval()(image), network(padded)[..., :50])


def test_keys_and_shapes(network):
    state = network.state_dict()
    assert state[STEM].shape == (64, 2, 7, 7)
    assert state[f"{ENCODER}layer4.2.bn3.running_var"].shape == (2048,)
    assert {key for key in state if ".seg_layers." in key} == {HEAD, HEAD.replace("weight", "bias")}
    assert {key.split(".")[0] for key in state} == {"unet", "head"}
    assert not any(key.startswith("unet.segmentation_head") for key in state)


def test_every_parameter_gets_a_gradient(network):
    network.train()(torch.randn(2, 2, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_downloads_nothing(monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    UNetResNet50(1, 1)


def test_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RetinaError, match=r'needs segmentation-models-pytorch.*pip install "nnunetv2-retina\[study\]"'):
        UNetResNet50(1, 1)


def test_config_round_trip():
    assert UNetConfig.from_dict(UNetConfig().to_dict()) == UNetConfig()
    with pytest.raises(ValueError, match="unknown encoder 'resnet18'; there is resnet50"):
        UNetConfig(encoder="resnet18")
