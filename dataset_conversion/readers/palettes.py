"""Masks with colour palettes, whose indices are the label values: an index must mean one colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping

from dataset_conversion.readers.pixels import count_values
from dataset_conversion.readers.slabs import Array, Volume
from nnunetv2_retina.errors import RetinaError

Colours = Mapping[int, str]
"""Value of a mask -> the colour, such as ``#ff0000``, that its file shows for it."""


def colours_of(mask: Volume, palette: Array) -> Colours:
    """Return the colours of the values that occur in a mask; ``palette`` is (N, 3) uint8."""
    return {value: hexadecimal(palette[value]) for value in count_values(mask) if value < len(palette)}


def hexadecimal(colour: Array) -> str:
    """Return (3,) uint8 as text, such as ``#ff0000``."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def note_colours(known: dict[int, tuple[str, str]], colours: Colours, where: str) -> None:
    """Add a mask's colours to those known: value -> colour, and where it was seen first.

    Raises:
        RetinaError: if a value is known with another colour. Programs that write only the colours that are present
            number them anew in every file.
    """
    for value, colour in colours.items():
        first, earlier = known.setdefault(value, (colour, where))
        if first != colour:
            raise RetinaError(
                f"{where}: its mask's palette shows {value} as {colour}, that of {earlier} as {first}; expected one "
                "palette for all masks, whose indices are the label values. Export them with one, or as grey values"
            )
