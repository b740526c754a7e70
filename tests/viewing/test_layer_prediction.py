"""What the napari widget computes, without napari: the predictor's labels, instances, progress and errors."""

from typing import Any

import numpy as np
import pytest
from helpers.model_folders import LABELS, REGIONS, make_model

from nnunetv2_retina import Predictor
from nnunetv2_retina.console import machine
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.prediction.instances import find_instances
from nnunetv2_retina.prediction.settings import InstanceSettings, PredictionSettings
from nnunetv2_retina.viewing.layer_prediction import load_model, model_spacing, predict_array

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 40, 48), np.uint8)
SIZE = Spacing(40, 8, 8, "nm")
NIFTI: dict[str, Any] = {"ending": ".nii.gz", "reader": "SimpleITKIO"}


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setattr(machine, "available_cores", lambda: 1)


@pytest.fixture
def predictor(tmp_path):
    return load_model(make_model(tmp_path / "model"))


@pytest.mark.parametrize("image", [IMAGE, IMAGE[0]], ids=["stack", "slice"])
def test_labels_and_instances_are_those_of_the_predictor(predictor, image):
    settings, ones = InstanceSettings(min_size=3), (1,) * image.ndim
    classes, objects = predict_array(predictor, image, None, "cells", settings)
    expected = predictor.predict(image[None], ones)
    np.testing.assert_array_equal(classes.values, expected)
    np.testing.assert_array_equal(objects.values, find_instances(expected, ones, settings)[0])
    assert classes.classes == {value: name for name, value in LABELS.items() if value} and objects.objects
    assert (classes.name, objects.name) == ("cells labels", "cells_instances")


@pytest.mark.parametrize(("mode", "tiles"), [("stack", 3 * 2 * 2), ("orthoplane", 3 * 4 + 40 * 2 + 48 * 2)])
def test_progress_counts_every_tile(tmp_path, mode, tiles, one_thread):
    settings = PredictionSettings(mode=mode, force=True, mirroring=False)
    predictor = Predictor.from_model_folder(make_model(tmp_path / "model"), device="cpu", settings=settings)
    seen = []
    labels = predictor.predict(IMAGE[None], (1, 1, 1), progress=lambda *counts: seen.append(counts))
    assert seen[0] == (0, tiles) and seen[-1] == (tiles, tiles) and seen == sorted(seen)
    assert seen[-2][0] == tiles, "counted, not only said at the end"
    np.testing.assert_array_equal(labels, predictor.predict(IMAGE[None], (1, 1, 1)))


def test_what_progress_raises_ends_the_prediction_and_the_model_stays_usable(predictor):
    class StopError(Exception):
        pass

    def stop(done, _):
        if done:
            raise StopError

    before = predictor.predict(IMAGE[None], (1, 1, 1))
    with pytest.raises(StopError):
        predictor.predict(IMAGE[None], (1, 1, 1), progress=stop)
    np.testing.assert_array_equal(predictor.predict(IMAGE[None], (1, 1, 1)), before)


def test_the_spacing_is_in_the_unit_of_the_training_data(tmp_path, predictor):
    assert model_spacing(predictor, 3, SIZE) == Spacing(1, 1, 1), "PNG has no size"
    volumes = load_model(make_model(tmp_path / "nm", **NIFTI, spacing=(8.0, 6.0), retina={"spacing_unit": "nm"}))
    volumes.nnunet.plans_manager.plans["original_median_spacing_after_transp"] = [50.0, 8.0, 6.0]
    assert model_spacing(volumes, 3, SIZE) is SIZE
    assert model_spacing(volumes, 3, None) == Spacing(50, 8, 6)
    assert model_spacing(volumes, 2, None) == Spacing(None, 8, 6)
    unknown = load_model(make_model(tmp_path / "unknown", **NIFTI, spacing=(8.0, 6.0)))
    unknown.nnunet.plans_manager.plans["original_median_spacing_after_transp"] = [50.0, 8.0, 6.0]
    assert model_spacing(unknown, 3, SIZE) == Spacing(50, 8, 6), "nm mean nothing to it"
    assert model_spacing(unknown, 3, Spacing(4, 2, 2)) == Spacing(4, 2, 2)


def test_a_model_is_kept_until_it_is_trained_anew(tmp_path):
    import os

    folder = make_model(tmp_path / "model", labels=REGIONS)
    first = load_model(folder)
    assert load_model(folder) is first
    os.utime(folder / "fold_0" / "checkpoint_final.pth", (1, 1))
    assert load_model(folder) is not first


def test_refusals(tmp_path, predictor):
    with pytest.raises(RetinaError, match="holds no trained model; expected nnU-Net's folder"):
        load_model(tmp_path)
    with pytest.raises(RetinaError, match=r"cells has the shape \(1, 3, 40, 48\); expected"):
        predict_array(predictor, IMAGE[None], None, "cells")
