"""Reading OME-Zarr volumes (0.4 and 0.5), Zarr arrays without OME metadata, and N5, part by part.

Axes are z, y and x; a channel or time axis before them may have one entry. The metadata are checked by
``images.ome_metadata``, plain JSON as they are, so that no library of models is needed; zarr itself is imported when a
volume is opened.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.images.box import AXES, Box
from nnunetv2_retina.images.levels import ORIGIN, Level, Volume, checked, digest_of, respaced
from nnunetv2_retina.images.n5 import N5Array, is_n5
from nnunetv2_retina.images.n5_volume import n5_volume
from nnunetv2_retina.images.ome_metadata import image_of, levels_of
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing


class StoredArray:
    """One level, opened for reading.

    Raises:
        RetinaError: if it is no longer there.
    """

    def __init__(self, address: str, level: Level) -> None:
        path = f"{address.rstrip('/')}/{level.path}" if level.path else address
        try:
            self.array: Any = N5Array(path) if is_n5(path) else import_zarr().open_array(path, mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RetinaError(f"{path} can no longer be opened ({_reason(error)}). Is a drive not mounted?") from error
        """Of zarr or ``images.n5``, with the axes before z."""
        self.level = level
        self.path = path

    def read(self, box: Box) -> NDArray[Any]:
        """Return (z, y, x) of a part, in the byte order of this machine.

        Raises:
            RetinaError: if it cannot be read or decoded.
        """
        try:
            values = np.asarray(self.array[(0,) * self.level.leading + tuple(box)])
        except Exception as error:  # codecs and remote stores raise whatever they do
            place = ", ".join(f"{axis} {part.start}:{part.stop}" for axis, part in zip(AXES, box, strict=True))
            raise RetinaError(
                f"{self.path}: {place} cannot be read ({_reason(error)}). Copy that part of the volume anew, or leave "
                "it out with --box"
            ) from error
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def import_zarr() -> Any:
    """Return the module zarr.

    Raises:
        RetinaError: if it is not there or too old, saying what to install.
    """
    try:
        import zarr

        major, minor = (int(part) for part in zarr.__version__.split(".")[:2])
    except ImportError as error:
        raise RetinaError(f"OME-Zarr volumes need zarr 3.1 ({error}). {_install()}") from error
    if (major, minor) < (3, 1):
        raise RetinaError(f"OME-Zarr volumes need zarr 3.1; installed is {zarr.__version__}. {_install()}")
    return zarr


def _install() -> str:
    if sys.version_info < (3, 11):
        return f"It needs Python 3.11; this is {sys.version_info[0]}.{sys.version_info[1]}: make a newer environment"
    return 'Run: pip install "nnunetv2-retina[volumes]"'


def is_zarr(path: str | Path) -> bool:
    """Tell whether a path is meant as a Zarr or N5 store: by its name, or by the metadata that its folder holds."""
    text = str(path).rstrip("/")
    return (
        text.endswith(".zarr")
        or is_n5(text)
        or any((Path(text) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    )


def volume_stem(path: Path) -> str:
    """Return the name of a store without its ending."""
    return path.name.removesuffix(".zarr").removesuffix(".n5")


def open_volume(
    address: str | Path,
    spacing: Sequence[float] | None = None,
    unstated: Sequence[float] | None = None,
    option: str = "--spacing",
) -> Volume:
    """Open a volume's metadata.

    Args:
        address: a folder, or a URL that fsspec opens, of an OME-Zarr image or a Zarr array; or of N5 (tensorstore).
        spacing: nm along z, y and x of the finest level, for a volume whose metadata do not state it or state it wrong.
        unstated: taken for an array without metadata, instead of refusing it.
        option: of the command that gives ``spacing``, for messages.

    Raises:
        RetinaError: for anything that is not a volume of grey levels along z, y and x.
    """
    address = str(address).rstrip("/")
    advice = f"{option} Z,Y,X in nm"
    if is_n5(address):
        return n5_volume(address, spacing, unstated, advice)
    node = _open(address)
    if not hasattr(node, "members"):
        return _bare(address, node, spacing or unstated, advice)
    attributes, version = dict(node.attrs), "0.4"
    if isinstance(attributes.get("ome"), Mapping):
        attributes, version = attributes["ome"], "0.5"
    if "multiscales" not in attributes:
        instead = _instead(address, attributes, node, advice)
        raise RetinaError(f"{address} is a Zarr group without OME-Zarr's multiscales. {instead}")
    image = image_of(address, attributes)
    version = str(attributes.get("version", image.get("version", version)))
    levels = levels_of(address, node, image)
    if spacing is not None:
        levels = respaced(levels, spacing)
    return Volume(address, version, levels, digest_of(attributes, levels))


def _open(address: str) -> Any:
    zarr = import_zarr()
    folder = Path(address)
    if "://" not in address and not folder.is_dir():
        what = "that is a file" if folder.exists() else "no such folder"
        raise RetinaError(f"no Zarr volume {address}: {what}")
    try:
        return zarr.open(address, mode="r")
    except ImportError as error:
        raise RetinaError(f"{address} cannot be opened ({error}). Install what it names") from error
    except Exception as error:  # stores raise whatever their file system does
        raise RetinaError(
            f"{address} is no Zarr volume that can be read ({_reason(error)}). Give the folder that holds zarr.json, "
            ".zgroup or .zarray, or N5's attributes.json"
        ) from error


def _bare(address: str, array: Any, spacing: Sequence[float] | None, advice: str) -> Volume:
    if spacing is None:
        raise RetinaError(f"{address} is a Zarr array without OME metadata. Add {advice}")
    level = checked(address, "", array, Spacing.of(spacing, NANOMETRES), ORIGIN)
    return Volume(address, None, (level,), digest_of({}, (level,)))


def _instead(address: str, attributes: Mapping[str, Any], node: Any, advice: str) -> str:
    if "bioformats2raw.layout" in attributes:
        return f"Its images lie in it: give {address}/0"
    arrays = sorted(name for name, _ in node.arrays())
    inside = f"It holds the arrays {shorten(arrays)}: g" if arrays else "G"
    return f"{inside}ive an array as {address}/{arrays[0] if arrays else 'NAME'} with {advice}"


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
