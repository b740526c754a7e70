"""What a converter hands to the writer: the description of a data set, and its cases one by one. Without NumPy."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.protocol import Protocol

if TYPE_CHECKING:
    from dataset_conversion.readers.palettes import Colours
    from dataset_conversion.readers.slabs import Volume

BACKGROUND = "background"
IGNORE = "ignore"
SPLITS = ("train", "test")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Case:
    """One image or volume with its annotation.

    Raises:
        RetinaError: for a name nnU-Net cannot use, an unknown split or a training case without label.
    """

    name: str
    """Unique in the data set; letters, digits, ``_`` and ``-``."""
    image: Volume
    """(Y, X) or (Z, Y, X), any integer or float type, grey levels as they are; an array, or ``Slabs`` of a file."""
    label: Volume | None = None
    """Axes of the image; values of ``DatasetSpec.labels`` in any integer type, or whole numbers as float."""
    spacing: Spacing | None = None
    """Size of a voxel along each axis of the image; None: 1 along each."""
    split: str = "train"
    """``train`` or ``test``; only test cases may lack a label."""
    group: str | None = None
    """Name of the volume a training case was cut from; goes to ``Protocol.groups``."""
    source: str | None = None
    """Original name, for the report."""
    remarks: tuple[str, ...] = ()
    """What was decided on reading this case, for the report."""
    colours: Colours = field(default_factory=dict)
    """What the mask's file shows for its values; all cases' must agree."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RetinaError(
                f"case name {self.name!r}: expected letters, digits, '_' and '-', beginning with a letter or digit. "
                "Rename it."
            )
        if self.split not in SPLITS:
            raise RetinaError(f"case {self.name}: split is {self.split!r}; expected one of {', '.join(SPLITS)}")
        if self.split == "train" and self.label is None:
            raise RetinaError(f"case {self.name}: a training case needs a label. Give one, or make it a test case.")


@dataclass(frozen=True)
class DatasetSpec:
    """Everything about a data set but its cases.

    Raises:
        RetinaError: for an ID, name or label table nnU-Net does not accept, or a protocol that does not fit the labels.
    """

    id: int
    """1 to 999."""
    name: str
    """The part after ``Dataset123_``."""
    labels: Mapping[str, int]
    """Class name -> value: ``background`` 0, classes 1, 2, ... without gap, ``ignore`` (optional) the highest."""
    source: str = ""
    """Where the data came from: a folder, an address."""
    channel_name: str = "EM"
    """nnU-Net normalises a channel of any name by z-score, but ``CT``, ``noNorm`` and ``rescale_to_0_1`` otherwise."""
    protocol: Protocol = field(default_factory=Protocol)
    stated: Collection[str] = ()
    """Settings of the protocol that ``dataset.json`` states although they are the defaults."""
    description: str = ""
    reference: str = ""
    licence: str = ""
    remarks: tuple[str, ...] = ()
    """What was decided for the data set as a whole, for the report."""
    benchmark: bool = False
    """A published benchmark: ``dataset.json`` states every setting, defaults too, and a sheet of slices is drawn."""

    def __post_init__(self) -> None:
        dataset_folder_name(self.id, self.name)
        check_labels(self.labels)
        self._check_protocol()

    @property
    def folder_name(self) -> str:
        """Return, for example, ``Dataset801_CREMI``."""
        return dataset_folder_name(self.id, self.name)

    @property
    def ignore_value(self) -> int | None:
        """Return the value that nnU-Net leaves out of loss and scores; None if there is none."""
        return self.labels.get(IGNORE)

    def label_name(self, value: int) -> str:
        """Return the name of a declared label value."""
        return next(name for name, declared in self.labels.items() if declared == value)

    def _check_protocol(self) -> None:
        classes = [value for name, value in self.labels.items() if name != IGNORE]
        weights, evaluated = self.protocol.class_weights, self.protocol.evaluated_classes
        if weights is not None and len(weights) != len(classes):
            raise RetinaError(
                f"protocol: {len(weights)} class weights for {len(classes)} classes "
                f"({', '.join(name for name in self.labels if name != IGNORE)}). Give one each, background first."
            )
        if evaluated is not None and not set(evaluated) <= set(classes):
            raise RetinaError(f"protocol: evaluated_classes {list(evaluated)}; the labels are {sorted(classes)}")


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """Return, for example, ``Dataset801_CREMI``.

    Raises:
        RetinaError: for an ID or name nnU-Net does not accept.
    """
    if not isinstance(dataset_id, int) or isinstance(dataset_id, bool) or not 1 <= dataset_id <= 999:
        raise RetinaError(f"data set ID is {dataset_id!r}; expected a whole number from 1 to 999")
    if not _NAME.fullmatch(name):
        raise RetinaError(
            f"data set name is {name!r}; expected letters, digits, '_' and '-', beginning with a letter or digit"
        )
    return f"Dataset{dataset_id:03d}_{name}"


def check_labels(labels: Mapping[str, int]) -> None:
    """Check a label table against nnU-Net's rules.

    Raises:
        RetinaError: unless ``background`` is 0, the values are 0, 1, 2, ... each once, and ``ignore`` is the highest.
    """
    shown = ", ".join(f"{name}={value}" for name, value in labels.items()) or "none"
    rule = "Expected background=0, then classes 1, 2, 3, ... without gap, and ignore (if any) as the highest value."
    if not all(map(_is_whole_number, labels.values())):
        raise RetinaError(f"labels {shown}: a value is not a whole number. {rule}")
    if any(not isinstance(name, str) or not name.strip() for name in labels):
        raise RetinaError(f"labels {shown}: a class has no name. {rule}")
    if labels.get(BACKGROUND) != 0:
        raise RetinaError(f"labels {shown}: background is not 0. {rule}")
    if sorted(labels.values()) != list(range(len(labels))):
        raise RetinaError(f"labels {shown}: the values are not consecutive. {rule}")
    if IGNORE in labels and labels[IGNORE] != max(labels.values()):
        raise RetinaError(f"labels {shown}: ignore is not the highest value. {rule}")
    if not any(name not in (BACKGROUND, IGNORE) for name in labels):
        raise RetinaError(f"labels {shown}: there is no class but background. {rule}")


def _is_whole_number(value: object) -> bool:
    """Tell whether it is an integer; NumPy's count too."""
    return isinstance(value, Integral) and not isinstance(value, bool)
