"""ImageNet-21k weights of the hybrid R50+ViT-B/16, in the names and layouts of JAX and of timm, as ours.

The paper's ablation starts from them (Xing et al. 2025, S10), as TransUNet does. Names and layouts were read in
google-research/vision_transformer (vit_jax/models_vit.py, models_resnet.py, checkpoint.py), timm 1.0.22
(models/vision_transformer.py ``_load_weights``; the names of ``vit_base_r50_s16_224``) and Beckschen/TransUNet
(networks/vit_seg_modeling*.py ``load_from``). JAX stores kernels as HWIO or (in, out), attention kernels with an axis
of heads, and the group norms of these files as (1, 1, 1, C).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import SIZES, NetworkConfig
from nnunetv2_retina.weights.compatibility import POSITIONS
from nnunetv2_retina.weights.translation import Step, Translated

TRAINED: tuple[str, ...] = ("cnn.", "embedding.", "transformer.")
"""Prefixes of the tensors that these files hold; the decoder and the head are not among them."""

# Layouts: number of axes, how it becomes ours, and what to call that.
_LAYOUTS: dict[str, tuple[int, Callable[[Tensor], Tensor], str]] = {
    "kernel": (4, lambda x: x.permute(3, 2, 0, 1), "transposed (HWIO to OIHW)"),
    "dense": (2, lambda x: x.t(), "transposed"),
    "to heads": (3, lambda x: x.flatten(1).t(), "heads joined, transposed"),
    "from heads": (3, lambda x: x.flatten(0, 1).t(), "heads joined, transposed"),
    "of heads": (2, lambda x: x.flatten(), "heads joined"),
    "copy": (0, lambda x: x, "copied"),
    "vector": (0, lambda x: x.flatten(), "copied"),
    "positions": (3, lambda x: x, "copied"),
}
# Name in the file -> ours and the layout. Ours None: dropped on purpose, for the reason in place of the layout.
# Groups: s, u and b count stages, units and blocks, n convolutions; p is scale, kernel, bias or weight.
_BLOCK = r"Transformer/encoderblock_(?P<b>\d+)"
_ATTENTION = rf"{_BLOCK}/MultiHeadDotProductAttention_1"
_NO_CLASSES = "class token: this network has none"
_NO_CLASSIFIER = "ImageNet classifier"
_JAX = (
    (r"conv_root/kernel", "cnn.stem.0.weight", "kernel"),
    (r"gn_root/(?P<p>scale|bias)", "cnn.stem.1.{p}", "vector"),
    (r"block(?P<s>[123])/unit(?P<u>\d+)/conv(?P<n>[123])/kernel", "cnn.stages.{s}.{u}.conv{n}.weight", "kernel"),
    (r"block(?P<s>[123])/unit(?P<u>\d+)/gn(?P<n>[123])/(?P<p>scale|bias)", "cnn.stages.{s}.{u}.norm{n}.{p}", "vector"),
    (r"block(?P<s>[123])/unit(?P<u>\d+)/conv_proj/kernel", "cnn.stages.{s}.{u}.shortcut.0.weight", "kernel"),
    (r"block(?P<s>[123])/unit(?P<u>\d+)/gn_proj/(?P<p>scale|bias)", "cnn.stages.{s}.{u}.shortcut.1.{p}", "vector"),
    (r"embedding/kernel", "embedding.proj.weight", "kernel"),
    (r"embedding/bias", "embedding.proj.bias", "vector"),
    (r"Transformer/posembed_input/pos_embedding", POSITIONS, "positions"),
    (rf"{_BLOCK}/LayerNorm_0/(?P<p>scale|bias)", "transformer.blocks.{b}.norm1.{p}", "vector"),
    (rf"{_BLOCK}/LayerNorm_2/(?P<p>scale|bias)", "transformer.blocks.{b}.norm2.{p}", "vector"),
    (rf"{_ATTENTION}/(?P<n>query|key|value)/kernel", "transformer.blocks.{b}.attn.{n}.weight", "to heads"),
    (rf"{_ATTENTION}/(?P<n>query|key|value)/bias", "transformer.blocks.{b}.attn.{n}.bias", "of heads"),
    (rf"{_ATTENTION}/out/kernel", "transformer.blocks.{b}.attn.proj.weight", "from heads"),
    (rf"{_ATTENTION}/out/bias", "transformer.blocks.{b}.attn.proj.bias", "vector"),
    (rf"{_BLOCK}/MlpBlock_3/Dense_0/kernel", "transformer.blocks.{b}.mlp.fc1.weight", "dense"),
    (rf"{_BLOCK}/MlpBlock_3/Dense_0/bias", "transformer.blocks.{b}.mlp.fc1.bias", "vector"),
    (rf"{_BLOCK}/MlpBlock_3/Dense_1/kernel", "transformer.blocks.{b}.mlp.fc2.weight", "dense"),
    (rf"{_BLOCK}/MlpBlock_3/Dense_1/bias", "transformer.blocks.{b}.mlp.fc2.bias", "vector"),
    (r"Transformer/encoder_norm/(?P<p>scale|bias)", "transformer.norm.{p}", "vector"),
    (r"cls", None, _NO_CLASSES),
    (r"(pre_logits|head)/(kernel|bias)", None, _NO_CLASSIFIER),
)
_UNIT = r"patch_embed\.backbone\.stages\.(?P<s>[012])\.blocks\.(?P<u>\d+)"
_P = r"(?P<p>weight|bias)"
_TIMM = (
    (r"patch_embed\.backbone\.stem\.conv\.weight", "cnn.stem.0.weight", "copy"),
    (rf"patch_embed\.backbone\.stem\.norm\.{_P}", "cnn.stem.1.{p}", "copy"),
    (rf"{_UNIT}\.conv(?P<n>[123])\.weight", "cnn.stages.{s}.{u}.conv{n}.weight", "copy"),
    (rf"{_UNIT}\.norm(?P<n>[123])\.{_P}", "cnn.stages.{s}.{u}.norm{n}.{p}", "copy"),
    (rf"{_UNIT}\.downsample\.conv\.weight", "cnn.stages.{s}.{u}.shortcut.0.weight", "copy"),
    (rf"{_UNIT}\.downsample\.norm\.{_P}", "cnn.stages.{s}.{u}.shortcut.1.{p}", "copy"),
    (rf"patch_embed\.proj\.{_P}", "embedding.proj.{p}", "copy"),
    (r"pos_embed", POSITIONS, "positions"),
    (rf"blocks\.(?P<b>\d+)\.norm(?P<n>[12])\.{_P}", "transformer.blocks.{b}.norm{n}.{p}", "copy"),
    (rf"blocks\.(?P<b>\d+)\.attn\.qkv\.{_P}", "transformer.blocks.{b}.attn.{part}.{p}", "copy"),
    (rf"blocks\.(?P<b>\d+)\.attn\.proj\.{_P}", "transformer.blocks.{b}.attn.proj.{p}", "copy"),
    (rf"blocks\.(?P<b>\d+)\.mlp\.fc(?P<n>[12])\.{_P}", "transformer.blocks.{b}.mlp.fc{n}.{p}", "copy"),
    (rf"norm\.{_P}", "transformer.norm.{p}", "copy"),
    (r"cls_token", None, _NO_CLASSES),
    (r"(pre_logits\.fc|head)\.(weight|bias)", None, _NO_CLASSIFIER),
)
_OUR_PARAMETER = {"scale": "weight", "kernel": "weight"}
_NEEDED = ("cnn.stem.0.weight", "cnn.stages.2.0.conv1.weight", POSITIONS, "transformer.blocks.0.mlp.fc1.weight")


def from_jax(tensors: Mapping[str, Tensor]) -> Translated:
    """Translate the tensors of ``R50+ViT-B_16.npz``, or of another size of the same kind.

    Returns:
        The sizes (position grid as in the file), the tensors below ``TRAINED`` by our names, and what became of each.

    Raises:
        RetinaError: for an unknown tensor, a tensor of another layout, or a model without the ResNet half.
    """
    if "embedding/kernel" in tensors and "conv_root/kernel" not in tensors:
        size = "x".join(map(str, tensors["embedding/kernel"].shape[:2]))
        raise RetinaError(
            f"a plain vision transformer, which embeds patches of {size} pixels: there is no ResNet (conv_root/kernel) "
            "before it. Expected the hybrid R50+ViT-B_16.npz"
        )
    weights, steps = _translate(tensors, _JAX, first=1)
    query = tensors.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    heads = query.shape[1] if query is not None else 12
    return _with_grid(weights, steps, heads, class_token="cls" in tensors)


def from_timm(tensors: Mapping[str, Tensor]) -> Translated:
    """Translate the state dict of timm's ``vit_base_r50_s16_224``; see ``from_jax``."""
    weights, steps = _translate(tensors, _TIMM, first=0)
    return _with_grid(weights, steps, 12, class_token="cls_token" in tensors)


