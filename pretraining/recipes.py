"""The arms of a pre-training, which settings belong to which, and the named recipes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretraining.augmentation.draws import AugmentationSettings

ARMS = ("reconstruction", "distil", "masked", "simmim", "mae", "simclr")
BLANKING = ("distil", "masked", "simmim")
"""Arms that blank cells, of images or of crops."""
BELONGS: Mapping[str, tuple[str, ...]] = {
    "crop": BLANKING,
    "blanked": BLANKING,
    "block": BLANKING,
    "hide_skips": ("masked",),
    "restore": ("distil",),
    "decoder_blocks": ("mae",),
    "masked_loss": ("reconstruction",),
    "skip_drop": ("reconstruction",),
    "two_terms": ("reconstruction",),
}
"""Setting -> the arms that it belongs to; all others belong to every arm."""

_SHORT = {
    "batch_size": 16,
    "optimiser": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "warmup": 100.0,
    "schedule": "cosine",
    "clip": 1.0,
    "positions": "sine",
}
"""Of the recipes that are beyond the papers, for thousands of steps and not half a million."""
_NOISE = AugmentationSettings(
    rotation_p=0.0, crop_p=0.0, contrast_p=0.0, noise_p=1.0, noise_variance=(0.0, 400.0), blur_p=0.0, holes_p=0.0,
    normalisation="image",
)  # fmt: skip
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "published": {},
    "distil": {"arm": "distil", "crop": 112, "augmentation": _NOISE, **_SHORT},
    "masked": {"arm": "masked", "crop": 112, "augmentation": _NOISE, **_SHORT},
    "denoising": {"augmentation": replace(_NOISE, noise_variance=(400.0, 1200.0)), **_SHORT},
    # He et al. 2022, table 8: AdamW 1.5e-4 at batch 256, weight decay .05, 40 of 800 epochs of warm-up, cosine, crops
    # and flips alone, 8 blocks in the decoder, no dropout. EM images have no upper side: flips in both directions stay.
    "mae": {
        "arm": "mae",
        "optimiser": "adamw",
        "learning_rate": 1.5e-4,
        "rate_batch": 256,
        "weight_decay": 0.05,
        "warmup": 0.05,
        "schedule": "cosine",
        "positions": "sine",
        "decoder_blocks": 8,
        "dropout": 0.0,
        "augmentation": AugmentationSettings(rotation_p=0.0, crop_area=(0.2, 1.0), crop_aspect=(3 / 4, 4 / 3)),
    },
    # Chen et al. 2020, section 2: LARS .3 at batch 256, weight decay 1e-6, 10 epochs of warm-up, cosine; crops, flips,
    # strong contrast with probability .8 and blur with .5, nothing else.
    "simclr": {
        "arm": "simclr",
        "optimiser": "lars",
        "learning_rate": 0.3,
        "rate_batch": 256,
        "weight_decay": 1e-6,
        "warmup": 0.05,
        "schedule": "cosine",
        "augmentation": AugmentationSettings(
            rotation_p=0.0, crop_aspect=(3 / 4, 4 / 3), contrast_p=0.8, contrast=(-0.8, 0.8), noise_p=0.0, holes_p=0.0,
        ),
    },
}  # fmt: skip
"""Settings of each named recipe that differ from the published one's."""

OF_RECIPES = frozenset(name for settings in RECIPES.values() for name in settings)
"""Settings that one of them has."""


def recipe_of(arm: str | None) -> str:
    """Return the name of the recipe that an arm has by default: for the two dropped arms that of their own papers."""
    return arm if arm in ("mae", "simclr") else "published"


def belongs(setting: str, arm: str) -> bool:
    """Tell whether an arm has a setting."""
    return arm in BELONGS.get(setting, ARMS)


def values_for(recipe: str, arm: str) -> dict[str, Any]:
    """Return the settings of a named recipe that belong to an arm, which may be another than the recipe's own."""
    return {name: value for name, value in RECIPES[recipe].items() if belongs(name, arm)}
