"""N5 volumes, as Janelia's data sets are stored (OpenOrganelle, FlyEM, Paintera); tensorstore reads their arrays.

N5 lists axes x first, here they are z first. A volume is an array, or a group of arrays s0, s1, ..., finest first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, one_line
from nnunetv2_retina.images.box import AXES

ATTRIBUTES = "attributes.json"
_LEVEL = re.compile(r"s\d+")


def is_n5(address: str | Path) -> bool:
    """Tell whether an address is meant as N5: by the store that it lies in, or by what its folder holds."""
    text = str(address).rstrip("/")
    stores = [part for part in text.split("/") if part.endswith((".n5", ".zarr"))]
    inside = bool(stores) and stores[-1].endswith(".n5") and not Path(text).is_file()
    return inside or (Path(text) / ATTRIBUTES).is_file()


def import_tensorstore() -> Any:
    """Return the module tensorstore.

    Raises:
        RetinaError: if it is not installed.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise RetinaError(f'N5 volumes need tensorstore ({error}). Run: pip install "nnunetv2-retina[n5]"') from error
    return tensorstore


class N5Array:
    """An array, opened for reading: z, y, x, after other axes if there are any.

    Blocks that are not there are 0, as N5 has it.

    Raises:
        ValueError: for attributes that tensorstore does not read, and on reading for a damaged block.
    """

    def __init__(self, address: str) -> None:
        store = import_tensorstore()
        with _short_errors():
            self._array = store.open({"driver": "n5", "kvstore": _kvstore(address)}, open=True, read=True).result().T
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        self.dtype: np.dtype[Any] = self._array.dtype.numpy_dtype
        self.chunks: tuple[int, ...] = tuple(self._array.chunk_layout.read_chunk.shape)

    def __getitem__(self, part: Any) -> NDArray[Any]:
        with _short_errors():
            values: NDArray[Any] = self._array[part].read().result()
            return values


@contextmanager
def _short_errors() -> Iterator[None]:
    """Cut tensorstore's account of its settings off its errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).partition(" [tensorstore_spec")[0].partition(": ")[2] or str(error)) from error


class N5:
    """A place in an N5 container: an array or a group.

    Raises:
        RetinaError: if there is nothing.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._store = _opened(address)
        self.attributes = self._read("")
        self.paths = sorted(self._arrays())
        if not self.attributes and not self.paths:
            raise RetinaError(f"no N5 volume {address}: it has neither {ATTRIBUTES} nor arrays in it. Check the path")

    @property
    def is_array(self) -> bool:
        """Whether it is an array, not a group of them."""
        return "dimensions" in self.attributes

    def levels(self) -> list[str]:
        """Return the paths of the levels, finest first; none where the group is no pyramid."""
        return sorted((path for path in self.paths if _LEVEL.fullmatch(path)), key=lambda path: int(path[1:]))

    def of(self, path: str) -> dict[str, Any]:
        """Return the attributes of an array in it."""
        return self._read(f"{path}/")

    def _read(self, prefix: str) -> dict[str, Any]:
        try:
            content = self._store.read(f"{prefix}{ATTRIBUTES}").result()
            contents = json.loads(content.value) if content.state == "value" else {}
        except ValueError as error:
            place = f"{self.address}/{prefix}{ATTRIBUTES}"
            raise RetinaError(f"{place} cannot be read ({one_line(error)}). Copy the volume anew") from error
        return contents if isinstance(contents, dict) else {}

    def _arrays(self) -> Iterable[str]:
        """Yield the paths of arrays in it; only their names are listed, which takes no time where blocks are many."""
        folder = Path(self.address)
        if not folder.is_dir():  # a URL: the levels that a pyramid must have
            number = 0
            while "dimensions" in self.of(f"s{number}"):
                yield f"s{number}"
                number += 1
            return
        if self.is_array:
            return
        waiting = [folder]
        while waiting:
            for inside in sorted(path for path in waiting.pop().iterdir() if path.is_dir()):
                path = inside.relative_to(folder).as_posix()
                if "dimensions" in self.of(path):
                    yield path
                else:
                    waiting.append(inside)


def _kvstore(address: str) -> Any:
    return address.rstrip("/") + "/" if "://" in address else {"driver": "file", "path": f"{Path(address).absolute()}/"}


def _opened(address: str) -> Any:
    store = import_tensorstore()
    try:
        return store.KvStore.open(_kvstore(address)).result()
    except Exception as error:  # stores raise whatever their file system does
        raise RetinaError(f"{address} cannot be opened ({one_line(error)}). Check the address") from error


@dataclass(frozen=True)
class Stated:
    """What attributes say of where the voxels of a level are, along z, y and x."""

    steps: tuple[float, ...]
    start: tuple[float, ...]
    """The middle of the first voxel."""
    units: tuple[str, ...]


def stated_place(level: Mapping[str, Any], group: Mapping[str, Any], number: int) -> Stated | None:
    """Return the size of a voxel and the place of the first one, as the conventions in use state them.

    In this order: COSEM's ``transform``; n5-viewer's ``pixelResolution`` (of the finest level, times
    ``downsamplingFactors``), of the array or its group; Paintera's ``resolution`` and ``offset``, which have no unit.
    The last two mean by a coarser voxel the middle of those that it stands for (n5-universe's
    ``N5SingleScaleMetadataParser.buildTransform``).

    Args:
        level: attributes of the array.
        group: of the group that it is a level of.
        number: of the level, 0 the finest.

    Raises:
        KeyError, TypeError, ValueError: for attributes that are no such thing.
    """
    if level.get("transform") is not None:
        return _cosem(level["transform"])
    holder = level if "pixelResolution" in level or "resolution" in level else group
    base = holder.get("pixelResolution", holder.get("resolution"))
    if base is None:
        return None
    own = level.get("downsamplingFactors")
    listed = group.get("scales", group.get("downsamplingFactors"))
    factors = own or (listed[number] if listed is not None and holder is group else (1, 1, 1))
    if holder is group and own is None and listed is None and number:
        return None  # of the finest level alone
    sizes, unit = (base["dimensions"], base.get("unit", "")) if isinstance(base, Mapping) else (base, "")
    offset = (0, 0, 0) if "pixelResolution" in holder else holder.get("offset", (0, 0, 0))
    axes = [
        (float(size) * float(factor), float(at) + float(size) * (float(factor) - 1) / 2)
        for size, factor, at in zip(_three(sizes), _three(factors), _three(offset), strict=True)
    ]
    steps, start = zip(*reversed(axes), strict=True)
    return Stated(steps, start, (str(unit),) * 3)


def _cosem(transform: Mapping[str, Any]) -> Stated:
    names = list(transform["axes"])
    place = [names.index(axis) for axis in AXES]
    units, start = transform.get("units") or [""] * len(names), transform.get("translate") or [0] * len(names)
    return Stated(
        tuple(float(transform["scale"][index]) for index in place),
        tuple(float(start[index]) for index in place),
        tuple(str(units[index]) for index in place),
    )


def _three(values: Sequence[Any]) -> Sequence[Any]:
    if len(values) < 3:
        raise ValueError(f"{values} has not three numbers")
    return values[:3]
