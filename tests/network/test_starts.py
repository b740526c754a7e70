"""What a network can begin with: that it is what the papers say, and leaves everything else as it was."""

import numpy as np
import pytest
import torch

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.starts import begin, sine_positions

TINY = NetworkConfig.named("tiny")


def started(positions="zero", attention="random"):
    torch.manual_seed(3)
    network = TransUNet(1, 2, TINY)
    begin(network, positions, attention)
    return network


def changed(network):
    fresh = started().state_dict()
    return {name for name, value in network.state_dict().items() if not torch.equal(value, fresh[name])}


def test_positions_are_sines_of_row_and_column():
    positions = sine_positions(3, 8)[0].numpy()
    for number in range(9):
        waves = [
            np.concatenate([np.sin(v * f), np.cos(v * f)]) for v in divmod(number, 3) for f in [np.array([1, 0.01])]
        ]
        np.testing.assert_allclose(positions[number], np.concatenate(waves), atol=1e-6)


def test_sine_positions_change_nothing_else():
    assert changed(started(positions="sine")) == {"embedding.pos_embed"}


def test_mimetic_attention_changes_nothing_else():
    names = changed(started(attention="mimetic"))
    assert names and all(".attn." in name for name in names)
    assert {name for name in started().state_dict() if ".attn." in name and name.endswith("weight")} <= names


def test_products_of_a_mimetic_attention_are_near_identities():
    network = started(attention="mimetic")
    width, heads = TINY.embed_dim, TINY.num_heads
    for block in network.transformer.blocks:
        attention = block.attn
        product = attention.proj.weight @ attention.value.weight
        noise = product + 0.4 * torch.eye(width)
        assert noise.mean().item() == pytest.approx(0, abs=0.003)
        assert noise.std().item() == pytest.approx(0.4 / width**0.5, rel=0.1)
        for head in range(heads):
            rows = slice(head * width // heads, (head + 1) * width // heads)
            query, key = attention.query.weight[rows], attention.key.weight[rows]
            scores = query.T @ key
            # The largest D / heads of the D singular values, in both halves; together they lean to the identity.
            spectrum = torch.linalg.svdvals(scores)
            torch.testing.assert_close(torch.linalg.svdvals(query) ** 2, spectrum[: width // heads])
            torch.testing.assert_close(torch.linalg.svdvals(key) ** 2, spectrum[: width // heads])
            assert spectrum[width // heads :].max() < 1e-5 and spectrum[width // heads - 1] > 0.7
            assert scores.trace() > 0.15 * width
        assert not any(layer.bias.any() for layer in (attention.query, attention.key, attention.value, attention.proj))


def test_tokens_of_a_mimetic_start_look_at_themselves():
    """The point of it: attention is not even any more, and a token's own weight is the largest."""
    torch.manual_seed(0)
    tokens = torch.nn.functional.layer_norm(torch.randn(1, 49, TINY.embed_dim), (TINY.embed_dim,))
    own = {}
    for start in ("random", "mimetic"):
        attention = started(attention=start).transformer.blocks[0].attn
        query, key = (
            layer(tokens).unflatten(-1, (TINY.num_heads, -1)).transpose(1, 2)
            for layer in (attention.query, attention.key)
        )
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        own[start] = weights.diagonal(dim1=-2, dim2=-1).mean().item()
    assert own["random"] == pytest.approx(1 / 49, rel=0.1)
    assert own["mimetic"] > 10 * own["random"]


def test_the_stream_of_random_numbers_stays_as_it_was():
    """Pairs of a study share what is drawn after the network."""
    drawn = []
    for attention in ("random", "mimetic"):
        started(attention=attention)
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
