"""How far a run is, from its journal alone: from another terminal, or another machine that sees the folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nnunetv2_retina.console.wording import duration, format_bytes, format_rows
from nnunetv2_retina.images.levels import Volume
from nnunetv2_retina.volumes.blocks import Shape, cut, describe
from nnunetv2_retina.volumes.journal import Journal
from nnunetv2_retina.volumes.tasks import COUNT, PREDICT, RESCALE

RECENT = 600
"""Seconds of the past that the rate is taken from."""


def status(output: Path) -> list[str]:
    """Return lines that say what is done of an output.

    Raises:
        RetinaError: if it is no output.
    """
    journal = Journal(output)
    plan = journal.run()["plan"]
    shape, block = _shape(plan["shape"]), _shape(plan["block"])
    todo = {item.name: item for item in cut(shape, block)}
    lines = [f"{output}: {describe(shape)} voxels of {plan['input']}, level {plan['path'] or 'of the array'}"]
    stage = RESCALE if (journal.folder / "done" / RESCALE).is_dir() else PREDICT
    markers, verb = journal.markers(stage), "written" if stage == RESCALE else "predicted"
    if not markers:
        lines.append(f"moments: {len(journal.markers(COUNT))} blocks counted")
    lines.append(f"{verb}: {len(markers)} of {len(todo)} blocks of {describe(block)}{_pace(markers, len(todo))}")
    for other in sorted(path.name for path in (journal.folder / "done").glob("*")):
        if other not in (COUNT, stage):
            lines.append(f"{other}: {len(journal.markers(other))} blocks")
    for failure in journal.failures():
        lines.append(f"failed: {failure['stage']} of the block at {failure['block']}: {failure['error']}")
    return lines


def _pace(markers: list[dict[str, Any]], total: int) -> str:
    """Return the rate of the last minutes and the time that is left by it."""
    left = total - len(markers)
    recent = [marker for marker in markers if marker["ended"] > time.time() - RECENT]
    if not left or not recent:
        return ""
    first = min(marker["ended"] - marker["seconds"] for marker in recent)
    rate = len(recent) / max(1e-3, max(marker["ended"] for marker in recent) - first)
    hosts = sorted({str(marker["host"]) for marker in recent})
    return f", {60 * rate:.3g} a minute on {', '.join(hosts)}, {duration(left / rate)} left"


def _shape(values: list[int]) -> Shape:
    z, y, x = values
    return z, y, x


def describe_volume(volume: Volume) -> list[str]:
    """Return a table of a volume's levels."""
    version = f"OME-Zarr {volume.version}" if volume.version else "a Zarr array without OME metadata"
    rows = [("level", "voxels (z, y, x)", "spacing", "type", "chunks", "size")]
    for level in volume.levels:
        unit = f" {level.spacing.unit}" if level.spacing.unit else " (no unit)"
        rows.append((
            level.path or ".", describe(level.shape), " x ".join(f"{step:g}" for step in level.spacing) + unit,
            level.dtype, describe(level.chunks), format_bytes(level.nbytes),
        ))  # fmt: skip
    return [f"{volume.address}: {version}", *format_rows(rows)]
