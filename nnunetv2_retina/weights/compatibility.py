"""This project's networks, told by their tensors, and what fits what. A new encoder is one entry of ``NETWORKS``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import SIZES, NetworkConfig, TransUNet
from nnunetv2_retina.network import unet_resnet50 as unet
from nnunetv2_retina.network.unet_resnet50 import UNetConfig, UNetResNet50
from nnunetv2_retina.weights.checkpoint import advice

HEAD = ".seg_layers."
"""What marks the keys of the head, here and in nnU-Net's loader."""
POSITIONS = "embedding.pos_embed"
_MLP = "transformer.blocks.0.mlp.fc1.weight"

FREEZING, UNFROZEN, RANDOM = range(3)
"""Trainers of a network: that freezes what it takes of a weights file, that freezes nothing, that takes nothing."""

StateDict: TypeAlias = Mapping[str, Tensor]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Config: TypeAlias = NetworkConfig | UNetConfig


@dataclass(frozen=True)
class Network:
    """One of this project's networks."""

    name: str
    """With its article, as messages call it."""
    marks: frozenset[str]
    """Keys by which its tensors are recognised."""
    stem: str
    """Key of the first convolution, whose kernel shows the channels."""
    head: str
    """Key of the last convolution, whose kernel shows the classes."""
    config: type[Config]
    build: Callable[[int, int, Config], nn.Module]
    """From the channels of the stem, the classes and the sizes."""
    sizes: Callable[[Shapes], Config | None]
    """The sizes of a network of these shapes; None if they have no name, for no tensor shows all of them."""
    describe: Callable[[Shapes], str]
    """The size in words."""
    trainers: tuple[str, str, str]
    """Names of the trainers that are ``FREEZING``, ``UNFROZEN`` and ``RANDOM``, without their size. Names alone: the
    trainers need nnU-Net, and this does not."""
    trainer_sizes: Mapping[str | None, str]
    """Name of a size -> what it adds to the name of a trainer; others add nothing."""

    def trainer(self, shapes: Shapes, which: int = FREEZING) -> str:
        """Return the trainer for a network of these shapes, ``which`` of ``trainers``."""
        config = self.sizes(shapes)
        return self.trainers[which] + self.trainer_sizes.get(config.name if config else None, "")

    def like(self, weights: StateDict, config: Config) -> nn.Module:
        """Build the network with as many channels and classes as the weights have; one class if they have no head."""
        shapes = shapes_of(weights)
        channels = _shape(shapes, self.stem, 4)[1] if self.stem in shapes else 3
        return self.build(channels, _shape(shapes, self.head, 4)[0] if self.head in shapes else 1, config)


def _build_transunet(channels: int, classes: int, config: Config) -> nn.Module:
    assert isinstance(config, NetworkConfig)
    return TransUNet(1 if channels == 3 else channels, classes, config)  # grey is repeated to three channels


def _shape(shapes: Shapes, key: str, axes: int) -> tuple[int, ...]:
    if len(shapes[key]) != axes:
        raise RetinaError(f"tensor {key} has shape {shapes[key]}; expected {axes} axes")
    return shapes[key]


def transformer_sizes(shapes: Shapes) -> tuple[int, int, int, int]:
    """Return embed_dim, mlp_dim, depth and side of the position grid of a TransUNet with these shapes.

    Raises:
        RetinaError: for tensors of other axes.
    """
    mlp, dim = _shape(shapes, _MLP, 2)
    blocks = {key.split(".")[2] for key in shapes if key.startswith("transformer.blocks.")}
    return dim, mlp, len(blocks), round(_shape(shapes, POSITIONS, 3)[1] ** 0.5)


def _transunet_sizes(shapes: Shapes) -> NetworkConfig | None:
    *sizes, grid = transformer_sizes(shapes)
    named = (it for it in SIZES.values() if [it.embed_dim, it.mlp_dim, it.depth] == sizes)
    return next((replace(config, grid_size=grid) for config in named), None)


def _describe_transunet(shapes: Shapes) -> str:
    dim, mlp, depth, grid = transformer_sizes(shapes)
    config = _transunet_sizes(shapes)
    name = config.name if config else "an unnamed size"
    return f"{name} (embed_dim {dim}, mlp_dim {mlp}, depth {depth}, position grid {grid} x {grid})"


TRANSUNET: Network = Network(
    name="a TransUNet",
    marks=frozenset({POSITIONS, _MLP}),
    stem="cnn.stem.0.weight",
    head="decoder.seg_layers.0.weight",
    config=NetworkConfig,
    build=_build_transunet,
    sizes=_transunet_sizes,
    describe=_describe_transunet,
    trainers=("nnUNetTrainerRETINA", "nnUNetTrainerRETINA_full", "nnUNetTrainerTransUNet"),
    trainer_sizes={"base": "_base", "tiny": "_tiny"},
)


def _describe_unet(shapes: Shapes) -> str:
    channels = _shape(shapes, unet.STEM, 4)[1]
    return f"UNet-ResNet50 (U-Net with a ResNet-50 encoder, input channels {channels})"


