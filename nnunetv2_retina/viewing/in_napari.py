"""Scenes and volumes as layers of napari. napari is imported when a window is opened; its layers need none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_retina.display.slider import LabelLayer
from nnunetv2_retina.images.levels import Volume
from nnunetv2_retina.images.ome_zarr import StoredArray, open_volume
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.viewing.scene import Scene, names_beside

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return: array, keywords of the layer, kind."""


def scene_layers(scene: Scene) -> list[LayerData]:
    """Return an image and its labels as layers, with names, colours and voxel size."""
    place = placement(scene.spacing)
    return [
        (scene.image, {"name": scene.name, **place}, "image"),
        *(label_layer(layer, scene.spacing) for layer in scene.layers),
    ]


def label_layer(layer: LabelLayer, spacing: Spacing | None) -> LayerData:
    """Return labels as a layer: classes in our colours, with their names in the status bar; objects in napari's."""
    about: dict[str, Any] = {"name": layer.name, "opacity": 0.5, **placement(spacing)}
    if layer.objects:
        return layer.values, about, "labels"
    names = layer.names()
    about["colormap"] = {None: "transparent", 0: "transparent", **layer.colours()}
    about["features"] = {"index": [0, *names], "class": ["background", *names.values()]}
    return layer.values, about, "labels"


def placement(spacing: Spacing | None) -> dict[str, Any]:
    """Return scale and units of a layer; nothing where the voxel size is not known."""
    if spacing is None:
        return {}
    return {"scale": tuple(spacing), **({"units": (spacing.unit,) * len(spacing)} if spacing.unit else {})}


def volume_layer(path: str, labels: bool = False) -> LayerData:
    """Return a Zarr volume as a layer of all its resolutions, of which napari reads what it shows.

    Raises:
        RetinaError: if it cannot be opened.
    """
    volume = open_volume(path, unstated=(1, 1, 1))
    finest, levels = volume.levels[0], _levels(volume)
    place: dict[str, Any] = {"translate": finest.origin, **({"multiscale": True} if len(levels) > 1 else {})}
    values: Any = levels if len(levels) > 1 else levels[0]
    if not labels:
        return values, {"name": volume.name, **placement(finest.spacing), **place}, "image"
    names, ignore = names_beside(Path(path))
    values, about, kind = label_layer(LabelLayer(volume.name, values, names, ignore), finest.spacing)
    return values, {**about, **place}, kind


def _levels(volume: Volume) -> list[Any]:
    """Return the levels as arrays of dask, which read what is asked of them, Zarr and N5 alike."""
    import dask.array

    def array(stored: Any) -> Any:
        sample = np.zeros((0,) * len(stored.shape), stored.dtype)  # else dask reads one
        return dask.array.from_array(stored, stored.chunks, name=False, meta=sample)

    return [array(StoredArray(volume.address, level).array)[(0,) * level.leading] for level in volume.levels]


def add_layers(viewer: Any, layers: Sequence[LayerData]) -> None:
    """Add layers to a viewer, or to its model; the contrast of an image is that of the middle 99 % of its values."""
    for data, about, kind in layers:
        if kind == "image" and isinstance(data, np.ndarray):
            shown = data[:: max(1, len(data) // 32)] if data.ndim == 3 else data
            about = {"contrast_limits": _limits(shown), **about}
        getattr(viewer, f"add_{kind}")(data, **about)
    if len({unit for layer in viewer.layers for unit in map(str, layer.units)}) == 1:
        overlays = viewer.canvas.overlays if hasattr(viewer, "canvas") else viewer  # napari 0.9, and before
        overlays.scale_bar.visible = True


def _limits(values: Any) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


def show(layers: Sequence[LayerData]) -> None:
    """Show layers in a window, until it is closed."""
    import napari

    viewer = napari.Viewer()
    add_layers(viewer, layers)
    napari.run()
