"""nnU-Net's own tools with our models: its zip, what it says without us, ensembles, the best configuration."""

import json
import multiprocessing
import shutil
import zipfile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.environment import blobs
from helpers.model_folders import make_model, transunet
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.evaluation.find_best_configuration import find_best_configuration
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from skimage.io import imread, imsave

from nnunetv2_retina.commands.predict import main as predict
from nnunetv2_retina.commands.share import main as share

TRAINERS = ("nnUNetTrainerTransUNet_tiny", "nnUNetTrainerRETINA_full_tiny")
DATASET = "Dataset950_test"
CASES = range(2)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """nnU-Net's folders with two models of ours, each with a fold, and the data set's images and labels."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name / DATASET).mkdir(parents=True)
    raw, preprocessed = tmp_path / "nnUNet_raw" / DATASET, tmp_path / "nnUNet_preprocessed" / DATASET
    for trainer in TRAINERS:
        folder = tmp_path / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d"
        labels = {"background": 0, "one": 1, "two": 2}
        make_model(folder, trainer=trainer, architecture=transunet(), labels=labels)
        (folder / "dataset_fingerprint.json").write_text("{}")
        (folder / "fold_0" / "progress.png").touch()  # nnU-Net's export wants it, and the validation's scores
        (folder / "fold_0" / "validation").mkdir()
        (folder / "fold_0" / "validation" / "summary.json").write_text("{}")
    shutil.copy(folder / "plans.json", preprocessed / "nnUNetPlans.json")
    for name in (raw / "imagesTr", raw / "labelsTr", preprocessed / "gt_segmentations"):
        name.mkdir()
    for case in CASES:
        image, mask = blobs(case, 40)
        imsave(raw / "imagesTr" / f"case_{case}_0000.png", image, check_contrast=False)
        for folder in (raw / "labelsTr", preprocessed / "gt_segmentations"):
            imsave(folder / f"case_{case}.png", mask, check_contrast=False)
    return tmp_path


def model_of(root: Path, trainer: str) -> Path:
    return root / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d"


def predicted(root: Path, model: Path, target: Path) -> Path:
    images = root / "nnUNet_raw" / DATASET / "imagesTr"
    options = ["-device", "cpu", "--disable_tta", "--save_probabilities"]
    assert predict(["-i", str(images), "-o", str(target), "-m", str(model), *options]) == 0
    return target


def test_nnunets_zip_carries_our_models(root, tmp_path, monkeypatch, capsys):
    trainer = TRAINERS[0]
    export_pretrained_model(DATASET, str(tmp_path / "model.zip"), ("2d",), trainer, folds=(0,))
    before = predicted(root, model_of(root, trainer), tmp_path / "before")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(str(tmp_path / "model.zip"))
    (installed,) = (tmp_path / "elsewhere" / DATASET).iterdir()
    after = predicted(root, installed, tmp_path / "after")
    for case in CASES:
        np.testing.assert_array_equal(imread(before / f"case_{case}.png"), imread(after / f"case_{case}.png"))
    assert share(["import", str(tmp_path / "model.zip")]) == 2
    assert "nnUNetv2_install_pretrained_model_from_zip" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert f"{DATASET}/{trainer}__nnUNetPlans__2d/fold_0/checkpoint_final.pth" in archive.namelist()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_where_our_package_is_missing_nnunet_names_the_trainer_and_the_way_to_it(monkeypatch, trainer):
    """As docs/sharing.md quotes it. We cannot change it: nothing of ours runs there."""
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(RuntimeError, match=rf"Could not find requested nnunet trainer {trainer} .*nnUNet_extTrainer"):
        recursive_find_trainer_class_by_name(trainer)


@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")  # nnU-Net's
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ensembles_and_the_best_configuration(root, tmp_path, monkeypatch, capsys):
    """On probabilities that retina_predict saves, as a validation with --npz does."""
    threads = SimpleNamespace(Pool=ThreadPool)  # nnU-Net starts a process for each of its steps
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: threads)
    folders = [predicted(root, model_of(root, t), model_of(root, t) / "fold_0" / "validation") for t in TRAINERS]
    (tmp_path / "ensemble").mkdir()
    ensemble_folders(list(map(str, folders)), str(tmp_path / "ensemble"), num_processes=1)
    for case in CASES:
        mean = sum(np.load(folder / f"case_{case}.npz")["probabilities"] for folder in folders)
        np.testing.assert_array_equal(imread(tmp_path / "ensemble" / f"case_{case}.png"), mean.argmax(0)[0])
    models = [{"plans": "nnUNetPlans", "configuration": "2d", "trainer": trainer} for trainer in TRAINERS]
    best = find_best_configuration(DATASET, models, folds=(0,), num_processes=1)
    assert len(best["all_results"]) == 3 and any(name.startswith("ensemble___") for name in best["all_results"])
    chosen = best["best_model_or_ensemble"]["selected_model_or_models"]
    assert {model["trainer"] for model in chosen} <= set(TRAINERS)
    text = (root / "nnUNet_results" / DATASET / "inference_information.json").read_text()
    assert json.loads(text)["all_results"] == best["all_results"]
    capsys.readouterr()
