"""Recognise what a weights file is by the names of its tensors, and translate each kind to this project's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.network import SIZES
from nnunetv2_retina.network.unet_resnet50 import ENCODER
from nnunetv2_retina.weights import imagenet, published, resnet50
from nnunetv2_retina.weights.compatibility import TRANSUNET, UNET_RESNET50, Network, describe_size, shapes_of
from nnunetv2_retina.weights.containers import EXPECTED
from nnunetv2_retina.weights.translation import Step, Translated, stripped


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
    """Return the kind of a file's tensors.

    Raises:
        RetinaError: if it is no known one.
    """
    for kind in KINDS:
        if any(stripped(name).startswith(kind.beginnings) for name in tensors):
            return kind
    raise RetinaError(f"{path} holds tensors of an unknown network: {shorten(tensors, 3)}. {EXPECTED}")


def _from_ours(network: Network, tensors: Mapping[str, Tensor], retina: Mapping[str, Any]) -> Translated:
    weights = {stripped(name): tensor for name, tensor in tensors.items()}
    steps = [Step(name, stripped(name), "copied") for name in tensors]
    if "network" in retina:
        try:
            return Translated(network.config.from_dict(retina["network"]), weights, steps)
        except (TypeError, ValueError, AttributeError) as error:
            raise RetinaError(f"its description of the network cannot be read ({error})") from error
    shapes = shapes_of(weights)
    size, config = describe_size(shapes), network.sizes(shapes)
    if config is None:
        raise RetinaError(f"it does not say its sizes, which are none of {', '.join(SIZES)}, but {size}")
    return Translated(config, weights, steps)


def _from_resnet50(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return resnet50.from_resnet50(tensors)


def _from_published(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    source = {stripped(name): tensor for name, tensor in tensors.items()}
    config, weights = published.from_published(source)
    two_heads = any(name.startswith("FinalDecoder.") for name in source)
    steps = [
        Step(name, None, "head that the published pre-training does not use")
        if two_heads and stripped(name).startswith(published.UNUSED_HEAD)
        else Step(name, published.published_name(stripped(name)), "copied")
        for name in tensors
    ]
    return Translated(config, weights, steps)


def _from_jax(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return imagenet.from_jax(tensors)


def _from_timm(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Translated:
    return imagenet.from_timm({stripped(name): tensor for name, tensor in tensors.items()})


KINDS = (
    Kind("RETINA checkpoint", ("cnn.stem.", "transformer.blocks."), partial(_from_ours, TRANSUNET)),
    Kind("UNet-ResNet50 checkpoint", (ENCODER,), partial(_from_ours, UNET_RESNET50)),
    Kind("MoCo v2 ResNet-50", ("encoder_q.", "encoder_k."), _from_resnet50, resnet50.TRAINED),
    Kind("ResNet-50, torchvision names", ("conv1.weight", "layer1.0.conv"), _from_resnet50, resnet50.TRAINED),
    Kind("published RETINA weights", ("transformer.embeddings.", "transformer.encoder."), _from_published),
    Kind("ImageNet hybrid, JAX names", ("conv_root/", "embedding/", "Transformer/"), _from_jax, imagenet.TRAINED),
    Kind("ImageNet hybrid, timm names", ("patch_embed.backbone.stem.",), _from_timm, imagenet.TRAINED),
)
