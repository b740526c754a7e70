"""The napari widget "Predict": an image layer, a model folder, a button. Thin, over ``layer_prediction``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, FloatSpinBox, ProgressBar, PushButton
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from superqt.utils import ensure_main_thread

from nnunetv2_retina.display.slider import LabelLayer
from nnunetv2_retina.errors import RetinaError, one_line
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.viewing.in_napari import add_layers, label_layer
from nnunetv2_retina.viewing.layer_prediction import load_model, predict_array


class _StoppedError(Exception):
    """The user has pressed Stop."""


class PredictWidget(Container):
    """Predicts a layer with a model in a thread of its own; the labels become layers."""

    def __init__(self, napari_viewer: Any) -> None:
        self.viewer = napari_viewer
        self.image = ComboBox(label="image", choices=self._images, nullable=True)
        self.model = FileEdit(mode="d", label="model folder", tooltip="nnU-Net's TRAINER__PLANS__2d, with fold_0")
        self.instances = CheckBox(text="also numbered objects")
        defaults = InstanceSettings()
        self.distance = FloatSpinBox(
            value=defaults.min_distance, max=1e6, label="apart by", tooltip="voxels between the centres of two objects"
        )
        self.size = FloatSpinBox(value=defaults.min_size, max=1e9, label="smallest", tooltip="voxels of an object")
        self.button = PushButton(text="Predict")
        self.progress = ProgressBar(max=1, value=0, label="tiles")
        super().__init__(
            widgets=[
                self.image, self.model, self.instances, self.distance, self.size, self.button, self.progress,
            ]
        )  # fmt: skip
        self._worker: Any = None
        self._stopping = False
        self._enable()
        self.instances.changed.connect(self._enable)
        for change in (napari_viewer.layers.events.inserted, napari_viewer.layers.events.removed):
            change.connect(self._list_images)
        self._list_images()
        self.button.clicked.connect(self._pressed)

    def _images(self, _: object = None) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _list_images(self, _: object = None) -> None:
        self.image.reset_choices()
        if self.image.value is None and (images := self._images()):
            self.image.value = images[-1]

    def _enable(self) -> None:
        self.distance.enabled = self.size.enabled = bool(self.instances.value)

    def _pressed(self) -> None:
        if self._worker is not None:
            self._stopping = True
            self.button.text = "Stopping ..."
            return
        layer = self.image.value
        if layer is None:
            show_error("There is no image layer to predict. Open an image first")
            return
        settings = None
        if self.instances.value:
            settings = InstanceSettings(min_distance=self.distance.value, min_size=self.size.value)
        self._stopping = False
        self.button.text = "Stop"
        self.progress.value = 0
        self._worker = create_worker(self._predict, layer, Path(self.model.value), settings, _start_thread=False)
        self._worker.returned.connect(lambda answer: self._finish(layer, answer))
        self._worker.start()

    def _predict(self, layer: Image, model: Path, settings: InstanceSettings | None) -> list[LabelLayer] | str:
        """Return the layers, or why there are none. Runs beside the window."""
        try:
            image = layer_array(layer)
            return predict_array(load_model(model), image, layer_spacing(layer), layer.name, settings, self._report)
        except _StoppedError:
            return ""
        except (RetinaError, OSError) as error:
            return str(error)
        except Exception as error:  # whatever torch raises
            return f"the prediction failed ({one_line(error)})"

    def _report(self, done: int, total: int) -> None:
        if self._stopping:
            raise _StoppedError
        self._show_progress(done, total)

    @ensure_main_thread  # type: ignore[untyped-decorator]
    def _show_progress(self, done: int, total: int) -> None:
        if self._worker is not None:
            self.progress.max, self.progress.value = total, done

    def _finish(self, layer: Image, answer: list[LabelLayer] | str) -> None:
        self._worker = None
        self.button.text = "Predict"
        self.progress.value = self.progress.max if isinstance(answer, list) else 0
        if isinstance(answer, str):
            (show_error if answer else show_info)(answer or "The prediction was stopped")
            return
        placed = {"scale": layer.scale, "translate": layer.translate, "units": layer.units}
        layers = [label_layer(made, None) for made in answer]
        add_layers(self.viewer, [(values, {**about, **placed}, kind) for values, about, kind in layers])


def layer_array(layer: Image) -> Any:
    """Return the values of an image layer, at its finest resolution.

    Raises:
        RetinaError: for colours.
    """
    import numpy as np

    if layer.rgb:
        raise RetinaError(f"{layer.name} is a colour image; expected grey levels. Split its channels, and choose one")
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def layer_spacing(layer: Image) -> Spacing | None:
    """Return the voxel size of a layer in nm; without a unit as it is, None where it is napari's 1."""
    steps = [abs(float(step)) for step in layer.scale]
    if len(steps) not in (2, 3):
        return None
    if all(unit.dimensionality == {"[length]": 1} for unit in layer.units):
        return Spacing.of(
            [step * (1 * unit).to("nm").magnitude for step, unit in zip(steps, layer.units, strict=True)], NANOMETRES
        )
    return None if set(steps) == {1.0} else Spacing.of(steps)
