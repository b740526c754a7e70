"""The napari plugin with napari's own tools: its manifest, its reader, its widget; in a window where there is one.

Where napari is installed: pytest -o filterwarnings=default tests/viewing/test_napari_plugin.py (its own pytest plugin
and npe2 warn at import).
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.checks import known, noting
from helpers.extras import needs
from helpers.model_folders import make_model
from helpers.ome_volumes import cells, needs_zarr, write
from helpers.raw_datasets import read_back

needs("napari", "napari is not installed: pip install .[napari] pytest-qt")
if not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
needs("pytestqt", "pytest-qt is not installed")
needs("qtpy.QtWidgets", "no Qt for napari's windows")
pytestmark = pytest.mark.filterwarnings("default")

from npe2 import PluginManifest  # noqa: E402

import nnunetv2_retina.viewing  # noqa: E402
from nnunetv2_retina.display.slider import LabelLayer  # noqa: E402
from nnunetv2_retina.images.spacing import Spacing  # noqa: E402
from nnunetv2_retina.viewing import in_napari, reader  # noqa: E402
from nnunetv2_retina.viewing.browser import has_display  # noqa: E402
from nnunetv2_retina.viewing.layer_prediction import import_triton  # noqa: E402
from nnunetv2_retina.viewing.scene import Scene  # noqa: E402
from nnunetv2_retina.volumes import store  # noqa: E402

MANIFEST = Path(nnunetv2_retina.viewing.__file__).with_name("napari.yaml")
IMAGE = np.random.default_rng(0).integers(0, 255, (3, 40, 48), np.uint8)


def test_the_manifest_is_valid_and_what_it_names_is_there():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_layers_have_names_colours_and_size():
    from napari.components import ViewerModel

    labels = LabelLayer("prediction", (IMAGE > 128).astype(np.uint8) * 2, {1: "mitochondria", 2: "membrane"}, ignore=3)
    viewer = ViewerModel()
    scene = Scene("a", IMAGE, Spacing(40, 8, 8, "nm"), (labels, LabelLayer("a_instances", IMAGE.astype(np.uint16))))
    in_napari.add_layers(viewer, in_napari.scene_layers(scene))
    image, classes, objects = viewer.layers
    assert tuple(image.scale) == tuple(classes.scale) == (40, 8, 8) and str(image.units[0]) == "nanometer"
    assert viewer.canvas.overlays.scale_bar.visible and (image.name, objects.name) == ("a", "a_instances")
    z, y, x = np.argwhere(IMAGE > 128)[-1]
    viewer.dims.set_point(0, z * 40)
    status = classes.get_status((z * 40, y * 8, x * 8), view_direction=None, dims_displayed=[1, 2], world=True)
    assert "class: membrane" in status["value"]
    from nnunetv2_retina.display.tints import class_colours

    expected = class_colours([1, 2])[2]
    shown = tuple(round(255 * part) for part in classes.get_color(2)[:3])
    assert shown == tuple(int(expected[i : i + 2], 16) for i in (1, 3, 5))


@needs_zarr
@pytest.mark.parametrize("sides", [(8, 16, 16), (8, 600, 600)], ids=["one level", "several levels"])
def test_volumes_are_layers(viewer, tmp_path, sides):
    write(tmp_path / "in.zarr", cells((8, 16, 16)))
    sizes = store.levels(sides, Spacing(40, 8, 8, "nm"), (8, 16, 16), 8)
    store.create(tmp_path / "out.zarr", sizes, "uint8", 8, "test", {1: "mitochondria"})
    path = str(tmp_path / "out.zarr")
    in_napari.add_layers(
        viewer, [in_napari.volume_layer(str(tmp_path / "in.zarr")), *known(reader.get_reader(path))(path)]
    )
    image, labels = viewer.layers
    assert image.ndim == labels.ndim == 3 and tuple(labels.scale) == (40, 8, 8)
    assert labels.multiscale == (len(sizes) > 1) and list(labels.features["class"]) == ["background", "mitochondria"]
    assert reader.get_reader(str(tmp_path / "in.zarr")) is None, "no labels"


def test_the_reader_takes_what_predictions_and_data_sets_are_and_nothing_else(tmp_path):
    names = {"labels": {"background": 0, "mitochondria": 1}, "file_ending": ".tif"}
    for folder in ("predictions", "data/labelsTr", "other"):
        (tmp_path / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / folder / "a.tif", (IMAGE > 128).astype(np.uint8), photometric="minisblack")
    for folder in ("predictions", "data", "other"):
        (tmp_path / folder / "dataset.json").write_text(json.dumps(names))
    (tmp_path / "predictions" / "predict_from_raw_data_args.json").write_text("{}")
    assert reader.get_reader(str(tmp_path / "other" / "a.tif")) is None
    assert reader.get_reader(str(tmp_path / "predictions")) is None
    for folder in ("predictions", "data/labelsTr"):
        path = str(tmp_path / folder / "a.tif")
        ((values, about, kind),) = known(reader.get_reader(path))(path)
        assert kind == "labels" and about["features"]["class"] == ["background", "mitochondria"]
        np.testing.assert_array_equal(values, IMAGE > 128)


def test_boxes_and_labels_that_napari_saves_are_read_by_the_conversion(viewer, tmp_path):
    from napari_builtins.io import napari_write_labels, napari_write_shapes

    from dataset_conversion.own_data.folder import convert_folder

    (tmp_path / "raw").mkdir()
    image = np.concatenate([IMAGE, IMAGE])  # three slices of bytes napari saves as the planes of a colour image
    labels = (image > 128).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    place = in_napari.placement(Spacing(40, 8, 8, "nm"))
    viewer.add_image(image, **place)
    painted = viewer.add_labels(labels, **place)
    corners = np.array([[1, 4, 6], [1, 4, 20], [1, 30, 20], [1, 30, 6]], float)
    drawn = viewer.add_shapes([corners, corners + np.array([1, 4, 30])], shape_type="rectangle", **place)
    for save, layer, name in ((napari_write_shapes, drawn, "boxes.csv"), (napari_write_labels, painted, "mask.tif")):
        assert save(str(tmp_path / name), *layer.as_layer_data_tuple()[:2])  # as File > Save does
    folder = convert_folder(
        tmp_path / "a.tif", 501, "Mine", mask=tmp_path / "mask.tif", labels={1: "mito"}, root=tmp_path / "raw",
        boxes=[str(tmp_path / "boxes.csv")],
    )  # fmt: skip
    expected = np.full(labels.shape, 2)
    for box in (np.s_[1, 4:31, 6:21], np.s_[2, 8:35, 36:48]):
        expected[box] = labels[box]
    np.testing.assert_array_equal(read_back(folder, "a")[1], expected)


@pytest.fixture
def viewer(qapp):
    """What a window shows, without the window, whose canvas needs OpenGL."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.mark.skipif(not has_display(), reason="no display for napari's window, which needs OpenGL")
