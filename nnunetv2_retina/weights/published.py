"""The names of the authors' release (BaderLab/RETINA), as ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights.compatibility import (
    POSITIONS,
    TRANSUNET,
    StateDict,
    check_compatible,
    shapes_of,
    transformer_sizes,
)

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
    """Return our name of a tensor of the authors' release.

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
    for key in sorted(TRANSUNET.marks):
        if key not in weights:
            raise RetinaError(f"the state dict lacks the tensor that becomes {key}: not a whole TransUNet")
    shapes = shapes_of(weights)
    dim, mlp, depth, grid = transformer_sizes(shapes)
    if grid**2 != shapes[POSITIONS][1]:
        raise RetinaError(f"the position embeddings have {shapes[POSITIONS][1]} entries, which is no square grid")
    return NetworkConfig(embed_dim=dim, mlp_dim=mlp, depth=depth, num_heads=num_heads, grid_size=grid)
