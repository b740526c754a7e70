"""Map the values in a user's masks to the consecutive label values that nnU-Net wants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dataset_conversion.readers.pixels import check_values, integer_label
from dataset_conversion.readers.slabs import Array, Volume, mapped
from dataset_conversion.spec import BACKGROUND, IGNORE
from nnunetv2_retina.errors import RetinaError, shorten

ANY = "any"
MAX_FOUND_CLASSES = 32
LabelNames = Mapping[int | str, str]
"""Mask value, or ``any`` for every other value, -> class name."""


@dataclass(frozen=True)
class MaskMap:
    """Which mask value becomes which label."""

    labels: Mapping[str, int]
    """Class name -> label value, as ``DatasetSpec.labels``."""
    values: Mapping[int, int]
    """Mask value -> label value."""
    rest: int | None = None
    """Label of every mask value that is not in ``values``; None: such a value is an error."""

    @property
    def changes(self) -> bool:
        """Tell whether any declared value is stored as another."""
        return self.rest is not None or any(value != label for value, label in self.values.items())

    def apply(self, mask: Volume, case: str) -> Volume:
        """Return the mask with nnU-Net's label values.

        Args:
            mask: any shape and number type.
            case: name for the error text.

        Returns:
            uint8 or uint16 (more than 255 labels), of the same shape.

        Raises:
            RetinaError: for a value that is not declared.
        """
        mask = integer_label(mask, case)
        if self.rest is None:
            check_values(mask, self.values, case, partial(_advice, self))
        dtype = np.dtype(np.uint8 if max(self.labels.values()) < 256 else np.uint16)
        return mapped(mask, lambda _, slab: self._stored(slab, dtype), dtype)

    def _stored(self, slab: Array, dtype: np.dtype[Any]) -> Array:
        result = np.full(slab.shape, self.rest or 0, dtype)
        for value, label in self.values.items():
            if label or self.rest:
                result[slab == value] = label
        return result

    def describe(self) -> str:
        """Return, for example, ``50 -> 1 (mitochondria), 255 -> 2 (ignore)``."""
        names = {label: name for name, label in self.labels.items()}
        pairs = [f"{value} -> {label} ({names[label]})" for value, label in self.values.items()]
        if self.rest is not None:
            pairs.append(f"every other value -> {self.rest} ({names[self.rest]})")
        return ", ".join(pairs)


def parse_labels(items: Sequence[str]) -> dict[int | str, str]:
    """Parse ``["1=mitochondria", "any=cell"]`` into ``{1: "mitochondria", "any": "cell"}``

    Raises:
        RetinaError: for an item that is not ``VALUE=NAME``, or a value given twice.
    """
    result: dict[int | str, str] = {}
    for item in items:
        text, separator, name = item.partition("=")
        text, name = text.strip(), name.strip()
        if not separator or not name or not (text == ANY or text.lstrip("-").isdecimal()):
            raise RetinaError(f"label {item!r}; expected VALUE=NAME with a whole number, such as 1=mitochondria")
        value: int | str = ANY if text == ANY else int(text)
        if value in result:
            raise RetinaError(f"label value {value} is given twice: {result[value]} and {name}. Give each value once.")
        result[value] = name
    return result


def declared_map(names: LabelNames, ignore: int | None = None) -> MaskMap:
    """Return the map for labels that a user has named; values of one name become one class.

    Args:
        names: mask value -> class name; a value named ``background`` takes the place of 0.
        ignore: mask value of unannotated voxels.

    Raises:
        RetinaError: if a value has two meanings, or no class is left.
    """
    background = [value for value, name in names.items() if name == BACKGROUND] or [0]
    if names.get(0, BACKGROUND) != BACKGROUND and background == [0]:
        raise RetinaError(
            f"label 0={names[0]}; 0 is the background unless another value is. Say which, such as 255=background."
        )
    if IGNORE in names.values() or ignore in names:
        raise RetinaError("unannotated voxels are declared with --ignore VALUE alone, not as a label. Remove it there.")
    numbers = sorted(value for value in names if isinstance(value, int) and value not in background)
    ordered = [names[value] for value in numbers] + ([names[ANY]] if ANY in names else [])
    labels = {BACKGROUND: 0}
    for name in ordered:
        labels.setdefault(name, len(labels))
    values = {int(value): 0 for value in background if value != ANY}
    values |= {value: labels[names[value]] for value in numbers}
    rest = labels[names[ANY]] if ANY in names else None
    if ignore is not None:
        if ignore in values:
            raise RetinaError(f"value {ignore} is the background and --ignore; expected one meaning. Correct one.")
        labels[IGNORE] = values[ignore] = len(labels)
    if len([name for name in labels if name not in (BACKGROUND, IGNORE)]) == 0:
        raise RetinaError("no class but background is declared. Name at least one, such as --labels 1=mitochondria.")
    return MaskMap(labels, values, rest)


def with_ignore(mask_map: MaskMap) -> MaskMap:
    """Return a map whose labels have a value for what is not annotated, also where no mask value stands for it."""
    labels = dict(mask_map.labels)
    labels.setdefault(IGNORE, len(labels))
    return replace(mask_map, labels=labels)


def found_map(
    present: Collection[int], ignore: int | None = None, together: bool = True
) -> tuple[MaskMap, tuple[str, ...]]:
    """Return the map for masks whose labels were not named: ``label_1``, ``label_2``, ... and 0/255 as 0/1.

    Args:
        present: every value in any mask.
        ignore: mask value of unannotated voxels.
        together: whether any single mask holds both 1 and 255.

    Returns:
        The map, and remarks.

    Raises:
        RetinaError: if the values do not tell the classes; the text gives the option to type.
    """
    classes = sorted(set(present) - {0, ignore})
    if not classes:
        raise RetinaError(
            f"the masks hold no class: only {shorten(sorted(present))}. Expected 1, 2, ... (or 255) for the objects. "
            "Are these the right files?"
        )
    if classes == [255]:
        return declared_map({255: "label_1"}, ignore), ("the masks hold 0 and 255: 255 was taken as class 1 (label_1)",)
    consecutive = classes == list(range(1, len(classes) + 1))
    if len(classes) > MAX_FOUND_CLASSES:
        raise RetinaError(
            f"the masks hold {len(classes)} values ({shorten(classes)}). If each is one object, make them one class: "
            "--labels any=NAME. If they are classes, name them: --labels 1=NAME 2=NAME. If these are grey images, the "
            "masks are elsewhere."
        )
    if not consecutive:
        raise RetinaError(_gaps(sorted(present), classes, together))
    names: dict[int | str, str] = {value: f"label_{value}" for value in classes}
    return declared_map(names, ignore), ("labels named after their values; choose names with --labels 1=NAME ...",)


def _gaps(present: list[int], classes: list[int], together: bool) -> str:
    """Say what to type for values with gaps between them."""
    if classes == [1, 255] and not together:
        return (
            "some masks hold 0 and 1, others 0 and 255, none both; expected one value for a class. If both are the "
            "same class: --labels 1=NAME 255=NAME. If 255 is unannotated: --labels 1=NAME --ignore 255"
        )
    unannotated = [value for value in classes if value < 0 or value == 255]
    hints = [f" {value} often marks unannotated voxels: then add --ignore {value}." for value in unannotated]
    example = " ".join(f"{value}=NAME" for value in classes if value not in unannotated) or f"{classes[0]}=NAME"
    return (
        f"the masks hold the values {shorten(present, MAX_FOUND_CLASSES)}; expected 0, 1, 2, ... without gap, or their "
        f"names: --labels {example}. If each value is one object: --labels any=NAME.{''.join(hints)}"
    )


def _advice(mask_map: MaskMap, counts: Mapping[int, int]) -> str:
    """Say what to type for an undeclared value of a mask, from its voxels of each value."""
    only = [name for name in mask_map.labels if name not in (BACKGROUND, IGNORE)]
    hint = f" For a 0/255 mask write --labels 255={only[0]}." if max(counts) == 255 and len(only) == 1 else ""
    return f"Name it (--labels VALUE=NAME), declare it unannotated (--ignore VALUE) or correct the mask.{hint}"
