"""Which tensors a checkpoint gives, what is frozen, and how published checkpoints are named.

Three scopes (Xing et al. 2025, "Fine-tuning", and BaderLab/RETINA train.py where text and code differ):

=============  =================================================  ==================  ==========================
scope          taken from the checkpoint                          frozen              source
=============  =================================================  ==================  ==========================
transformer    blocks and final norm                              the same            the paper's text (default)
encoder        CNN, patch and position embeddings, transformer    the transformer     the released code
full           everything but the head                            nothing             the paper's ablation
=============  =================================================  ==================  ==========================

Frozen parts run in evaluation mode during training, without dropout: dropout regularises weights that are being
learned, and on fixed ones it would only make the features of training and prediction differ. They contain layer norms,
which have no running statistics (the CNN has group norms, also without); a batch norm in a frozen part would stop
updating its statistics by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import SIZES, NetworkConfig, TransUNet
from nnunetv2_retina.network.unet_resnet50 import ENCODER as UNET_ENCODER
from nnunetv2_retina.network.unet_resnet50 import STEM as UNET_STEM
from nnunetv2_retina.weights.checkpoint import advice

HEAD = ".seg_layers."
"""What marks the keys of the head, here and in nnU-Net's loader."""
POSITIONS = "embedding.pos_embed"

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Scope:
    """A rule of transfer: prefixes of the keys that are taken, and of those that are frozen."""

    name: str
    taken: tuple[str, ...]
    frozen: tuple[str, ...]

    def takes(self, key: str) -> bool:
        """Whether the tensor of this key comes from the checkpoint. The head never does."""
        return HEAD not in key and key.startswith(self.taken)


SCOPES = {
    scope.name: scope
    for scope in (
        Scope("transformer", ("transformer.",), ("transformer.",)),
        Scope("encoder", ("cnn.", "embedding.", "transformer."), ("transformer.",)),
        Scope("full", ("",), ()),
    )
}
UNET_SCOPES = {"encoder": Scope("encoder", (UNET_ENCODER,), (UNET_ENCODER,))}
"""Of the UNet-ResNet50: the encoder is taken and frozen, as in the CEM500K project's benchmarks."""


