"""How the names of the authors' release are read."""

import pytest
import torch
from helpers.published import as_published

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights.published import from_published


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "config", [NetworkConfig(), NetworkConfig.named("base"), NetworkConfig(grid_size=32, depth=2, embed_dim=48)]
)
def test_reads_published_names_of_any_size(prefix, config):
    with torch.device("meta"):
        state = TransUNet(1, 7, config).state_dict()
    got_config, got = from_published({prefix + key: value for key, value in as_published(state).items()})
    assert got_config == config
    assert {key: value.shape for key, value in got.items()} == {key: value.shape for key, value in state.items()}
    assert all(got[key] is value for key, value in state.items())


def test_of_two_heads_the_reconstruction_head_is_kept():
    with torch.device("meta"):
        state = as_published(TransUNet(1, 1, NetworkConfig(depth=1)).state_dict())
    head = torch.ones(1, 16, 3, 3)
    state |= {"FinalDecoder.conv1.weight": head, "FinalDecoder.conv1.bias": torch.zeros(1)}
    _, got = from_published(state)
    assert got["decoder.seg_layers.0.weight"] is head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"surprise.weight": torch.zeros(1)}, r"unknown tensor 'surprise.weight': not a state dict of"),
        (lambda s: {k: v for k, v in s.items() if "position" not in k}, r"lacks the tensor that becomes embedding.pos"),
        (lambda s: {k: v for k, v in s.items() if "gn_proj" not in k}, r"6 of \d+ tensors are missing, the first is"),
        (
            lambda s: s | {"transformer.embeddings.position_embeddings": torch.zeros(1, 150, 192)},
            r"150 entries, which is no square grid",
        ),
    ],
)
def test_refuses_other_state_dicts(change, message):
    with torch.device("meta"):
        state = as_published(TransUNet(1, 1, NetworkConfig(depth=1)).state_dict())
    with pytest.raises(RetinaError, match=message):
        from_published(change(state))
