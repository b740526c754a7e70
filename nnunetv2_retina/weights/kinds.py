"""What a weights file is, read from the names of its tensors, and how each kind becomes this project's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.network import SIZES, NetworkConfig
from nnunetv2_retina.network.unet_resnet50 import ENCODER, UNetConfig
from nnunetv2_retina.weights import imagenet, resnet50, transfer
from nnunetv2_retina.weights.containers import EXPECTED
from nnunetv2_retina.weights.imagenet import TRAINED
from nnunetv2_retina.weights.transfer import POSITIONS, UNUSED_HEAD
from nnunetv2_retina.weights.translation import Step, Translated


class Kind(NamedTuple):
    """A spelling of the network's tensors."""

    name: str
    beginnings: tuple[str, ...]
    """What some of its names begin with, and no other kind's."""
    translate: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Translated]
    """From the tensors and what the file says of itself; RetinaError for an unknown tensor."""
    trained: tuple[str, ...] | None = None
    """Prefixes of what such files hold; None: the whole network."""


def recognise(path: Path, tensors: Mapping[str, Tensor]) -> Kind:
    """The kind of a file's tensors.

    Raises:
        RetinaError: if it is none that is known.
    """
    for kind in KINDS:
        if any(_stripped(name).startswith(kind.beginnings) for name in tensors):
            return kind
    raise RetinaError(f"{path} holds tensors of an unknown network: {shorten(tensors, 3)}. {EXPECTED}")


def _stripped(name: str) -> str:
    """A tensor's name without what PyTorch's wrappers put before it."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


def _from_ours(tensors: Mapping[str, Tensor], retina: Mapping[str, Any]) -> Translated:
    weights = {_stripped(name): tensor for name, tensor in tensors.items()}
    steps = [Step(name, _stripped(name), "copied") for name in tensors]
    if "network" in retina:
        try:
            return Translated(NetworkConfig.from_dict(retina["network"]), weights, steps)
        except (TypeError, ValueError) as error:
            raise RetinaError(f"its description of the network cannot be read ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    size, name = transfer.describe_size(shapes), transfer.size_name(shapes)
    if name is None:
        raise RetinaError(f"it does not say its sizes, which are none of {', '.join(SIZES)}, but {size}")
    grid = round(shapes[POSITIONS][1] ** 0.5)
    return Translated(replace(NetworkConfig.named(name), grid_size=grid), weights, steps)


def _from_unet(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    weights = {_stripped(name): tensor for name, tensor in tensors.items()}
    return Translated(UNetConfig(), weights, [Step(name, _stripped(name), "copied") for name in tensors])


def _from_resnet50(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return resnet50.from_resnet50(tensors)


def _from_published(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    stripped = {_stripped(name): tensor for name, tensor in tensors.items()}
    config, weights = transfer.from_published(stripped)
    two_heads = any(name.startswith("FinalDecoder.") for name in stripped)
    steps = [
        Step(name, None, "head that the published pre-training does not use")
        if two_heads and _stripped(name).startswith(UNUSED_HEAD)
        else Step(name, transfer.published_name(_stripped(name)), "copied")
        for name in tensors
    ]
    return Translated(config, weights, steps)


def _from_jax(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return imagenet.from_jax(tensors)


def _from_timm(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return imagenet.from_timm({_stripped(name): tensor for name, tensor in tensors.items()})


KINDS = (
    Kind("RETINA checkpoint", ("cnn.stem.", "transformer.blocks."), _from_ours),
    Kind("UNet-ResNet50 checkpoint", (ENCODER,), _from_unet),
    Kind("MoCo v2 ResNet-50", ("encoder_q.", "encoder_k."), _from_resnet50, resnet50.TRAINED),
    Kind("ResNet-50, torchvision names", ("conv1.weight", "layer1.0.conv"), _from_resnet50, resnet50.TRAINED),
    Kind("published RETINA weights", ("transformer.embeddings.", "transformer.encoder."), _from_published),
    Kind("ImageNet hybrid, JAX names", ("conv_root/", "embedding/", "Transformer/"), _from_jax, imagenet.TRAINED),
    Kind("ImageNet hybrid, timm names", ("patch_embed.backbone.stem.",), _from_timm, TRAINED),
)
