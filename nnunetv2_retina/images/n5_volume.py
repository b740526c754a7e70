"""N5 volumes opened: an array, or a group of arrays that is a pyramid; see ``images.n5``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.levels import ORIGIN, Level, Point, Volume, checked, digest_of, respaced, shifted
from nnunetv2_retina.images.n5 import N5, N5Array, Stated, stated_place
from nnunetv2_retina.images.ome_metadata import placed
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing


def n5_volume(address: str, spacing: Sequence[float] | None, unstated: Sequence[float] | None, advice: str) -> Volume:
    """Open an N5 array, or a group of them; arguments as for ``ome_zarr.open_volume``.

    Args:
        address: of the array or group.
        spacing: nm along z, y and x of the finest level.
        unstated: taken where nothing states it.
        advice: the option that gives the spacing, for the message.

    Raises:
        RetinaError: for what is no such volume.
    """
    if "://" not in address and not Path(address).is_dir():
        raise RetinaError(f"no N5 volume {address}: {'that is a file' if Path(address).exists() else 'no such folder'}")
    node = N5(address)
    paths = [""] if node.is_array else node.levels()
    if not paths:
        inside = f"{address}/{node.paths[0].rpartition('/')[0] or node.paths[0]}" if node.paths else "another folder"
        raise RetinaError(f"{address} holds no levels s0, s1, ... but {shorten(node.paths)}. Give {inside}")
    levels: list[Level] = []
    known = False
    for number, path in enumerate(paths):
        own, group = (node.attributes, {}) if node.is_array else (node.of(path), node.attributes)
        array, stated = _read(f"{address}/{path}".rstrip("/"), own, group, number)
        known = known or stated is not None
        steps, origin = _place(address, stated, levels, array, spacing or unstated, advice)
        levels.append(checked(address, path, array, steps, origin))
    found = tuple(levels) if spacing is None else respaced(tuple(levels), spacing)
    return Volume(address, "N5" if known else None, found, digest_of(node.attributes, found))


def _read(place: str, own: Mapping[str, Any], group: Mapping[str, Any], number: int) -> tuple[N5Array, Stated | None]:
    try:
        return N5Array(place), stated_place(own, group, number)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RetinaError(
            f"{place}: its attributes cannot be read ({type(error).__name__}: {reason}). Write them anew, or the "
            "volume as OME-Zarr"
        ) from error


def _place(
    address: str,
    stated: Stated | None,
    finer: Sequence[Level],
    array: N5Array,
    given: Sequence[float] | None,
    advice: str,
) -> tuple[Spacing, Point]:
    """Return the size of a level's voxels and where the first one is: as stated, by the finest level, or as given."""
    if stated is not None:
        return placed(address, stated.steps, stated.start, stated.units)
    if finer:  # coarser by how many voxels it has
        finest, lengths = finer[0], (1, 1, 1, *array.shape)[-3:]
        factors = [max(1, round(n / max(1, fewer))) for n, fewer in zip(finest.shape, lengths, strict=True)]
        steps = [step * factor for step, factor in zip(finest.spacing, factors, strict=True)]
        middle = [(factor - 1) / 2 for factor in factors]
        return Spacing.of(steps, finest.spacing.unit), shifted(finest.origin, finest.spacing, middle)
    if given is not None:
        return Spacing.of(given, NANOMETRES), ORIGIN
    raise RetinaError(f"{address} is an N5 volume without the size of its voxels. Add {advice}")
