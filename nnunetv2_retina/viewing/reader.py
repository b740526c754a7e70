"""Reads what this package writes into napari: predictions and labels of data sets, with their classes' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnunetv2_retina.images.ome_zarr import is_zarr
from nnunetv2_retina.nnunet.datasets import DATASET_JSON, LABELS_TR, LABELS_TS
from nnunetv2_retina.viewing.in_napari import LayerData

_ARGUMENTS = "predict_from_raw_data_args.json"
"""Written beside predictions by ``retina_predict`` and ``nnUNetv2_predict``."""


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return the reader of a file or volume of labels that this package or nnU-Net wrote; None for all others."""
    paths = [path] if isinstance(path, str) else path
    return read if paths and all(_is_ours(Path(one)) for one in paths) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Return a layer for each file.

    Raises:
        RetinaError: for a file that cannot be read.
    """
    return [layer for one in ([path] if isinstance(path, str) else path) for layer in _read(one)]


def _read(path: str) -> list[LayerData]:
    from nnunetv2_retina.viewing import in_napari
    from nnunetv2_retina.viewing.scene import read_labels, spacing_of

    if is_zarr(path):
        return [in_napari.volume_layer(path, labels=True)]
    return [in_napari.label_layer(read_labels(path), spacing_of(path))]


def _is_ours(path: Path) -> bool:
    if is_zarr(path):
        from nnunetv2_retina.viewing.scene import names_beside

        return bool(names_beside(path)[0])
    from dataset_conversion.readers.images import SUPPORTED, file_suffix

    if not path.is_file() or file_suffix(path) not in SUPPORTED:
        return False
    folder = path.absolute().parent
    if folder.name in (LABELS_TR, LABELS_TS):
        return (folder.parent / DATASET_JSON).is_file()
    return (folder / DATASET_JSON).is_file() and (folder / _ARGUMENTS).is_file()