def _translate(
    tensors: Mapping[str, Tensor], rules: tuple[tuple[str, str | None, str], ...], first: int
) -> tuple[dict[str, Tensor], list[Step]]:
    """Apply the rules; ``first`` is the number of the first stage and unit in the file, 0 here."""
    weights: dict[str, Tensor] = {}
    steps = []
    for name, tensor in tensors.items():
        match, ours, layout = _rule(name, rules)
        if ours is None:
            steps.append(Step(name, None, layout))
            continue
        values = match.groupdict()
        values |= {key: str(int(values[key]) - first) for key in ("s", "u") if key in values}
        values["p"] = _OUR_PARAMETER.get(values.get("p", ""), values.get("p", ""))
        if "{part}" not in ours:
            target = ours.format(**values)
            weights[target], done = _convert(name, tensor, layout)
            steps.append(Step(name, target, done))
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            target = ours.format(part=part, **values)
            weights[target] = rows
            steps.append(Step(name, target, f"its rows for the {part} copied"))
    return weights, steps


def _rule(name: str, rules: tuple[tuple[str, str | None, str], ...]) -> tuple[re.Match[str], str | None, str]:
    for pattern, ours, layout in rules:
        if match := re.fullmatch(pattern, name):
            return match, ours, layout
    raise RetinaError(f"unknown tensor {name!r}: not the hybrid R50+ViT-B_16, whose ResNet has three stages")


