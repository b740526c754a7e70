"""A clean environment, and small data sets that nnU-Net itself plans and preprocesses."""

import json
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


CASES = tuple(f"case_{i}" for i in range(6))


PROTOCOL: dict[str, Any] = {"iterations": 4, "iterations_per_epoch": 2, "batch_size": 2, "patch_size": 64}


def bare_environment(**more: str) -> dict[str, str]:
    """The environment of a fresh shell: nothing that points to this project but its installation."""
    hidden = ("nnUNet_extTrainer", "RETINA_REGISTER", "RETINA_WEIGHTS", "RETINA_SEED", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if key not in hidden} | more


def installed() -> bool:
    """Whether the package is installed here, so that its start-up file is in site-packages."""
    from nnunetv2_retina.registration import external_folder

    code = "import os; print(os.environ.get('nnUNet_extTrainer', ''))"
    command = [sys.executable, "-c", code]
    return external_folder() in subprocess.run(command, cwd="/", env=bare_environment(), stdout=-1, text=True).stdout


def blobs(seed: int, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A grey image and a mask with labels 0, 1 and 2: discs on noise. (size, size) uint8 both."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image, mask = rng.normal(120, 15, (size, size)), np.zeros((size, size), np.uint8)
    for label, grey in ((1, 50), (2, 190), (1, 60), (2, 200)):
        cy, cx = rng.integers(12, size - 12, 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < 100
        image[disc], mask[disc] = rng.normal(grey, 15, disc.sum()), label
    return image.clip(0, 255).astype(np.uint8), mask


class ThreadsForProcesses:
    """``multiprocessing.get_context("spawn")`` with threads for processes: the same work without six-second starts."""

    Pool = ThreadPool


def plan_and_preprocess(root: Path, dataset_id: int, configuration: str = "2d", check: bool = True) -> Path:
    """Let nnU-Net plan and preprocess a data set of a root, cheaply; return its preprocessed folder.

    By itself it starts processes, draws 100 million voxels for its intensity statistics, however small the images, and
    fills some thirty million weights of each network whose memory it estimates from the shapes alone.
    """
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    start = DatasetFingerprintExtractor.__init__

    def draw_little(self: Any, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        self.num_foreground_voxels_for_intensitystats = 10_000

    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            (root / name).mkdir(exist_ok=True)
            patch.setenv(name, str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "1")  # the planner takes it for torch's threads
        patch.setattr(multiprocessing, "get_context", lambda *_: ThreadsForProcesses)
        patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
        patch.setattr(DatasetFingerprintExtractor, "__init__", draw_little)
        nnunet.extract_fingerprints([dataset_id], num_processes=1, check_dataset_integrity=check)
        with torch.device("meta"):
            nnunet.plan_experiments([dataset_id])
        nnunet.preprocess([dataset_id], configurations=[configuration], num_processes=[1])
    (folder,) = (root / "nnUNet_preprocessed").glob(f"Dataset{dataset_id:03d}_*")
    return folder


def preprocess(root: Path, dataset_id: int, labels: dict[str, Any], **more: Any) -> Path:
    """Write a 2D data set with ``blobs``, let nnU-Net plan and preprocess it; return its preprocessed folder."""
    from skimage.io import imsave

    raw = root / "nnUNet_raw" / f"Dataset{dataset_id}_test"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for i, case in enumerate(CASES):
        image, mask = blobs(i)
        if "ignore" in labels:
            mask[:, :20] = labels["ignore"]
        imsave(raw / "imagesTr" / f"{case}_0000.png", image, check_contrast=False)
        imsave(raw / "labelsTr" / f"{case}.png", mask, check_contrast=False)
    settings = {"channel_names": {"0": "EM"}, "labels": labels, "numTraining": len(CASES), "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(settings | {"retina": PROTOCOL} | more))
    return plan_and_preprocess(root, dataset_id)


LABELS: dict[str, Any] = {"background": 0, "one": 1, "two": 2}


REGIONS: dict[str, Any] = {"background": 0, "any": [1, 2], "two": 2}


SIZES_3D: dict[str, Any] = {"patch_size": [8, 32, 32], "batch_size": 2}


UNET_3D: dict[str, Any] = {
    "n_stages": 3,
    "features_per_stage": [4, 8, 8],
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
}


def preprocess_images(root: Path) -> None:
    """Data sets 901 (plain), 902 (with an ignore label) and 903 (with regions and ignore), preprocessed."""
    preprocess(root, 901, LABELS)
    preprocess(root, 902, LABELS | {"ignore": 3})
    preprocess(root, 903, REGIONS | {"ignore": 3}, regions_class_order=[1, 2])


def preprocess_volumes(root: Path) -> None:
    """Data set 904: six volumes of 10 x 40 x 40 voxels, preprocessed, with the plans of a narrow 3D network."""
    import SimpleITK as sitk

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
    path = plan_and_preprocess(root, 904, "3d_fullres", check=False) / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"].update(SIZES_3D)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(UNET_3D)
    path.write_text(json.dumps(plans))