def trained_prefixes(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of the tensors with trained values, from what a weights file says of itself; ("",) for all."""
    prefixes = tuple(description.get("trained") or ("",))
    return ("",) if "" in prefixes else prefixes


def freeze(network: nn.Module, prefixes: tuple[str, ...]) -> list[str]:
    """Exclude every parameter below the prefixes from training; return their names."""
    frozen = [name for name, _ in network.named_parameters() if prefixes and name.startswith(prefixes)]
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    return frozen


def set_train_mode(network: nn.Module) -> None:
    """``network.train()``, except that modules whose parameters are all frozen stay in evaluation mode."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def restrict_load(network: nn.Module, scope: Scope) -> RemovableHandle:
    """Let ``network.load_state_dict`` change only what the scope takes, until the returned handle is removed.

    nnU-Net's loader hands over the whole checkpoint but the head. This keeps the rest at its fresh initialisation
    without a second loader.
    """

    def keep_fresh(module: nn.Module, state_dict: dict[str, Tensor], *_: Any) -> None:
        state_dict.update({key: value for key, value in module.state_dict().items() if not scope.takes(key)})

    return network.register_load_state_dict_pre_hook(keep_fresh)


def report(
    network: nn.Module, record: Mapping[str, Any], scopes: Mapping[str, Scope] = MappingProxyType(SCOPES)
) -> dict[str, Any]:
    """What was loaded, left fresh and frozen, as ``transfer_report.json`` holds it.

    Args:
        network: after the transfer.
        record: where the weights came from; ``record["scope"]`` is a key of ``scopes``, or None.
        scopes: those of the network.
    """
    scope = scopes[record["scope"]] if record["scope"] else None
    names = list(network.state_dict())
    loaded = [name for name in names if scope is not None and scope.takes(name)]
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return {
        **record,
        "parameters": {
            "all": sum(sizes.values()),
            "loaded": sum(sizes.get(name, 0) for name in loaded),
            "frozen": sum(sizes[name] for name in frozen),
        },
        "loaded": loaded,
        "fresh": [name for name in names if name not in set(loaded)],
        "frozen": frozen,
    }


def summary(report: Mapping[str, Any]) -> str:
    """The report in one line, for the training log."""
    counts = {key: f"{value / 1e6:.2f} M" for key, value in report["parameters"].items()}
    if report["source"] is None:
        return f"Random initialisation: all {counts['all']} parameters are trained, nothing was transferred."
    return (
        f"Transferred from {report['source']} ({report['named_by']}): {counts['loaded']} of {counts['all']} parameters "
        f"(scope {report['scope']}); {counts['frozen']} frozen; the rest is at its fresh initialisation. "
        "See transfer_report.json."
    )


def check_compatible(weights: StateDict, network: nn.Module, source: str) -> None:
    """Compare names and shapes of all but the head, before nnU-Net does, to say what is wrong in one sentence.

    Raises:
        RetinaError: with the first difference, and both sizes where the checkpoint is of another size.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items() if HEAD not in key}
    got = {key: tuple(value.shape) for key, value in weights.items()}
    missing = [key for key in expected if key not in got]
    if missing:
        here, there = network_name(expected), network_name(got)
        if there not in (None, here):
            raise RetinaError(
                f"{source} holds {there}, but this trainer's network is {here}. Use a trainer of that network, for "
                f"example {trainer_for(got)}, or give weights of this one"
            )
        raise RetinaError(
            f"{source} does not hold {here}: {len(missing)} of {len(expected)} tensors are missing, "
            f"the first is {missing[0]}. {advice(got)}"
        )
    wrong = [key for key in expected if got[key] != expected[key]]
    if wrong == [POSITIONS]:
        grid, here = (round(shape[POSITIONS][1] ** 0.5) for shape in (got, expected))
        raise RetinaError(
            f"{source} has position embeddings on a grid of {grid} x {grid}, but this trainer's network has "
            f"{here} x {here}. Resample them: retina_import_weights IN OUT, and give OUT"
        )
    if wrong == [UNET_STEM]:
        raise RetinaError(
            f"{source} has a stem for {got[UNET_STEM][1]} channels, but this trainer's takes {expected[UNET_STEM][1]}. "
            "Give weights of a ResNet-50 as retina_import_weights writes them"
        )
    if wrong:
        key = wrong[0]
        raise RetinaError(
            f"{source} is of another size: {describe_size(got)}, but this trainer's network is "
            f"{describe_size(expected)} ({len(wrong)} tensors differ; the first, {key}, is {got[key]} there and "
            f"{expected[key]} here). Use the trainer of that size, for example {trainer_for(got)}."
        )


def network_name(names: Collection[str]) -> str | None:
    """The network whose tensors have these names, in words; None if it is none of this project's."""
    if UNET_STEM in names:
        return "a UNet-ResNet50"
    return "a TransUNet" if set(names) >= _SIZE_KEYS else None


def describe_size(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Size of a network in words, from the shapes of its tensors.

    Raises:
        RetinaError: if these are not a TransUNet's or a UNet-ResNet50's.
    """
    if UNET_STEM in shapes:
        return f"UNet-ResNet50 (U-Net with a ResNet-50 encoder, input channels {shapes[UNET_STEM][1]})"
    if not shapes.keys() >= _SIZE_KEYS:
        raise RetinaError(f"not the tensors of a TransUNet: {', '.join(sorted(_SIZE_KEYS - shapes.keys()))} missing")
    dim, mlp, depth, grid = _sizes(shapes)
    name = size_name(shapes)
    return f"{name or 'an unnamed size'} (embed_dim {dim}, mlp_dim {mlp}, depth {depth}, position grid {grid} x {grid})"


def trainer_for(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The trainer whose network has these shapes and takes such weights."""
    if UNET_STEM in shapes:
        return "nnUNetTrainerUNetResNet50_frozen"
    name = size_name(shapes)
    return f"nnUNetTrainerRETINA_{name}" if name in ("base", "tiny") else "nnUNetTrainerRETINA"


_SIZE_KEYS = {POSITIONS, "transformer.blocks.0.mlp.fc1.weight"}


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int, int]:
    mlp, dim = shapes["transformer.blocks.0.mlp.fc1.weight"]
    depth = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("transformer.blocks."))
    grid = round(shapes[POSITIONS][1] ** 0.5)
    return dim, mlp, depth, grid


