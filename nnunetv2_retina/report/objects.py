"""One page about the objects of a prediction: how many, how large, of what shape, how far apart, how many are cut.

write_objects_page({"OUT": Path("OUT.zarr/objects.csv")}, Path("OUT.zarr/objects.html"))
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.display.histograms import Histogram, histograms
from nnunetv2_retina.display.pages import details, heading, html_page, notice, paragraph, picture, table
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import write_text
from nnunetv2_retina.images.spacing import NANOMETRES
from nnunetv2_retina.nnunet.labels import INSTANCES
from nnunetv2_retina.prediction.objects import table as tables
from nnunetv2_retina.prediction.objects.columns import COLUMNS, UNKNOWN, VOXELS

PAGE = "objects.html"
_NUMBERS = ("volume", "area", "length", "sphericity", "neighbour_distance")
_MOST_CASES, _MOST_GROUPS = 100, 30
_MICROMETRES = 1000.0
_FROM = {3: 1e6, 2: 1e5, 1: 1e3}
"""Power of nm -> from which median on values are shown in micrometres."""
_KEPT = ("whole objects", "cut by the border of the image: sizes too small")


@dataclass
class _Group:
    """The objects of one class, in one unit, of volumes or of images."""

    name: str
    unit: str
    flat: bool
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _NUMBERS})
    border: list[bool] = field(default_factory=list)

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the values of whole objects and of those that are cut, without empty ones."""
        values, border = np.array(self.values[name], float), np.array(self.border, bool)
        known = ~np.isnan(values)
        return values[known & ~border], values[known & border]


def folder_tables(folder: Path, cases: Iterable[str]) -> dict[str, Path]:
    """Return the tables that ``retina_predict --instances`` wrote for cases into a folder, by their names.

    Those that another part has not written yet are left out.
    """
    tables = {case: folder / f"{case}{INSTANCES}.csv" for case in cases}
    return {case: path for case, path in tables.items() if path.is_file()}


def write_objects_page(paths: Mapping[str, Path], output: Path) -> Path:
    """Write a page of histograms of objects: one HTML file that needs no other.

    Args:
        paths: case -> its table. One that cannot be read, such as an earlier version's, is named on the page.
        output: the file; it appears whole or not at all.

    Returns:
        The file's path.

    Raises:
        RetinaError: if it cannot be written.
    """
    groups: dict[tuple[str, str, bool], _Group] = {}
    cases, failures = [], []
    for name, path in paths.items():
        try:
            counts = _gather(path, groups)
        except RetinaError as error:
            failures.append(str(error))
            continue
        cases.append([name, f"{sum(counts):,}", _share(counts[1], sum(counts))])
    shown = sorted(groups.values(), key=lambda group: (group.name, not group.flat, group.unit))
    with tempfile.TemporaryDirectory() as scratch:
        page = html_page("Objects", _blocks(shown, cases, failures, Path(scratch)))
    return write_text(output, page, "Give another output")


def _gather(path: Path, groups: dict[tuple[str, str, bool], _Group]) -> tuple[int, int]:
    """Add the objects of a table to the groups; return how many are whole and how many are cut."""
    read = tables.read(path, ("class", "label", "unit", "touches_border", *_NUMBERS))
    for index, name in enumerate(read["class"]):
        flat = bool(read["area"][index])
        key = (name or f"label {read['label'][index]}", read["unit"][index], flat)
        group = groups.setdefault(key, _Group(*key))
        group.border.append(read["touches_border"][index] == "1")
        for number in _NUMBERS:
            group.values[number].append(float(read[number][index] or "nan"))
    cut = read["touches_border"].count("1")
    return len(read["class"]) - cut, cut


