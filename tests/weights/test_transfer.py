"""What a checkpoint gives, and how published names are read."""

import pytest
import torch
from helpers.published import as_published

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import transfer
from nnunetv2_retina.weights.transfer import SCOPES, from_published

TINY = NetworkConfig.named("tiny")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TransUNet(1, 2, TINY)


@pytest.fixture
def donor():
    torch.manual_seed(1)
    network = TransUNet(1, 1, TINY)
    for tensor in network.state_dict().values():  # no tensor is left at a value that initialisation also gives
        if tensor.is_floating_point():
            tensor.normal_()
    return network.state_dict()


@pytest.mark.parametrize(
    ("scope", "modules"),
    [("transformer", {"transformer"}), ("encoder", {"cnn", "embedding", "transformer"}),
     ("full", {"cnn", "embedding", "transformer", "decoder"})],
)  # fmt: skip
def test_a_restricted_load_changes_the_scope_and_nothing_else(network, donor, scope, modules):
    fresh = {key: value.clone() for key, value in network.state_dict().items()}
    handle = transfer.restrict_load(network, SCOPES[scope])
    network.load_state_dict({key: fresh[key] if ".seg_layers." in key else donor[key] for key in fresh})
    for key, value in network.state_dict().items():
        taken = key.split(".")[0] in modules and ".seg_layers." not in key
        assert torch.equal(value, donor[key] if taken else fresh[key]), key
    handle.remove()
    network.load_state_dict({key: fresh[key] if ".seg_layers." in key else donor[key] for key in fresh})
    assert torch.equal(network.cnn.stem[0].weight, donor["cnn.stem.0.weight"])


def test_frozen_modules_stay_in_evaluation_mode(network):
    frozen = transfer.freeze(network, SCOPES["transformer"].frozen)
    assert set(frozen) == {name for name, _ in network.named_parameters() if name.startswith("transformer.")}
    transfer.set_train_mode(network)
    dropouts = {name: m.training for name, m in network.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {"embedding.dropout": True, **{f"transformer.blocks.{i}.mlp.dropout": False for i in range(2)}}
    assert network.decoder.bottleneck[1].training
    tokens = torch.randn(1, 4, TINY.embed_dim)
    assert torch.equal(network.transformer(tokens), network.transformer(tokens))


def test_a_frozen_batch_norm_keeps_its_statistics():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    transfer.freeze(network, ("1.",))
    transfer.set_train_mode(network)
    network(torch.randn(2, 1, 4, 4))
    assert network[1].num_batches_tracked == 0


def test_nothing_frozen_is_plain_train_mode(network):
    assert transfer.freeze(network, SCOPES["full"].frozen) == []
    transfer.set_train_mode(network.eval())
    assert all(module.training for module in network.modules())


def test_report_counts_and_names(network):
    transfer.freeze(network, SCOPES["transformer"].frozen)
    report = transfer.report(network, {"scope": "transformer", "source": "a.pth", "named_by": "$RETINA_WEIGHTS"})
    block = sum(p.numel() for p in network.transformer.parameters())
    assert report["parameters"]["loaded"] == report["parameters"]["frozen"] == block
    assert report["loaded"] == report["frozen"] == [k for k in network.state_dict() if k.startswith("transformer.")]
    assert len(report["loaded"]) + len(report["fresh"]) == len(network.state_dict())
    assert "scope transformer" in transfer.summary(report)


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


def test_says_which_size_a_checkpoint_has(network):
    with torch.device("meta"):
        base = TransUNet(1, 1, NetworkConfig.named("base")).state_dict()
        retina = TransUNet(1, 1)
    with pytest.raises(
        RetinaError, match=r"f.pth is of another size: base \(embed_dim 768.*retina.*nnUNetTrainerRETINA_base"
    ):
        transfer.check_compatible(base, retina, "f.pth")
    with pytest.raises(RetinaError, match=r"does not hold a TransUNet: \d+ of \d+ tensors are missing"):
        transfer.check_compatible({}, network, "f.pth")


def test_says_what_to_do_with_another_position_grid():
    with torch.device("meta"):
        stored = TransUNet(1, 1, NetworkConfig(**{**TINY.to_dict(), "grid_size": 24})).state_dict()
        network = TransUNet(1, 1, TINY)
    with pytest.raises(
        RetinaError,
        match=r"f.pth has position embeddings on a grid of 24 x 24.* 14 x 14. .*retina_import_weights IN OUT",
    ):
        transfer.check_compatible(stored, network, "f.pth")


@pytest.mark.parametrize(
    ("description", "prefixes"),
    [({}, ("",)), ({"trained": []}, ("",)), ({"trained": [""]}, ("",)), ({"trained": ["cnn."]}, ("cnn.",))],
)
def test_what_a_file_says_of_trained_tensors(description, prefixes):
    assert transfer.trained_prefixes(description) == prefixes
