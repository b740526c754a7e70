"""Shared fixtures: a clean environment, and small data sets that nnU-Net itself has planned and preprocessed."""

import json
import os
from pathlib import Path

# Read by nnU-Net when it is imported, and inherited by the processes it starts.
os.environ["nnUNet_def_n_proc"] = "1"
os.environ["nnUNet_n_proc_DA"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch
from helpers.environment import (
    CASES,
    FOLDERS,
    LABELS,
    PROTOCOL,
    REGIONS,
    SIZES_3D,
    UNET_3D,
    blobs,
    preprocess,
)

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # two workers share the cores


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No variable of the user's reaches a test."""
    from nnunetv2_retina.registration import external_folder

    for name in (*FOLDERS, "RETINA_WEIGHTS", "RETINA_SEED", "RETINA_REGISTER", "nnUNet_compile"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("nnUNet_extTrainer", external_folder())


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """A root with three preprocessed data sets: 901 plain, 902 with an ignore label, 903 with regions and ignore."""
    root = tmp_path_factory.mktemp("nnunet")
    preprocess(root, 901, LABELS)
    preprocess(root, 902, LABELS | {"ignore": 3})
    preprocess(root, 903, REGIONS | {"ignore": 3}, regions_class_order=[1, 2])
    return root


@pytest.fixture
def workspace(datasets, tmp_path, monkeypatch):
    """nnU-Net's folders set to the data sets above, with results (and changes of the settings) of this test alone."""
    import shutil

    root = tmp_path / "workspace"
    root.mkdir()
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(datasets / name, root / name)
    (root / "nnUNet_results").mkdir()
    for name in FOLDERS:
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # batches from this process: no workers to start
    return root


@pytest.fixture(scope="session")
def volumes(tmp_path_factory) -> Path:
    """A root with data set 904: six volumes of 10 x 40 x 40 voxels, with the plans of a narrow 3D network."""
    import SimpleITK as sitk
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess as nnunet_preprocess

    root = tmp_path_factory.mktemp("volumes")
    raw = root / "nnUNet_raw" / "Dataset904_test"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for i, case in enumerate(CASES):
        slices = [[part[:40, :40] for part in blobs(i)] for _ in range(10)]
        for folder, name, part in (("imagesTr", f"{case}_0000", 0), ("labelsTr", case, 1)):
            image = sitk.GetImageFromArray(np.stack([piece[part] for piece in slices]))
            sitk.WriteImage(image, raw / folder / f"{name}.nii.gz")
    labels = {"background": 0, "one": 1, "two": 2}
    settings = {"channel_names": {"0": "EM"}, "labels": labels, "numTraining": len(CASES), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(settings | {"retina": PROTOCOL}))
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            (root / name).mkdir(exist_ok=True)
            patch.setenv(name, str(root / name))
        extract_fingerprints([904], num_processes=1, check_dataset_integrity=False)
        plan_experiments([904])
        nnunet_preprocess([904], configurations=["3d_fullres"], num_processes=[1])
    path = root / "nnUNet_preprocessed/Dataset904_test/nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"].update(SIZES_3D)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(UNET_3D)
    path.write_text(json.dumps(plans))
    return root
