"""Files written by version 0.1.0 before its modules moved into folders: models, pre-trainings and stores still work.

``data/before_the_move.tar.xz`` was written by that version's commands; weights are replaced by numbers that compress,
and the labels are what it predicted with them.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from skimage.io import imread

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint

ARCHIVE = Path(__file__).parent / "data" / "before_the_move.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    root = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.2
        archive.extractall(root, **safely)
    return root


def test_a_2d_model_predicts_as_before(old, tmp_path):
    from nnunetv2_retina.prediction.folder import FolderRun
    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.settings import RunSettings

    predictor = Predictor.from_model_folder(old / "model_2d", device="cpu")
    settings = RunSettings(probabilities=True, preparing=0, writing=0)
    FolderRun(predictor, old / "images_2d", tmp_path, settings, lambda line: None).run()
    np.testing.assert_array_equal(imread(tmp_path / "case_0.png"), imread(old / "labels" / "case_2d.png"))
    expected = np.load(old / "labels" / "case_2d.npz")["probabilities"]
    np.testing.assert_allclose(np.load(tmp_path / "case_0.npz")["probabilities"], expected, atol=1e-4)


def test_a_3d_model_predicts_as_before_with_nnunet(old):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(old / "model_3d"), (0,), "checkpoint_final.pth")
    image = sitk.ReadImage(old / "images_3d" / "case_0_0000.nii.gz")
    array = sitk.GetArrayFromImage(image)[None].astype(np.float32)
    labels = predictor.predict_single_npy_array(array, {"spacing": [1.0, 1.0, 1.0]}, None, None, False)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(old / "labels" / "case_3d.nii.gz"))
    assert len(np.unique(expected)) == 3
    assert (labels == expected).mean() > 0.999


def test_a_pretraining_is_read_and_fits_its_network(old):
    stored = checkpoint.load(old / "run" / "checkpoint_final.pth")
    network = TransUNet(1, 1, NetworkConfig.named("tiny"))
    network.load_state_dict(stored.weights)
    assert stored.retina["iteration"] == 2


def test_a_pretraining_that_was_stopped_goes_on(old, capsys):
    from pretraining.job import Job, pretrain
    from pretraining.recipe import Execution, Recipe

    recipe = Recipe(size="tiny", iterations=4, batch_size=2, seed=1)
    job = Job(source=old / "store", output=old / "half", recipe=recipe, execution=Execution(device="cpu"))
    outcome = pretrain(job, lambda line: None)
    assert "continuing after step 1 of 4" in capsys.readouterr().err
    assert checkpoint.load(outcome.checkpoint).retina["iteration"] == 4


def test_a_store_is_read_and_verified(old):
    from pretraining.store.reader import ImageStore

    store = ImageStore(old / "store")
    store.verify()
    assert len(store) == 5


def test_a_model_is_reported(old, tmp_path):
    from nnunetv2_retina.report.page import write_model_report

    page = write_model_report(old / "model_2d", tmp_path / "page.html")
    assert "nnUNetTrainerRETINA_tiny" in page.read_text(encoding="utf-8")


def test_plans_name_the_network_that_a_plain_import_gives(old):
    plans = json.loads((old / "model_2d" / "plans.json").read_text())
    name = plans["configurations"]["2d"]["architecture"]["network_class_name"]
    assert name == "nnunetv2_retina.network.TransUNet"


def test_trainers_are_found_where_they_were():
    from nnunetv2_retina import trainers
    from nnunetv2_retina.training.trainers import nnUNetTrainerRETINA

    assert trainers.nnUNetTrainerRETINA is nnUNetTrainerRETINA
    assert "nnUNetTrainerUNetResNet50_frozen" in trainers.__all__
