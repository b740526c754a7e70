"""What a new data set takes over from an earlier one, so that a model of that one can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.nnunet.datasets import class_names, find_dataset_json, ignored_value, read_dataset_json
from nnunetv2_retina.protocol import BLOCK, Protocol

_OF_ITS_CASES = ("groups", "folds", "spacing_unit", "pixel_size")


@dataclass(frozen=True)
class Settings:
    """Of an earlier data set."""

    labels: Mapping[int | str, str]
    """Mask value -> class name."""
    ignore: int | None
    """Mask value of what is not annotated."""
    spacing: Spacing | None
    """Of its 2D images, whose files hold none."""
    unit: str | None
    """Of the spacing in its 3D images, whose files do not say."""
    protocol: Protocol
    """How it is trained; without what names its cases."""
    stated: frozenset[str]
    """Names of the settings that its dataset.json states."""


def settings_of(dataset: str | Path) -> Settings:
    """Return what to take over from a data set, or a model of it.

    Args:
        dataset: its ID, name or folder; or the folder of a model or of predictions, which has its dataset.json.

    Raises:
        RetinaError: if it is not found, or trained on regions, which masks cannot say.
    """
    path = find_dataset_json(dataset)
    contents = read_dataset_json(path)
    if any(isinstance(value, (list, tuple)) for value in contents["labels"].values()):
        raise RetinaError(f"{path} has regions, not classes; expected one value a class. Name them with --labels")
    protocol = Protocol.from_dataset_json(contents)
    size = protocol.pixel_size
    left_out: dict[str, Any] = dict.fromkeys(_OF_ITS_CASES)
    return Settings(
        {value: name for value, name in class_names(contents).items()},
        ignored_value(contents),
        None if size is None else Spacing.of(size, NANOMETRES),
        protocol.spacing_unit,
        replace(protocol, **left_out),
        frozenset(contents.get(BLOCK, {})) - left_out.keys(),
    )
