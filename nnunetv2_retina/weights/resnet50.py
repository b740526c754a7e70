"""ResNet-50 weights as the encoder of ``UNetResNet50``: MoCo v2's checkpoints (CEM500K's among them) and torchvision's.

MoCo (He et al. 2020, Chen et al. 2020; facebookresearch/moco) trains a query encoder ``module.encoder_q``; its key
encoder, queue and projection head (``fc``) serve the pre-training alone. CEM500K's images are grey, and so is its stem;
ImageNet's has three channels, whose kernels are summed: what the network computes from grey repeated to three channels.
Names are torchvision's (torchvision/models/resnet.py), which timm and segmentation-models-pytorch share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.unet_resnet50 import ENCODER, STEM, UNetConfig
from nnunetv2_retina.weights.translation import Step, Translated, stripped

TRAINED: tuple[str, ...] = (ENCODER,)
"""Prefixes of the tensors that these files hold; the decoder and the head are not among them."""
BLOCKS = (3, 4, 6, 3)
"""Blocks of the four stages of a ResNet-50."""

_QUERY = "encoder_q."
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_RESNET = re.compile(
    rf"conv1\.weight|bn1\.{_NORM}|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.{_NORM}|downsample\.(0\.weight|1\.{_NORM}))"
)
_DROPPED = (
    (r"encoder_k\..+", "key encoder: MoCo trains it as a moving average of the other, for its pre-training alone"),
    (r"queue(_ptr)?", "MoCo's queue of negatives: for its pre-training alone"),
    (rf"({re.escape(_QUERY)})?fc\..+", "projection head or classifier: the U-Net has a decoder instead"),
)

_SUMMED = "its three input channels summed to one: the same for grey repeated to three channels"


def from_resnet50(tensors: Mapping[str, Tensor]) -> Translated:
    """Translate the tensors of a MoCo v2 or torchvision ResNet-50.

    Args:
        tensors: by name, with or without the ``module.`` of PyTorch's wrappers; the stem has one or three channels.

    Returns:
        The encoder's tensors by our names, with a stem of one channel, and what became of each.

    Raises:
        RetinaError: for an unknown tensor, another depth than 50, or a stem that is missing or of other channels.
    """
    moco = any(stripped(name).startswith(_QUERY) for name in tensors)
    weights: dict[str, Tensor] = {}
    steps = []
    for name, tensor in tensors.items():
        target, done = _place(stripped(name), moco)
        if target is not None:
            weights[target] = tensor
        steps.append(Step(name, target, done))
    _check_depth(weights)
    if (channels := weights[STEM].shape[1]) not in (1, 3):
        raise RetinaError(f"its first convolution takes {channels} channels; expected one (grey) or three")
    if channels == 3:
        weights[STEM] = weights[STEM].sum(dim=1, keepdim=True)
        steps = [Step(step.source, STEM, _SUMMED) if step.target == STEM else step for step in steps]
    return Translated(UNetConfig(), weights, steps + _count_batches(weights))


def _place(name: str, moco: bool) -> tuple[str | None, str]:
    """Return our name of a tensor (None if it is dropped), and what is done with it or why it is dropped."""
    for pattern, reason in _DROPPED:
        if re.fullmatch(pattern, name):
            return None, reason
    inner = name.removeprefix(_QUERY) if moco else name
    if _RESNET.fullmatch(inner) and name.startswith(_QUERY) == moco:
        return ENCODER + inner, "copied"
    raise RetinaError(
        f"unknown tensor {name!r}: not a ResNet-50 by the names of torchvision, alone or as MoCo's query encoder"
    )


def _check_depth(weights: Mapping[str, Tensor]) -> None:
    if STEM not in weights or weights[STEM].ndim != 4:
        raise RetinaError(
            f"the first convolution (conv1.weight, which becomes {STEM}) is missing or no kernel of a 2D convolution: "
            "not a whole ResNet-50"
        )
    blocks = tuple(
        len({name.split(".")[3] for name in weights if name.startswith(f"{ENCODER}layer{stage}.")})
        for stage in range(1, 5)
    )
    bottlenecks = any(name.startswith(f"{ENCODER}layer1.0.conv3.") for name in weights)
    if blocks != BLOCKS or not bottlenecks:
        kind = "bottleneck" if bottlenecks else "basic"
        raise RetinaError(
            f"a ResNet with {', '.join(map(str, blocks))} {kind} blocks in its stages; expected a ResNet-50, which has "
            f"{', '.join(map(str, BLOCKS))} bottleneck blocks"
        )


def _count_batches(weights: dict[str, Tensor]) -> list[Step]:
    """Add the batch norms' counters, which old files lack and nothing here reads."""
    names = [name.replace("running_var", "num_batches_tracked") for name in weights if name.endswith("running_var")]
    missing = [name for name in names if name not in weights]
    weights.update({name: torch.tensor(0) for name in missing})
    return [Step(None, name, "0: a counter that nothing here reads") for name in missing]