def size_name(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Name of the size of a network with these shapes of its tensors; None for sizes without one."""
    dim, mlp, depth, _ = _sizes(shapes)
    for name, config in SIZES.items():
        if (config.embed_dim, config.mlp_dim, config.depth) == (dim, mlp, depth):
            return name
    return None


UNUSED_HEAD = "segmentation_head."
"""Prefix of the published pre-training network's head that its loss does not use, beside ``FinalDecoder``."""
# Published name -> ours, tried in this order; a key that fits none (and is no unit of the CNN) is an error.
_PUBLISHED = (
    (r"transformer\.embeddings\.position_embeddings", POSITIONS),
    (r"transformer\.embeddings\.patch_embeddings\.(weight|bias)", r"embedding.proj.\1"),
    (r"transformer\.embeddings\.hybrid_model\.root\.conv\.weight", "cnn.stem.0.weight"),
    (r"transformer\.embeddings\.hybrid_model\.root\.gn\.(weight|bias)", r"cnn.stem.1.\1"),
    (r"transformer\.encoder\.layer\.(\d+)\.attention_norm\.(\w+)", r"transformer.blocks.\1.norm1.\2"),
    (r"transformer\.encoder\.layer\.(\d+)\.ffn_norm\.(\w+)", r"transformer.blocks.\1.norm2.\2"),
    (r"transformer\.encoder\.layer\.(\d+)\.ffn\.(fc\d)\.(\w+)", r"transformer.blocks.\1.mlp.\2.\3"),
    (r"transformer\.encoder\.layer\.(\d+)\.attn\.out\.(\w+)", r"transformer.blocks.\1.attn.proj.\2"),
    (r"transformer\.encoder\.layer\.(\d+)\.attn\.(\w+)\.(\w+)", r"transformer.blocks.\1.attn.\2.\3"),
    (r"transformer\.encoder\.encoder_norm\.(\w+)", r"transformer.norm.\1"),
    (r"decoder\.conv_more\.(.+)", r"decoder.bottleneck.\1"),
    (r"decoder\.blocks\.(.+)", r"decoder.blocks.\1"),
    (r"FinalDecoder\.conv1\.(weight|bias)", r"decoder.seg_layers.0.\1"),
    (r"segmentation_head\.0\.(weight|bias)", r"decoder.seg_layers.0.\1"),
)
# The CNN's units are counted from 1 there and from 0 here.
_UNIT = r"transformer\.embeddings\.hybrid_model\.body\.block(\d)\.unit(\d+)\.(.+)\.(\w+)"
_UNIT_PARTS = {"gn1": "norm1", "gn2": "norm2", "gn3": "norm3", "downsample": "shortcut.0", "gn_proj": "shortcut.1"}


def from_published(state_dict: StateDict, num_heads: int | None = None) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Translate a state dict of the authors' release (BaderLab/RETINA) into this project's names.

    Args:
        state_dict: tensors by published name, with or without a ``module.`` prefix; any size and square position
            grid. Of the pre-training network's two heads the one it uses (``FinalDecoder``) is kept.
        num_heads: attention heads, which no tensor shows; 12 by default, as in every published size.

    Returns:
        The sizes, and the tensors as ``TransUNet(1, out_channels, config).load_state_dict`` takes them.

    Raises:
        RetinaError: for an unknown or missing tensor, or a position grid that is not square.
    """
    source = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if "FinalDecoder.conv1.weight" in source:
        source = {key: value for key, value in source.items() if not key.startswith(UNUSED_HEAD)}
    translated = {published_name(key): value for key, value in source.items()}
    config = _published_config(translated, num_heads or 12)
    head = translated.get("decoder.seg_layers.0.weight")
    with torch.device("meta"):
        reference = TransUNet(1, 1 if head is None else head.shape[0], config)
    check_compatible(translated, reference, "The published state dict")
    return config, translated


def published_name(key: str) -> str:
    """Our name of a tensor of the authors' release.

    Raises:
        RetinaError: for a name that the release does not have.
    """
    if match := re.fullmatch(_UNIT, key):
        stage, unit, part, parameter = match.groups()
        return f"cnn.stages.{int(stage) - 1}.{int(unit) - 1}.{_UNIT_PARTS.get(part, part)}.{parameter}"
    for pattern, ours in _PUBLISHED:
        if match := re.fullmatch(pattern, key):
            return match.expand(ours)
    raise RetinaError(
        f"unknown tensor {key!r}: not a state dict of the authors' release (BaderLab/RETINA). "
        "Expected names such as transformer.encoder.layer.0.attn.query.weight."
    )


def _published_config(weights: StateDict, num_heads: int) -> NetworkConfig:
    for key in sorted(_SIZE_KEYS):
        if key not in weights:
            raise RetinaError(f"the state dict lacks the tensor that becomes {key}: not a whole TransUNet")
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    dim, mlp, depth, grid = _sizes(shapes)
    if grid**2 != shapes[POSITIONS][1]:
        raise RetinaError(f"the position embeddings have {shapes[POSITIONS][1]} entries, which is no square grid")
    return NetworkConfig(embed_dim=dim, mlp_dim=mlp, depth=depth, num_heads=num_heads, grid_size=grid)
