"""3D TransUNet, encoder-only: nnU-Net's U-Net with a vision transformer on its last feature map (Chen et al. 2023).

"3D TransUNet: Advancing Medical Image Segmentation through Vision Transformers", arXiv 2310.07781; the authors' code is
Beckschen/3D-TransUNet (nn_transunet/networks/transunet3d_model.py, ``is_max_bottleneck_transformer`` without the
transformer decoder). Encoder and decoder are nnU-Net's own, of the sizes that it planned. What differs from that code:
no layer scale, no deep supervision, position embeddings interpolated to the token grid. Sizes are the authors': 12
blocks, embed_dim 768, mlp_dim 3072, 12 heads (85 M parameters beside the U-Net's), patch size 1.

Shapes: B batch, C channels, D, H, W voxels; d, h, w the last feature map; N = d*h*w tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_retina.network.config import NetworkConfig
from nnunetv2_retina.network.transunet import Transformer

TRANSFORMERS: Mapping[str, Mapping[str, Any]] = {
    "base": {"embed_dim": 768, "mlp_dim": 3072, "depth": 12, "num_heads": 12, "dropout": 0.1},
    "tiny": {"embed_dim": 48, "mlp_dim": 96, "depth": 2, "num_heads": 4, "dropout": 0.1},
}
"""Sizes of the transformer: the published one, and one for tests."""


def total_strides(strides: Sequence[Sequence[int]]) -> list[int]:
    """Return the voxels that a place of the last feature map stands for along each axis, from the stages' strides."""
    return [prod(axis) for axis in zip(*strides, strict=True)]


class Bottleneck(nn.Module):
    """The last feature map through the transformer and back.

    Args:
        channels: of the feature map.
        grid: sides of the token grid that the position embeddings are learned on.
        transformer: embed_dim, mlp_dim, depth, num_heads and dropout.
    """

    def __init__(self, channels: int, grid: Sequence[int], transformer: Mapping[str, Any]) -> None:
        super().__init__()
        config = NetworkConfig(**transformer)
        self.grid = tuple(grid)
        self.proj = nn.Conv3d(channels, config.embed_dim, 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, prod(self.grid), config.embed_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.back = nn.Conv3d(config.embed_dim, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Turn (B, C, d, h, w) into (B, C, d, h, w)."""
        x = self.proj(features)
        tokens = self.dropout(x.flatten(2).transpose(1, 2) + self._positions(tuple(x.shape[2:])))
        y: Tensor = self.back(self.transformer(tokens).transpose(1, 2).unflatten(2, x.shape[2:]))
        return y

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        """Return the learned grid as (1, N, embed_dim), trilinearly interpolated to another token grid."""
        if grid == self.grid:
            return self.pos_embed
        learned = self.pos_embed.transpose(1, 2).reshape(1, -1, *self.grid)
        return F.interpolate(learned, size=grid, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)


class TransUNet3D(nn.Module):
    """Volume to logits of the same size. nnU-Net builds it from the plans of ``PlainConvUNet`` and two entries more.

    Args:
        input_channels: channels of the volume.
        num_classes: output channels.
        transformer: see ``TRANSFORMERS``.
        grid: sides of the last feature map of a training patch.
        n_conv_per_stage_decoder: as in the plans.
        deep_supervision: must be False; the network has one output.
        encoder: the other arguments of ``PlainConvEncoder``, as in the plans.

    Raises:
        ValueError: with deep supervision, or sizes of a transformer that do not fit together.
    """

    # Where nnU-Net's own pre-training tools look for the parts of an architecture.
    key_to_encoder = "encoder.stages"
    key_to_stem = "encoder.stages.0"
    keys_to_in_proj = ("encoder.stages.0.0.convs.0.conv", "encoder.stages.0.0.convs.0.all_modules.0")
    key_to_lpe = "bottleneck.pos_embed"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        transformer: Mapping[str, Any],
        grid: Sequence[int],
        n_conv_per_stage_decoder: int | Sequence[int],
        deep_supervision: bool = False,
        **encoder: Any,
    ) -> None:
        super().__init__()
        if deep_supervision:
            raise ValueError("deep_supervision is True; the 3D TransUNet has one output, so it must be False")
        self.encoder = PlainConvEncoder(input_channels, **encoder, return_skips=True)
        self.decoder = UNetDecoder(
            self.encoder,
            num_classes,
            n_conv_per_stage_decoder,
            deep_supervision=False,
            nonlin_first=encoder.get("nonlin_first", False),
        )
        self.decoder.seg_layers = nn.ModuleList([self.decoder.seg_layers[-1]])  # the others would get no gradient
        self.bottleneck = Bottleneck(self.encoder.output_channels[-1], grid, transformer)
        self.strides = total_strides(self.encoder.strides)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            volume: (B, input_channels, D, H, W) float, normalised; sides of any length (the far border of each axis is
                repeated up to a multiple of the network's stride, the output cropped back).

        Returns:
            (B, num_classes, D, H, W) float32, under autocast too.
        """
        depth, height, width = volume.shape[2:]
        back, bottom, right = (-side % stride for side, stride in zip(volume.shape[2:], self.strides, strict=True))
        if back or bottom or right:
            volume = F.pad(volume, (0, right, 0, bottom, 0, back), mode="replicate")
        skips = self.encoder(volume)
        logits: Tensor = self.decoder([*skips[:-1], self.bottleneck(skips[-1])])
        return logits[..., :depth, :height, :width].float()

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a convolution as nnU-Net does, which applies this to every module of the networks it builds."""
        InitWeights_He(1e-2)(module)
