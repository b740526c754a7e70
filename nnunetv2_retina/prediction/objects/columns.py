"""The columns of a table of objects: the one home of what each means. Imports nothing heavy.

``docs/objects.md`` and the file beside each table (``objects.json``) are made from ``COLUMNS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

UNKNOWN, VOXELS = "unknown", "voxels"


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    unit: str
    """``unit`` stands for the content of the column of that name; empty: a number or name without a unit."""
    decimals: int | None
    """Digits after the point; below 0: so many significant digits; None: whole numbers and names as they are."""
    meaning: str


COLUMNS = (
    Column("id", "", None, "value of the object in the image of instances"),
    Column("label", "", None, "value of its class in the labels"),
    Column("class", "", None, "name of its class"),
    Column("voxels", "voxels", None, "number of its voxels (2D: pixels)"),
    Column(
        "unit", "", None,
        "unit of the lengths in this row: nm; unknown: that of the image's spacing, which names none; voxels: the "
        "image has no spacing",
    ),
    Column("volume", "unit^3", -6, "voxels times the size of one; empty in 2D"),
    Column(
        "surface", "unit^2", -6,
        "area of the surface by Crofton's formula: crossings of the border along the 13 directions between adjoining "
        "voxels, weighted by the solid angle that each stands for; empty in 2D",
    ),
    Column("area", "unit^2", -6, "pixels times the size of one; empty in 3D"),
    Column("perimeter", "unit", -6, "length of the border by Crofton's formula, along 4 directions; empty in 3D"),
    Column("diameter", "unit", -6, "of the ball (2D: disc) of the same volume: (6 V / pi)^(1/3), 2 (A / pi)^(1/2)"),
    Column("length", "unit", -6, "largest distance between two corners of its voxels (maximum Feret diameter)"),
    Column(
        "sphericity", "", 3,
        "surface of the ball of the same volume over the surface: pi^(1/3) (6 V)^(2/3) / S; in 2D circularity, "
        "4 pi A / P^2; 1 for a ball or disc, less for everything else, but for rounding of small ones",
    ),
    Column(
        "elongation", "", 3,
        "longest over shortest axis of the ellipsoid (2D: ellipse) with the same second moments; 1 for a ball or cube",
    ),
    Column("z", "voxels", 1, "centre: mean of its voxels, the first slice being 0"),
    Column("y", "voxels", 1, "the same along rows"),
    Column("x", "voxels", 1, "the same along columns"),
    Column("centre_z", "unit", -9, "centre, from the first voxel's middle (volumes: their metadata's 0); empty in 2D"),
    Column("centre_y", "unit", -9, "the same along rows"),
    Column("centre_x", "unit", -9, "the same along columns"),
    Column("z0", "voxels", None, "bounding box: first slice"),
    Column("z1", "voxels", None, "one past its last slice"),
    Column("y0", "voxels", None, "first row"),
    Column("y1", "voxels", None, "one past its last row"),
    Column("x0", "voxels", None, "first column"),
    Column("x1", "voxels", None, "one past its last column"),
    Column("neighbour", "", None, "id of the nearest other object, of any class; the lowest of equally near ones"),
    Column(
        "neighbour_distance", "unit", -6,
        "from surface to surface of the voxels of the two; 0 if they touch, corners included; empty for a lone object",
    ),
    Column(
        "touches_border", "", None,
        "1 if a voxel lies at the image's border, where the object may go on: its sizes are then too small; else 0. In "
        "2D the borders of the image",
    ),
)  # fmt: skip
NAMES = tuple(column.name for column in COLUMNS)


def dictionary() -> dict[str, Any]:
    """Return the data dictionary, as it is written beside a table."""
    return {
        "about": "One row for each object; see docs/objects.md of nnunetv2-retina. Empty cells do not apply.",
        "columns": {column.name: {"unit": column.unit, "meaning": column.meaning} for column in COLUMNS},
    }


def markdown() -> str:
    """Return the columns as the table of ``docs/objects.md``."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{column.name}` | {column.unit} | {column.meaning} |" for column in COLUMNS]
    return "\n".join(lines) + "\n"
