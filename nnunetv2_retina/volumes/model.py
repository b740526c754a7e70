"""What a model must be to predict a volume part by part, and the spacing that it was trained at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.nnunet.labels import known_spacing
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.protocol import Protocol


def check(predictor: Predictor) -> None:
    """Check that a model can predict a volume part by part.

    Raises:
        RetinaError: for several channels, turned axes, or normalisation by a mask.
    """
    if predictor.channels != 1:
        raise RetinaError(
            f"the model takes {predictor.channels} channels; a volume has one. Predict files with retina_predict"
        )
    configuration = predictor.nnunet.configuration_manager
    if list(predictor.nnunet.plans_manager.transpose_forward) != [0, 1, 2]:
        raise RetinaError(
            "the model was planned with its axes turned (transpose_forward of plans.json); expected z, y, x. Predict "
            "files with retina_predict"
        )
    if configuration.use_mask_for_norm[0]:
        raise RetinaError(
            "the model normalises inside the non-zero mask (use_mask_for_norm of plans.json), which needs the whole "
            "volume at once. Predict files with retina_predict"
        )


def plan_spacing(predictor: Predictor) -> Spacing | None:
    """Return the spacing that the model was trained at (y and x; z is not resampled); see ``trained_spacing``."""
    return trained_spacing(
        predictor.nnunet.dataset_json,
        predictor.nnunet.plans_manager.image_reader_writer_class.__name__,
        predictor.nnunet.configuration_manager.spacing,
    )


def trained_spacing(contents: Mapping[str, Any], reader: str, spacing: Sequence[float]) -> Spacing | None:
    """Return the spacing of a configuration, nm where the data set says so.

    Args:
        contents: of dataset.json.
        reader: name of the class that reads the data set's images.
        spacing: of the plans, (y, x) or (z, y, x); z is 1 if it is left out.

    Returns:
        None if neither the data set's files nor its block ``retina`` state one.
    """
    protocol = Protocol.from_dataset_json(dict(contents))
    z, y, x = (float(step) for step in (*([1.0] * (3 - len(spacing))), *spacing))
    planes = 1 if reader == "NaturalImage2DIO" else 2
    stated = Spacing(z, y, x, NANOMETRES if protocol.spacing_unit == NANOMETRES else None)
    return known_spacing(str(contents["file_ending"]), planes, stated, protocol.pixel_size)
