"""This project's networks are told by their tensors; what does not fit is refused in one sentence."""

import pytest
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.unet_resnet50 import UNetConfig, UNetResNet50
from nnunetv2_retina.weights.compatibility import (
    NETWORKS,
    RANDOM,
    TRANSUNET,
    UNET_RESNET50,
    UNFROZEN,
    Network,
    check_compatible,
    describe_size,
    network_of,
    shapes_of,
    trainer_for,
)

TINY = NetworkConfig.named("tiny")


def meta(build, *arguments):
    with torch.device("meta"):
        return build(*arguments)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_each_network_is_told_from_the_others_and_built_alike(network: Network):
    configs: dict[str, NetworkConfig | UNetConfig] = {TRANSUNET.name: TINY, UNET_RESNET50.name: UNetConfig()}
    config = configs[network.name]
    state = meta(network.build, 1, 3, config).state_dict()
    assert [it for it in NETWORKS if it.marks <= set(state)] == [network] and network_of(state) is network
    assert network.sizes(shapes_of(state)) == config
    with torch.device("meta"):
        assert shapes_of(network.like(state, config).state_dict()) == shapes_of(state)
    assert network.config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("size", "suffix"), [("retina", ""), ("base", "_base"), ("tiny", "_tiny")])
def test_the_trainers_of_each_size(size, suffix):
    shapes = shapes_of(meta(TransUNet, 1, 1, NetworkConfig.named(size)).state_dict())
    assert trainer_for(shapes) == f"nnUNetTrainerRETINA{suffix}"
    assert TRANSUNET.trainer(shapes, UNFROZEN) == f"nnUNetTrainerRETINA_full{suffix}"
    assert TRANSUNET.trainer(shapes, RANDOM) == f"nnUNetTrainerTransUNet{suffix}"
    unet = shapes_of(meta(UNetResNet50, 1, 1).state_dict())
    assert trainer_for(unet) == "nnUNetTrainerUNetResNet50_frozen"


def test_says_which_size_a_checkpoint_has():
    with torch.device("meta"):
        base = TransUNet(1, 1, NetworkConfig.named("base")).state_dict()
        retina = TransUNet(1, 1)
    with pytest.raises(
        RetinaError, match=r"f.pth is of another size: base \(embed_dim 768.*retina.*nnUNetTrainerRETINA_base"
    ):
        check_compatible(base, retina, "f.pth")
    with pytest.raises(RetinaError, match=r"does not hold a TransUNet: \d+ of \d+ tensors are missing"):
        check_compatible({}, TransUNet(1, 1, TINY), "f.pth")


def test_says_what_to_do_with_another_position_grid():
    with torch.device("meta"):
        stored = TransUNet(1, 1, NetworkConfig(**{**TINY.to_dict(), "grid_size": 24})).state_dict()
        network = TransUNet(1, 1, TINY)
    with pytest.raises(
        RetinaError,
        match=r"f.pth has position embeddings on a grid of 24 x 24.* 14 x 14. .*retina_import_weights IN OUT",
    ):
        check_compatible(stored, network, "f.pth")


def test_says_that_the_channels_differ():
    network = meta(TransUNet, 1, 1, TINY)
    with pytest.raises(
        RetinaError, match=r"f\.pth has a stem for 2 channels, but this trainer's takes 3\. Give weights"
    ):
        check_compatible(meta(TransUNet, 2, 1, TINY).state_dict(), network, "f.pth")


@pytest.mark.parametrize("key", ["embedding.pos_embed", "transformer.blocks.0.mlp.fc1.weight", "cnn.stem.0.weight"])
def test_tensors_of_other_axes_are_refused(key):
    network = meta(TransUNet, 1, 1, TINY)
    with pytest.raises(RetinaError, match=rf"{key}.* \(5,\)"):
        check_compatible(network.state_dict() | {key: torch.zeros(5)}, network, "f.pth")


def test_other_tensors_are_no_network_of_ours():
    with pytest.raises(RetinaError, match=r"not the tensors of a TransUNet: embedding\.pos_embed, .* missing"):
        describe_size({"conv.weight": (1, 1, 3, 3)})
    with pytest.raises(RetinaError, match=r"unet\.encoder\.conv1\.weight has shape \(64,\); expected 4 axes"):
        describe_size({"unet.encoder.conv1.weight": (64,)})


def test_the_trainers_that_messages_name_exist():
    from nnunetv2_retina.training import baselines, trainers

    known = {*trainers.__all__, *baselines.__all__}
    for network in NETWORKS:
        suffixes = ("", *network.trainer_sizes.values())
        assert {name + suffix for name in network.trainers for suffix in suffixes} <= known
