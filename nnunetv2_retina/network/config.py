"""The sizes of a TransUNet, and those that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

LARGEST = 8192
"""Greatest number in a ``NetworkConfig``: a file that says more is not believed."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a TransUNet.

    Raises:
        ValueError: if the sizes do not fit together.
    """

    embed_dim: int = 192
    mlp_dim: int = 768
    depth: int = 12
    """Transformer blocks."""
    num_heads: int = 12
    grid_size: int = 14
    """Side of the token grid that the position embeddings are learned on: 14 for 224 px."""
    stem_channels: int = 64
    """Width of the convolutional half: its stages have 4, 8 and 16 times as many channels."""
    cnn_units: tuple[int, int, int] = (3, 4, 9)
    bottleneck_channels: int = 512
    """Channels that the tokens are turned into before the first upsampling."""
    decoder_channels: tuple[int, int, int, int] = (256, 128, 64, 16)
    dropout: float = 0.1
    """After the position embeddings and twice in each MLP. There is none in the attention, as published."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cnn_units", tuple(self.cnn_units))
        object.__setattr__(self, "decoder_channels", tuple(self.decoder_channels))
        for name, value in asdict(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if name != "dropout" and not all(type(number) is int and 1 <= number <= LARGEST for number in numbers):
                raise ValueError(f"{name} is {value!r}; expected whole numbers from 1 to {LARGEST}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim ({self.embed_dim}) must be divisible by num_heads ({self.num_heads})")
        if self.stem_channels % 32:
            raise ValueError(f"stem_channels ({self.stem_channels}) must be divisible by the 32 groups of its norm")
        if len(self.cnn_units) != 3 or len(self.decoder_channels) != 4:
            raise ValueError(
                f"cnn_units must have 3 entries and decoder_channels 4; got {self.cnn_units}, {self.decoder_channels}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout ({self.dropout}) must lie in [0, 1)")

    @classmethod
    def named(cls, name: str) -> NetworkConfig:
        """Return the sizes of a name.

        Args:
            name: ``retina`` (the published fine-tuning sizes, 22 M parameters), ``base`` (the published pre-training
                sizes and the ImageNet checkpoints, 105 M) or ``tiny`` (1 M: tests and the quickstart).

        Raises:
            ValueError: for another name.
        """
        if name not in SIZES:
            raise ValueError(f"unknown network size {name!r}; there are {', '.join(SIZES)}")
        return SIZES[name]

    @property
    def name(self) -> str | None:
        """Return the size's name, whatever its position grid and dropout; None for sizes without one."""
        for name, config in SIZES.items():
            if replace(self, grid_size=config.grid_size, dropout=config.dropout) == config:
                return name
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, for JSON files and checkpoints."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Build the sizes from what ``to_dict`` returns.

        Raises:
            ValueError: for an unknown field.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown network settings {', '.join(unknown)}: written by a newer version?")
        return cls(**values)


SIZES = {
    "retina": NetworkConfig(),
    "base": NetworkConfig(embed_dim=768, mlp_dim=3072),
    "tiny": NetworkConfig(
        embed_dim=96,
        mlp_dim=192,
        depth=2,
        num_heads=4,
        stem_channels=32,
        cnn_units=(1, 1, 1),
        bottleneck_channels=128,
        decoder_channels=(64, 48, 32, 16),
    ),
}