UNET_RESNET50: Network = Network(
    name="a UNet-ResNet50",
    marks=frozenset({unet.STEM}),
    stem=unet.STEM,
    head=unet.HEAD,
    config=UNetConfig,
    build=lambda channels, classes, _: UNetResNet50(channels, classes),
    sizes=lambda _: UNetConfig(),
    describe=_describe_unet,
    trainers=("nnUNetTrainerUNetResNet50_frozen", "nnUNetTrainerUNetResNet50", "nnUNetTrainerUNetResNet50"),
    trainer_sizes={},
)
NETWORKS = (UNET_RESNET50, TRANSUNET)


def network_of(names: Collection[str]) -> Network | None:
    """Return the network whose tensors have these names; None if it is none of this project's."""
    return next((network for network in NETWORKS if network.marks <= set(names)), None)


def shapes_of(weights: StateDict) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def describe_size(shapes: Shapes) -> str:
    """Put the size of a network into words, from the shapes of its tensors.

    Raises:
        RetinaError: if these are not the tensors of one of this project's networks.
    """
    network = network_of(shapes)
    if network is None:
        raise RetinaError(f"not the tensors of a TransUNet: {', '.join(sorted(TRANSUNET.marks - set(shapes)))} missing")
    return network.describe(shapes)


def trainer_for(shapes: Shapes) -> str:
    """Return the trainer whose network has these shapes and which takes such weights."""
    return (network_of(shapes) or TRANSUNET).trainer(shapes)


def check_compatible(weights: StateDict, network: nn.Module, source: str) -> None:
    """Compare names and shapes of all but the head, before nnU-Net does, to say what is wrong in one sentence.

    Tensors beside those of the network are let pass where they are of another part, such as an objective's own head.

    Raises:
        RetinaError: with the first difference, and both sizes where the checkpoint is of another size.
    """
    expected = {key: shape for key, shape in shapes_of(network.state_dict()).items() if HEAD not in key}
    got = shapes_of(weights)
    mine = network_of(expected) or TRANSUNET
    missing = [key for key in expected if key not in got]
    if missing:
        theirs = network_of(got)
        if theirs is not None and theirs is not mine:
            raise RetinaError(
                f"{source} holds {theirs.name}, but this trainer's network is {mine.name}. Use a trainer of that "
                f"network, for example {theirs.trainer(got)}, or give weights of this one"
            )
        if theirs is mine and mine.sizes(got) and mine.describe(got) != mine.describe(expected):
            raise RetinaError(f"{source} {_other_size(got, expected, mine)}")
        raise RetinaError(
            f"{source} does not hold {mine.name}: {len(missing)} of {len(expected)} tensors are missing, "
            f"the first is {missing[0]}. {advice(got)}"
        )
    wrong = [key for key in expected if got[key] != expected[key]]
    if wrong:
        raise RetinaError(f"{source} {_difference(got, expected, wrong, mine)}")
    parts = {key.partition(".")[0] for key in expected}
    surplus = [key for key in got if key not in expected and HEAD not in key and key.partition(".")[0] in parts]
    if surplus:
        raise RetinaError(
            f"{source} holds more than {mine.name} of this size: {len(surplus)} tensors, the first is {surplus[0]}. "
            "Give weights of a network of the same depth"
        )


def check_values(weights: StateDict, network: nn.Module, source: str) -> None:
    """Check that a network can go on from the values of compatible weights.

    Raises:
        RetinaError: for values that are not finite, or of another kind of number.
    """
    mine = network.state_dict()
    for key, tensor in weights.items():
        if key in mine and tensor.is_floating_point() != mine[key].is_floating_point():
            raise RetinaError(
                f"{source}: {key} is of {tensor.dtype}; expected {mine[key].dtype}. Save the weights anew"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise RetinaError(
                f"{source}: {key} has infinite or missing values, from which nothing can be trained. Give an earlier "
                "checkpoint of that run"
            )


def _difference(got: Shapes, expected: Shapes, wrong: list[str], network: Network) -> str:
    """Say how tensors of the same names differ in shape, and what to do."""
    if wrong == [POSITIONS]:
        theirs, ours = (transformer_sizes(shapes)[-1] for shapes in (got, expected))
        return (
            f"has position embeddings on a grid of {theirs} x {theirs}, but this trainer's network has {ours} x "
            f"{ours}. Resample them: retina_import_weights IN OUT, and give OUT"
        )
    if wrong == [network.stem]:
        theirs, ours = (_shape(shapes, network.stem, 4)[1] for shapes in (got, expected))
        return (
            f"has a stem for {theirs} channels, but this trainer's takes {ours}. Give weights of a network for grey "
            "images, as retina_import_weights writes them"
        )
    key = wrong[0]
    first = f" ({len(wrong)} tensors differ; the first, {key}, is {got[key]} there and {expected[key]} here)"
    return _other_size(got, expected, network, first)


def _other_size(got: Shapes, expected: Shapes, network: Network, first: str = "") -> str:
    return (
        f"is of another size: {network.describe(got)}, but this trainer's network is {network.describe(expected)}"
        f"{first}. Use the trainer of that size, for example {network.trainer(got)}."
    )