def _convert(name: str, tensor: Tensor, layout: str) -> tuple[Tensor, str]:
    axes, convert, done = _LAYOUTS[layout]
    if axes and tensor.ndim != axes:
        raise RetinaError(f"tensor {name!r} has shape {tuple(tensor.shape)}; expected {axes} axes, as R50+ViT-B_16 has")
    return convert(tensor), done


def _with_grid(weights: dict[str, Tensor], steps: list[Step], heads: int, class_token: bool) -> Translated:
    for name in _NEEDED:
        if name not in weights:
            raise RetinaError(f"the tensor that becomes {name} is missing: not a whole R50+ViT-B_16")
    if class_token:
        weights[POSITIONS] = weights[POSITIONS][:, 1:]
        steps = [replace(s, done="its class token dropped, the rest copied") if s.target == POSITIONS else s
                 for s in steps]  # fmt: skip
    count = weights[POSITIONS].shape[1]
    grid = math.isqrt(count)
    if grid**2 != count:
        raise RetinaError(f"the position embeddings have {count} entries, which is no square grid")
    return Translated(_config(weights, heads, grid), weights, steps)


def _config(weights: Mapping[str, Tensor], heads: int, grid: int) -> NetworkConfig:
    """Return the named size that fits the tensors, or an unnamed one with the usual decoder."""
    mlp = weights["transformer.blocks.0.mlp.fc1.weight"]
    sizes: dict[str, Any] = {
        "embed_dim": mlp.shape[-1],
        "mlp_dim": mlp.shape[0],
        "depth": _count(weights, r"transformer\.blocks\.(\d+)\..*"),
        "num_heads": heads,
        "stem_channels": weights["cnn.stem.0.weight"].shape[0],
        "cnn_units": tuple(_count(weights, rf"cnn\.stages\.{i}\.(\d+)\..*") for i in range(3)),
    }
    for config in SIZES.values():
        if all(getattr(config, key) == value for key, value in sizes.items()):
            return replace(config, grid_size=grid)
    return NetworkConfig(grid_size=grid, **sizes)


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(match[1]) for name in weights if (match := re.fullmatch(pattern, name))), default=-1)