def _blocks(groups: Sequence[_Group], cases: list[list[str]], failures: list[str], scratch: Path) -> list[str]:
    total = sum(len(group.border) for group in groups)
    cut = sum(sum(group.border) for group in groups)
    lead = f"{total:,} objects in {len(cases):,} {'image' if len(cases) == 1 else 'images'}"
    blocks = [paragraph(f"{lead}; {_share(cut, total)} touch the border." if total else f"{lead}.")]
    blocks += [notice(f"Left out: {text}") for text in failures[:3]]
    if any(group.unit != NANOMETRES for group in groups):
        blocks.append(notice("The size of a voxel in nm is not known: docs/objects.md says how to give it."))
    if groups:
        blocks += [heading("Classes"), *_class_blocks(groups)]
        blocks += [heading("Distributions"), *_distribution_blocks(groups, scratch)]
    blocks += [heading("Images"), table(["image", "objects", "at the border"], cases[:_MOST_CASES])]
    if len(cases) > _MOST_CASES:
        blocks.append(paragraph(f"And {shorten(row[0] for row in cases[_MOST_CASES:])}."))
    meanings = [[column.name, column.unit, column.meaning] for column in COLUMNS]
    return [*blocks, details("What the columns of the tables mean", table(["column", "unit", "meaning"], meanings))]


def _class_blocks(groups: Sequence[_Group]) -> list[str]:
    rows = []
    for group in groups:
        size, length, apart = (_quartiles(group, name) for name in (_size(group), "length", "neighbour_distance"))
        border = _share(sum(group.border), len(group.border))
        distances = np.concatenate(group.column("neighbour_distance"))
        touching = _share(int(np.count_nonzero(distances == 0)), len(group.border))
        rows.append([_title(group, groups), f"{len(group.border):,}", border, touching, size, length, apart])
    header = ["class", "objects", "at the border", "touching another", "size", "length", "distance to the nearest"]
    text = "Sizes, lengths and distances: median and quartiles of the objects that do not touch the border."
    return [table(header, rows), paragraph(text)]


def _distribution_blocks(groups: Sequence[_Group], scratch: Path) -> list[str]:
    lines = {}
    for group in groups[:_MOST_GROUPS]:
        panels = []
        for name, logarithmic in ((_size(group), True), ("length", True), ("sphericity", False), (_NUMBERS[-1], False)):
            whole, cut = group.column(name)
            factor, unit = _shown_in(group, name)
            label = {"sphericity": "circularity" if group.flat else "sphericity", _NUMBERS[-1]: "to the nearest"}
            text = f"{label.get(name, name)}, {unit}" if unit else label.get(name, name)
            panels.append(Histogram(text, (whole / factor).tolist(), (cut / factor).tolist(), logarithmic))
        lines[_title(group, groups)] = panels
    plot = scratch / "histograms.png"
    histograms(plot, lines, _KEPT)
    left = "" if len(groups) <= _MOST_GROUPS else f" Not shown: {len(groups) - _MOST_GROUPS} more classes."
    text = "Size and length on logarithmic axes. Distances are from surface to surface, 0 for objects that touch."
    return [picture(plot, "Histograms of size, length, shape and distance, one line for each class"),
            paragraph(text + left)]  # fmt: skip


def _title(group: _Group, groups: Sequence[_Group]) -> str:
    """Return the class; with what else tells it from others of its name."""
    twins = [other for other in groups if other.name == group.name]
    if len(twins) == 1:
        return group.name
    return f"{group.name} ({'2D' if group.flat else '3D'}, {group.unit})"


def _size(group: _Group) -> str:
    return "area" if group.flat else "volume"


def _shown_in(group: _Group, name: str) -> tuple[float, str]:
    """Return what values of a column are divided by, and their unit."""
    power = {"volume": 3, "area": 2, "sphericity": 0}.get(name, 1)
    if not power:
        return 1.0, ""
    unit = {UNKNOWN: "unit of the spacing", VOXELS: "voxels"}.get(group.unit, group.unit)
    mark = {1: "", 2: "\u00b2", 3: "\u00b3"}[power]
    if group.unit == VOXELS:
        mark, unit = "", "pixels" if group.flat else "voxels"
    values = np.concatenate(group.column(name))
    if group.unit == NANOMETRES and len(values) and float(np.median(values)) >= _FROM[power]:
        return _MICROMETRES**power, f"\u00b5m{mark}"
    return 1.0, f"{unit}{mark}"


def _quartiles(group: _Group, name: str) -> str:
    whole, _ = group.column(name)
    if not len(whole):
        return "-"
    factor, unit = _shown_in(group, name)
    low, middle, high = np.percentile(whole / factor, (25, 50, 75))
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