def test_a_window_takes_the_widget_as_a_plugin_gives_it(make_napari_viewer):
    from nnunetv2_retina.viewing.widget import PredictWidget

    window = make_napari_viewer(show=False)
    widget = PredictWidget(window)
    window.window.add_dock_widget(widget, name="Predict")
    layer = window.add_image(IMAGE)
    assert widget.image.value is layer
    import_triton()  # whose LLVM meets that of the window's OpenGL, if it is Mesa's: a plain import ends the process


def test_the_widget_predicts_a_layer_beside_the_window(viewer, tmp_path, qtbot, monkeypatch):
    from nnunetv2_retina import Predictor
    from nnunetv2_retina.viewing.widget import PredictWidget

    model = make_model(tmp_path / "model")
    viewer.add_image(IMAGE, name="cells", scale=(40, 8, 8), units="nm")
    widget = PredictWidget(viewer)
    widget.model.value, widget.instances.value, widget.size.value = model, True, 2
    seen: list[tuple[int, int]] = []
    report = noting(seen, lambda _, done, total: (done, total), PredictWidget._report)
    monkeypatch.setattr(PredictWidget, "_report", report)  # the class: a widget's attributes are its parts
    widget.button.native.click()
    assert widget.button.text == "Stop" and widget.image.value.name == "cells"
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=60_000)
    _, classes, objects = viewer.layers
    expected = Predictor.from_model_folder(model, device="cpu").predict(IMAGE[None], (1, 1, 1))
    np.testing.assert_array_equal(classes.data, expected)
    assert (classes.name, objects.name) == ("cells labels", "cells_instances")
    assert tuple(classes.scale) == (40, 8, 8) and str(classes.units[0]) == "nanometer"
    assert seen[0] == (0, 12) and seen[-1] == (12, 12) and widget.button.text == "Predict"


@pytest.mark.parametrize(
    ("given", "message"), [("nothing", "holds no trained model"), ("colours", "is a colour image")]
)
def test_what_goes_wrong_is_said_in_one_sentence(viewer, tmp_path, qtbot, monkeypatch, given, message):
    from nnunetv2_retina.viewing import widget as module

    said: list[Any] = []
    monkeypatch.setattr(module, "show_error", said.append)
    made = module.PredictWidget(viewer)
    made.button.native.click()
    assert said.pop() == "There is no image layer to predict. Open an image first"
    viewer.add_image(np.zeros((40, 40, 3), np.uint8) if given == "colours" else IMAGE)
    made.model.value = tmp_path
    made.button.native.click()
    qtbot.waitUntil(lambda: bool(said), timeout=20_000)
    assert message in said[0] and "\n" not in said[0] and made.button.text == "Predict"


def test_a_prediction_can_be_stopped(viewer, tmp_path, qtbot, monkeypatch):
    from nnunetv2_retina.viewing.widget import PredictWidget

    widget = PredictWidget(viewer)
    qtbot.add_widget(widget.native)
    viewer.add_image(np.tile(IMAGE, (4, 3, 3)))
    widget.model.value = make_model(tmp_path / "model")
    report = PredictWidget._report

    def stop_first(self, done, total):
        self._stopping = done > 0
        report(self, done, total)

    monkeypatch.setattr(PredictWidget, "_report", stop_first)
    widget.button.native.click()
    qtbot.waitUntil(lambda: widget.button.text == "Predict", timeout=60_000)
    assert len(viewer.layers) == 1
