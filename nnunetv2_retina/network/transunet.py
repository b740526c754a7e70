"""2D TransUNet: ResNet-V2 features -> vision transformer -> cascaded upsampler with skips -> one head.

Chen et al., TransUNet (2021), as RETINA uses it (Xing et al., PLoS Comput Biol 21(5):e1013115, 2025, Methods) for both
of its stages: reconstruction (one output channel) and segmentation (one a class). What differs from the authors' code:
any image of 16 px and more, position embeddings interpolated to the token grid, fused attention, one head.
Needs torch alone. Published weights: ``nnunetv2_retina.weights.published.from_published``.

Shapes: B batch, C channels, H, W pixels, h = H/16, w = W/16, N = h*w tokens, D = embed_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_retina.network.config import NetworkConfig
from nnunetv2_retina.network.resnet_v2 import ResNetV2

STRIDE = 16
"""Pixels a token stands for, along each axis."""


class PatchEmbedding(nn.Module):
    """CNN features to tokens: 1 x 1 convolution, learned position embeddings, dropout."""

    def __init__(self, in_channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.proj = nn.Conv2d(in_channels, config.embed_dim, 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid_size**2, config.embed_dim))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Turn (B, C, h, w) into (B, N, D), row by row."""
        x = self.proj(features)
        tokens: Tensor = self.dropout(x.flatten(2).transpose(1, 2) + self._positions(x.shape[-2], x.shape[-1]))
        return tokens

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the learned grid as (1, height * width, D), bicubically interpolated to another token grid."""
        if (height, width) == (self.grid_size, self.grid_size):
            return self.pos_embed
        grid = self.pos_embed.transpose(1, 2).reshape(1, -1, self.grid_size, self.grid_size)
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return grid.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with separate q, k, v and output layers, through PyTorch's fused kernel."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, D / heads)
            for layer in (self.query, self.key, self.value)
        )
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Mlp(nn.Module):
    """Linear -> GELU -> dropout -> linear -> dropout."""

    def __init__(self, embed_dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))
        return y


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = Mlp(config.embed_dim, config.mlp_dim, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Transformer(nn.Module):
    """The blocks and the final norm: what RETINA transfers and freezes."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn (B, N, D) into (B, N, D)."""
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that can be told how many images it sees together in training."""

    together: int | None = None
    """So many consecutive images have a mean and a variance of their own, as if they were a batch; None: all."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.together is None or len(x) <= self.together:
            return super().forward(x)
        return torch.cat([nn.BatchNorm2d.forward(self, part) for part in x.split(self.together)])


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a 3 x 3 convolution without bias, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), BatchNorm(out_channels), nn.ReLU()
    )


class DecoderBlock(nn.Module):
    """Bilinear x 2, concatenate the skip, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels + skip_channels, out_channels)
        self.conv2 = conv_bn_relu(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        y: Tensor = self.conv2(self.conv1(x))
        return y


class Decoder(nn.Module):
    """Cascaded upsampler and the head, whose keys contain ``.seg_layers.`` so that nnU-Net's loader skips them."""

    def __init__(self, config: NetworkConfig, skip_channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = (config.bottleneck_channels, *config.decoder_channels)
        self.bottleneck = conv_bn_relu(config.embed_dim, config.bottleneck_channels)
        self.blocks = nn.ModuleList(
            DecoderBlock(channels[i], skip, channels[i + 1]) for i, skip in enumerate((*skip_channels, 0))
        )
        self.seg_layers = nn.ModuleList([nn.Conv2d(channels[-1], num_classes, 3, padding=1)])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Turn (B, D, h, w) and the skips, deepest first, into (B, num_classes, H, W)."""
        x = self.bottleneck(x)
        for i, block in enumerate(self.blocks):
            x = block(x, skips[i] if i < len(skips) else None)
        logits: Tensor = self.seg_layers[0](x)
        return logits


def mirror_to_stride(image: Tensor) -> Tensor:
    """Mirror (B, C, H, W) at its lower and right border, up to sides that are multiples of 16."""
    height, width = image.shape[-2:]
    bottom, right = -height % STRIDE, -width % STRIDE
    return F.pad(image, (0, right, 0, bottom), mode="reflect") if bottom or right else image


class TransUNet(nn.Module):
    """Image to logits (or to the reconstructed image) of the same size.

    Args:
        in_channels: channels of the image. One grey channel is repeated to the three that the published stem expects.
        num_classes: output channels.
        config: the sizes; the published fine-tuning sizes by default.

    Raises:
        ValueError: if a channel count is below 1.
    """

    # Where nnU-Net's own pre-training tools look for the parts of an architecture.
    key_to_encoder = "cnn.stages"
    key_to_stem = "cnn.stem"
    keys_to_in_proj = ("cnn.stem.0",)
    key_to_lpe = "embedding.pos_embed"

    def __init__(self, in_channels: int, num_classes: int, config: NetworkConfig | None = None) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels ({in_channels}) and num_classes ({num_classes}) must be at least 1")
        self.in_channels = in_channels
        self.config = config or NetworkConfig()
        stem_inputs = 3 if in_channels == 1 else in_channels
        self.cnn = ResNetV2(stem_inputs, self.config.stem_channels, self.config.cnn_units)
        self.embedding = PatchEmbedding(self.cnn.out_channels, self.config)
        self.transformer = Transformer(self.config)
        self.decoder = Decoder(self.config, self.cnn.skip_channels, num_classes)

    def _three_channels(self, image: Tensor) -> Tensor:
        """Mirror an image up to a multiple of the stride, and repeat grey three times."""
        image = mirror_to_stride(image)
        return image.expand(-1, 3, -1, -1) if self.in_channels == 1 else image

    def forward(self, image: Tensor, skip_factors: Tensor | None = None) -> Tensor:
        """Compute the logits.

        Args:
            image: (B, in_channels, H, W) float, normalised; H, W >= 16, equal or not, multiples of 16 or not (the
                image is mirrored at its lower and right border up to the next multiple, the output cropped back).
            skip_factors: (B, 3) float, what each image's skip connections are multiplied with, deepest first; None:
                nothing. Pre-training can switch skips off with it.

        Returns:
            (B, num_classes, H, W) float32, under autocast too.

        Raises:
            ValueError: for another number of axes or channels, or an image smaller than 16 x 16.
        """
        self._check(image)
        height, width = image.shape[-2:]
        features, skips = self.cnn(self._three_channels(image))
        if skip_factors is not None:
            skips = [skip * skip_factors[:, i, None, None, None] for i, skip in enumerate(skips)]
        tokens = self.transformer(self.embedding(features))
        grid = tokens.transpose(1, 2).unflatten(2, features.shape[-2:])
        logits: Tensor = self.decoder(grid, skips)
        return logits[..., :height, :width].float()

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"got an image of shape {tuple(image.shape)}; "
                f"expected (batch, {self.in_channels} channels, height, width)"
            )
        if min(image.shape[-2:]) < STRIDE:
            raise ValueError(
                f"got an image of {image.shape[-2]} x {image.shape[-1]} pixels; both sides must be at least {STRIDE}"
            )
