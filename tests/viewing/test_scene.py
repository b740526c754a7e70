"""What retina_view reads: images of any kind, labels of their shape, and the names that lie beside them."""

import json

import h5py
import numpy as np
import pytest
import tifffile
from helpers.checks import known
from helpers.ome_volumes import cells, needs_zarr, write
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.viewing.scene import read_labels, read_scene
from nnunetv2_retina.volumes import store

STACK = np.random.default_rng(0).integers(0, 255, (3, 20, 24), np.uint8)
MASK = (STACK > 200).astype(np.uint8) + (STACK > 240)
DATASET = {"labels": {"background": 0, "mitochondria": 1, "membrane": 2, "ignore": 3}, "file_ending": ".tif"}


def tiff(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"spacing": 0.04, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / 0.008, 1 / 0.004), metadata=about)
    return str(path)


def test_an_image_its_size_and_labels_with_the_names_beside_them(tmp_path):
    image, labels = tiff(tmp_path / "a.tif", STACK), tiff(tmp_path / "out" / "a.tif", MASK)
    objects = tiff(tmp_path / "out" / "a_instances.tif", MASK.astype(np.uint16) * 300)
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(DATASET))
    scene = read_scene(image, [labels, objects])
    np.testing.assert_array_equal(scene.image, STACK)
    spacing = known(scene.spacing)
    assert tuple(spacing) == pytest.approx((40, 4, 8)) and spacing.unit == "nm"
    classes, numbers = scene.layers
    assert classes.classes == {1: "mitochondria", 2: "membrane"} and classes.ignore == 3 and not classes.objects
    assert numbers.objects and numbers.values.max() == 600
    np.testing.assert_array_equal(classes.values, MASK)
    assert [layer.name for layer in scene.layers] == ["out/a", "a_instances"], "one is named as the image is"


def test_labels_of_a_data_set_find_its_names_and_unknown_values_their_number(tmp_path):
    labels = tiff(tmp_path / "labelsTr" / "a.tif", MASK + 4 * (STACK < 10).astype(np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    assert read_labels(labels).classes == {1: "mitochondria", 2: "membrane", 4: "label 4"}
    assert read_labels(tiff(tmp_path / "labelsTr" / "numbered.tif", STACK)).objects
    alone = read_labels(tiff(tmp_path / "x" / "y" / "mask.tif", MASK))
    assert alone.classes == {1: "label 1", 2: "label 2"} and alone.ignore is None
    assert read_labels(tiff(tmp_path / "x" / "y" / "many.tif", STACK)).objects


def test_a_single_slice_of_one_lies_on_a_2d_image_of_the_other(tmp_path):
    Image.fromarray(STACK[0]).save(tmp_path / "a.png")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["labels"] = MASK[:1]
    scene = read_scene(str(tmp_path / "a.png"), [f"{tmp_path}/m.h5::labels"])
    assert scene.layers[0].values.shape == (20, 24) and scene.layers[0].name == "m labels"


@needs_zarr
def test_parts_of_volumes(tmp_path):
    volume = cells((6, 32, 32))
    path = write(tmp_path / "in.zarr", volume)
    scene = read_scene(str(path), [], "1:3,0:16,8:32")
    np.testing.assert_array_equal(scene.image, volume[1:3, :16, 8:32])


@needs_zarr
def test_volumes_are_layers_of_all_their_levels_of_which_nothing_is_read(tmp_path):
    pytest.importorskip("dask.array")
    from nnunetv2_retina.viewing.in_napari import volume_layer

    volume = cells((6, 32, 32))
    values, about, kind = volume_layer(str(write(tmp_path / "one.zarr", volume, origin=(10, 20, 30))))
    assert kind == "image" and "multiscale" not in about and not isinstance(values, np.ndarray)
    assert len(about["scale"]) == 3 and about["name"] == "one.zarr" and about["translate"] == (10, 20, 30)
    np.testing.assert_array_equal(np.asarray(values), volume)
    sizes = store.levels((8, 600, 600), Spacing(40, 8, 8, "nm"), (8, 16, 16), 8, (80.0, 0.0, 16.0))
    store.create(tmp_path / "out.zarr", sizes, "uint8", 8, "test", {1: "mitochondria", 2: "lysosomes"})
    levels, about, kind = volume_layer(str(tmp_path / "out.zarr"), labels=True)
    assert kind == "labels" and about["multiscale"] and levels[0].shape == (8, 600, 600) and len(levels) > 1
    assert about["translate"] == (80, 0, 16), "the labels of a --box lie where it was taken from"
    assert about["features"]["class"] == ["background", "mitochondria", "lysosomes"]


def test_n5_is_a_layer_too(tmp_path):
    pytest.importorskip("dask.array")
    tensorstore = pytest.importorskip("tensorstore")
    from nnunetv2_retina.viewing.in_napari import volume_layer

    volume, place = cells((9, 20, 30)), tmp_path / "a.n5/em"
    metadata = {"dimensions": [30, 20, 9], "blockSize": [16, 8, 4], "dataType": "uint8", "compression": {"type": "raw"}}
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{place}/"}, "metadata": metadata, "create": True}
    tensorstore.open(spec).result().write(volume.T).result()
    values, about, kind = volume_layer(str(place))
    assert kind == "image" and values.chunksize == (4, 8, 16) and about["translate"] == (0, 0, 0)
    np.testing.assert_array_equal(np.asarray(values), volume)
    np.testing.assert_array_equal(np.asarray(values[3, ::-2, 5:9]), volume[3, ::-2, 5:9])


def test_refusals(tmp_path, monkeypatch):
    image = tiff(tmp_path / "a.tif", STACK)
    with pytest.raises(RetinaError, match=r"labels b have the shape \(3, 20, 20\), the image a \(3, 20, 24\)"):
        read_scene(image, [tiff(tmp_path / "b.tif", MASK[:, :, :20])])
    with pytest.raises(RetinaError, match="--box is for Zarr volumes"):
        read_scene(image, [], "0:1,0:1,0:1")
    with pytest.raises(RetinaError, match="values that are not whole numbers"):
        read_labels(tiff(tmp_path / "c.tif", STACK / np.float32(3)))
    with pytest.raises(RetinaError, match="holds values from -1 to 1; expected labels from 0"):
        read_labels(tiff(tmp_path / "d.tif", MASK.clip(0, 1).astype(np.float32) * 2 - 1))
    with pytest.raises(RetinaError, match="names a path inside HDF5 files"):
        read_scene(f"{image}::raw")
