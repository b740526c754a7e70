"""Parts of images and volumes, as they are typed: ``z0:z1,y0:y1,x0:x1``."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_retina.errors import RetinaError

Box = tuple[slice, slice, slice]
"""Slices along z, y and x, with both ends."""
AXES = ("z", "y", "x")


def parse_box(text: str, shape: tuple[int, int, int], option: str = "--box") -> Box:
    """Return the box that ``z0:z1,y0:y1,x0:x1`` means; an end that is left out is the volume's.

    Args:
        text: as it was typed.
        shape: of the volume.
        option: that it was typed for, for the message.

    Raises:
        RetinaError: if it is spelled otherwise, empty, or not inside the volume.
    """
    z, y, x = parse_part(text, shape, option)
    return z, y, x


def parse_part(text: str, shape: Sequence[int], option: str = "--box") -> tuple[slice, ...]:
    """Return the part of an image of two or three axes that ``y0:y1,x0:x1`` means; see ``parse_box``."""
    axes = AXES[-len(shape) :]
    form, sides = ",".join(f"{axis}0:{axis}1" for axis in axes), " x ".join(map(str, shape))
    fault = f"{option} {text}; expected {form} inside {sides} voxels ({', '.join(axes)})"
    parts = text.split(",")
    if len(parts) != len(shape) or any(part.count(":") != 1 for part in parts):
        raise RetinaError(fault)
    box = []
    for part, n in zip(parts, shape, strict=True):
        first, last = (end.strip() for end in part.split(":"))
        if any(end and not end.isdecimal() for end in (first, last)):
            raise RetinaError(fault)
        ends = (int(first or 0), int(last or n))
        if not 0 <= ends[0] < ends[1] <= n:
            raise RetinaError(fault)
        box.append(slice(*ends))
    return tuple(box)
