"""How a data set is scored: read from its ``dataset.json``, and put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.counts import SMOOTHING
from nnunetv2_retina.evaluation.metric import CREMI, FALSE_DISTANCES, SHARES, Metric
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet.labels import Labels, known_spacing
from nnunetv2_retina.protocol import BLOCK, Protocol

IGNORE = "ignore"


@dataclass(frozen=True)
class ScoredClass:
    """A class, or a region of several label values."""

    name: str
    values: tuple[int, ...]
    evaluated: bool = True
    """Whether it counts in the means."""


@dataclass(frozen=True)
class Rule:
    """What is counted, on what, and what is left out."""

    classes: tuple[ScoredClass, ...]
    ignore: int | None = None
    """Label value of the ground truth whose voxels count nowhere."""
    mask_rule: str = "none"
    """See ``Protocol.mask_rule``."""
    score_unit: str = "volume"
    """See ``Protocol.score_unit``."""
    tolerance: float | None = None
    """nm: see ``Protocol.distance_tolerance``."""
    pixel_size: tuple[float, float] | None = None
    """See ``Protocol.pixel_size``."""
    distances: bool = True
    """Whether to compute what needs distances, which takes most of the time."""

    @classmethod
    def from_dataset_json(
        cls, dataset_json: Mapping[str, Any], tolerance: float | None = None, distances: bool = True
    ) -> Rule:
        """Read the rule of a data set; plain scores where it has no ``retina`` block.

        Args:
            dataset_json: a loaded ``dataset.json``.
            tolerance: nm, instead of the data set's own.
            distances: False: without Mean False Distance and CREMI's scores.

        Raises:
            RetinaError: without usable labels, or for a block that does not fit them.
        """
        protocol = Protocol.from_dataset_json(dataset_json)
        table = _label_table(dataset_json)
        ignore = table.pop(IGNORE, None)
        evaluated = protocol.evaluated_classes
        classes = tuple(
            ScoredClass(name, values, evaluated is None or set(values) <= set(evaluated))
            for name, values in table.items()
            if values != (0,) or 0 in (evaluated or ())
        )
        unknown = set(evaluated or ()) - {value for values in table.values() for value in values}
        if unknown or not any(entry.evaluated for entry in classes):
            raise RetinaError(
                f'dataset.json: the labels are {dataset_json["labels"]}, and evaluated_classes (block "retina") is '
                f"{None if evaluated is None else list(evaluated)}; expected values of these labels (all those of a "
                "region), at least one class. Correct it there"
            )
        return cls(
            classes=classes,
            ignore=None if ignore is None else ignore[0],
            mask_rule=protocol.mask_rule,
            score_unit=protocol.score_unit,
            tolerance=protocol.distance_tolerance if tolerance is None else tolerance,
            pixel_size=protocol.pixel_size,
            distances=distances,
        )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics that are computed, in the order of tables."""
        if not self.distances:
            return SHARES
        return (*SHARES, *FALSE_DISTANCES, *(CREMI if self.tolerance is not None else ()))

    @property
    def values(self) -> frozenset[int]:
        """Return the label values that may occur, background included, the ignore label not."""
        return frozenset({0, *(value for entry in self.classes for value in entry.values)})

    def spacing(self, labels: Labels, path: Path) -> Spacing:
        """Return the spacing that CREMI's scores are computed with: the file's or, of PNG and the like, the data set's.

        Raises:
            RetinaError: if those scores are wanted, the file's format holds no spacing and the data set has none.
        """
        known = known_spacing(path.name, len(labels.array), labels.spacing, self.pixel_size)
        if known is None and self.distances and self.tolerance is not None:
            raise RetinaError(
                f"{path}: CREMI's scores are in nm, but such files hold no pixel size, and dataset.json has none "
                f'either; expected "pixel_size": [Y, X] (nm) in its block "{BLOCK}". Add it there (retina_convert '
                "--spacing does), or score without a tolerance"
            )
        return known or labels.spacing

    def sentences(self) -> list[str]:
        """Return the rule in words."""
        evaluated = ", ".join(_described(entry) for entry in self.classes if entry.evaluated)
        others = ", ".join(_described(entry) for entry in self.classes if not entry.evaluated)
        words = [f"classes in the means: {evaluated}" + (f"; scored, but not in the means: {others}" if others else "")]
        words.append(_UNITS[self.score_unit])
        if self.mask_rule != "none":
            words.append(_MASKS[self.mask_rule])
        if self.ignore is not None:
            words.append(f"voxels whose ground truth is {self.ignore} (ignore) are left out of everything")
        if self.tolerance is not None and self.distances:
            words.append(f"CREMI's scores: nm by the ground truth's spacing, tolerance {self.tolerance:g} nm")
        words.append("undefined values (0/0, no distance to an empty set) are left out of the means")
        return words


_UNITS = {
    "volume": "scores of a class over each whole case; mean over classes, then over cases",
    "slice": f"scores of a class in each image (slice), IoU as (I + {SMOOTHING:g}) / (U + {SMOOTHING:g}); mean over "
    "all images and classes",
}
_MASKS = {
    "foreground": "a prediction counts only where the ground truth is not background",
    "instance_match": "of a prediction count the connected components (corners connect) that share a voxel with the "
    "ground truth",
}


def _described(entry: ScoredClass) -> str:
    return f"{entry.name} ({', '.join(map(str, entry.values))})"


def _label_table(dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> label values, one for a plain class, several for a region."""
    labels = dataset_json.get("labels")
    table: dict[str, tuple[int, ...]] = {}
    for name, value in labels.items() if isinstance(labels, Mapping) else ():
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not values or not all(isinstance(number, int) and number >= 0 for number in values):
            raise RetinaError(f"dataset.json: label {name} is {value!r}; expected a whole number, or a list of them")
        table[str(name)] = values
    if not table:
        raise RetinaError(
            'dataset.json has no labels; expected "labels": {"background": 0, "mitochondrion": 1}. Is it nnU-Net\'s?'
        )
    return table
