"""What a checkpoint gives, what is frozen, and what is reported."""

import pytest
import torch
from helpers.checks import known

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import transfer
from nnunetv2_retina.weights.transfer import SCOPES

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
    handle.close()
    network.load_state_dict({key: fresh[key] if ".seg_layers." in key else donor[key] for key in fresh})
    assert torch.equal(network.cnn.stem[0].weight, donor["cnn.stem.0.weight"])


def test_what_a_file_holds_untrained_is_not_taken_and_two_seeds_share_nothing_of_it(donor):
    scope = SCOPES["full"].within(("cnn.", "embedding.pos_embed", "transformer."))
    loaded = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = TransUNet(1, 2, TINY)
        fresh = {key: value.clone() for key, value in network.state_dict().items()}
        transfer.restrict_load(network, scope)
        network.load_state_dict({key: fresh[key] if ".seg_layers." in key else donor[key] for key in fresh})
        loaded.append(network.state_dict())
        taken = {key for key in fresh if donor[key].is_floating_point() and torch.equal(loaded[-1][key], donor[key])}
        assert {key.split(".")[0] for key in taken} == {"cnn", "embedding", "transformer"}
        assert "embedding.pos_embed" in taken and "embedding.proj.weight" not in taken
        report = transfer.report(
            network, {"scope": "full", "source": "a.pth", "named_by": "b", "trained": list(scope.trained)}
        )
        assert set(report["loaded"]) == taken
        assert {name.split(".")[0] for name in report["untrained"]} == {"embedding", "decoder"}
        assert f"{len(report['untrained'])} tensors of that scope (embedding., decoder.) were not trained" in (
            transfer.summary(report)
        )
    kernels = [key for key in loaded[0] if key.startswith("decoder.") and loaded[0][key].ndim == 4]
    assert kernels and not any(torch.equal(loaded[0][key], loaded[1][key]) for key in kernels)


def test_a_record_of_an_earlier_version_took_all_that_its_scope_covers():
    record = {"scope": "full", "pretraining": {"trained": ["cnn."]}}
    assert known(transfer.scope_of(record, SCOPES)).takes("decoder.bottleneck.0.weight")
    assert not known(transfer.scope_of(record | {"trained": ["cnn."]}, SCOPES)).takes("decoder.bottleneck.0.weight")
    assert transfer.scope_of({"scope": None}, SCOPES) is None


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


@pytest.mark.parametrize(
    ("description", "prefixes"),
    [({}, ("",)), ({"trained": []}, ("",)), ({"trained": [""]}, ("",)), ({"trained": ["cnn."]}, ("cnn.",))],
)
def test_what_a_file_says_of_trained_tensors(description, prefixes):
    assert transfer.trained_prefixes(description) == prefixes


@pytest.mark.parametrize("trained", [5, "cnn.", [1], {"cnn.": True}])
def test_a_file_that_says_nonsense_of_trained_tensors_is_refused(trained):
    with pytest.raises(RetinaError, match=r'says "trained": .*; expected a list of prefixes'):
        transfer.trained_prefixes({"trained": trained})
