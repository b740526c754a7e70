"""nnU-Net's normalisation and last layer as operations of the BioImage Model Zoo (bioimageio.spec 0.5, ``model``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2_retina.errors import RetinaError

Operation = dict[str, Any]
_EPSILON = 1e-6
"""The zoo's default, which bioimageio.core 0.11 uses whatever a package says. nnU-Net's is 1e-8."""
_SCHEMES = ("ZScoreNormalization", "NoNormalization", "CTNormalization", "RGBTo01Normalization")


def preprocessing(plan: Mapping[str, Any], intensities: Mapping[str, Any]) -> list[Operation]:
    """Return the operations that do to a slice what nnU-Net's preprocessor does, resampling and cropping apart.

    Args:
        plan: the configuration, of plans.json.
        intensities: ``foreground_intensity_properties_per_channel`` of plans.json.

    Raises:
        RetinaError: for a normalisation that the zoo has no operation for, or that differs between channels.
    """
    schemes = plan["normalization_schemes"]
    if any(plan["use_mask_for_norm"]):
        raise RetinaError(
            "the model normalises inside the non-zero mask (use_mask_for_norm of plans.json), which no operation of "
            "the zoo does. Share it with retina_share hub"
        )
    if len(set(schemes)) != 1 or schemes[0] not in _SCHEMES:
        raise RetinaError(
            f"the model's normalisation is {', '.join(schemes)}; the zoo has operations for one of "
            f"{', '.join(_SCHEMES)}, the same for all channels. Share it with retina_share hub"
        )
    if schemes[0] == "ZScoreNormalization":
        return [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"], "eps": _EPSILON}}]
    if schemes[0] == "RGBTo01Normalization":
        return [{"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}]
    if schemes[0] == "CTNormalization":
        return _clipped_and_fixed([intensities[str(channel)] for channel in range(len(schemes))])
    return []


def _clipped_and_fixed(channels: list[Mapping[str, float]]) -> list[Operation]:
    if len(channels) > 1:
        raise RetinaError(
            "the model clips each channel at values of its own (CTNormalization), and the zoo clips all at the same. "
            "Share it with retina_share hub"
        )
    (of,) = channels
    return [
        {"id": "clip", "kwargs": {"min": float(of["percentile_00_5"]), "max": float(of["percentile_99_5"])}},
        {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": float(of["mean"]), "std": float(of["std"])}},
    ]


def postprocessing(regions: bool) -> list[Operation]:
    """Return what turns logits into probabilities: of each region by itself, or of classes that exclude each other."""
    return [{"id": "sigmoid"}] if regions else [{"id": "softmax", "kwargs": {"axis": "channel"}}]
