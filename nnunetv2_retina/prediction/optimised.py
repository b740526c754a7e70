"""A trained network arranged for prediction: what depends on the weights alone is computed once."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nnunetv2_retina.network.resnet_v2 import StdConv2d


@torch.no_grad()
def optimised(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a trained network that computes the same, up to roundings of float32, in less time.

    Kernels of RETINA's CNN are standardised once instead of at every call, batch norms go into the convolutions before
    them (Jacob et al., CVPR 2018, 3.2), and on a processor what had such parts works channels-last
    (``benchmarks/inference.py network``). Networks without such parts are copied as they are.

    Args:
        network: in any mode; not changed.
        device: where it will predict.
    """
    changed = copy.deepcopy(network).eval()
    folded = False
    for module in list(changed.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, StdConv2d):
                setattr(module, name, _standardised(child))
                folded = True
        if isinstance(module, nn.Sequential):
            folded |= _fold(module)
    if folded and device.type == "cpu":
        changed = changed.to(memory_format=torch.channels_last)
    return changed.to(device).requires_grad_(False)


def _standardised(convolution: StdConv2d) -> nn.Conv2d:
    """Return a plain convolution with the standardised kernels."""
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]  # torch types the argument more narrowly than the attribute
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        bias=False,
        device="meta",
    )
    plain.weight = nn.Parameter(convolution.kernel())
    return plain


def _fold(layers: nn.Sequential) -> bool:
    """Fold each batch norm into the convolution right before it; return whether there was one."""
    folded = False
    for i, (first, second) in enumerate(pairwise(layers)):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d) and second.track_running_stats:
            layers[i], layers[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
            folded = True
    return folded
