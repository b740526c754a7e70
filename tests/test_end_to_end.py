"""The user's lines, typed as the README has them, in processes of their own: 2D images (PNG, TIFF) and 3D volumes."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from helpers.environment import FOLDERS, bare_environment, blobs, installed
from helpers.warm import WarmCommands
from skimage.io import imread, imsave

from nnunetv2_retina.weights import checkpoint, shipped

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="the package is not installed here (pip install .)"),
]

SCRIPTS = Path(sys.executable).parent
TRAINER = "-tr nnUNetTrainerRETINA -device cpu"
# What is tried of the other data sets needs neither the patches nor the network that are the default.
TINY = "-tr nnUNetTrainerRETINA_tiny -device cpu"
SMALL = "--patch-size 64"
OPEN = shipped.resolve("open")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three data sets of one's own (PNG, float TIFF, multi-page TIFF volumes) and a pre-training's checkpoint."""
    root = tmp_path_factory.mktemp("end_to_end")
    for name in FOLDERS:
        (root / name).mkdir()
    for kind in ("png", "tiff", "volume"):
        for part, cases in (("train", 5), ("test", 2)):
            for folder in ("images", "masks"):
                (root / kind / part / folder).mkdir(parents=True)
            for i in range(cases):
                write(root / kind / part, f"{part}{i}", kind, 10 * cases + i)
    (root / "em").mkdir()
    for i in range(5):
        imsave(root / "em" / f"{i}.png", blobs(i, 224)[0], check_contrast=False)
    settings = "--iterations 2 --batch-size 2 --device cpu"
    shown = type_in(root, f"retina_pretrain {root / 'em'} -o {root / 'run'} {settings}")
    assert shown.splitlines()[-1] == str(root / "run" / "checkpoint_final.pth")
    (root / "run" / "checkpoint_final.pth").rename(root / "pretrained.pth")
    return root


def write(folder: Path, name: str, kind: str, seed: int) -> None:
    if kind == "volume":
        slices = [blobs(seed + 100 * z) for z in range(3)]
        image, mask = (np.stack(arrays) for arrays in zip(*slices, strict=True))
        tifffile.imwrite(folder / "images" / f"{name}.tif", image, photometric="minisblack")
        tifffile.imwrite(folder / "masks" / f"{name}.tif", mask, photometric="minisblack")
        return
    image, mask = blobs(seed)
    if kind == "tiff":
        tifffile.imwrite(folder / "images" / f"{name}.tif", image.astype(np.float32) / 7)
        tifffile.imwrite(folder / "masks" / f"{name}.tif", mask)
    else:
        imsave(folder / "images" / f"{name}.png", image, check_contrast=False)
        imsave(folder / "masks" / f"{name}.png", mask, check_contrast=False)


def type_in(root: Path, line: str, warm: WarmCommands | None = None, **environment: str) -> str:
    """Run a command line from an empty folder, in a fresh process or a warm one; return what it printed."""
    command, *arguments = line.split()
    folder = root / "elsewhere"
    folder.mkdir(exist_ok=True)
    variables = bare_environment(**{name: str(root / name) for name in FOLDERS}, **environment)
    if warm is not None:
        if command == "nnUNetv2_train":
            variables["nnUNet_n_proc_DA"] = "0"  # batches from the process itself
        status, shown = warm.run(command, arguments, variables, folder)
    else:
        done = subprocess.run(
            [str(SCRIPTS / command), *arguments],
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        status, shown = done.returncode, done.stdout
    assert status == 0, f"{line}\n{shown[-4000:]}"
    return shown


def prepare(root: Path, dataset: int, kind: str, *options: str, warm: WarmCommands) -> Path:
    settings = f"--name {kind} --labels 1=one 2=two --iterations 4 --batch-size 2 {' '.join(options)}"
    type_in(root, f"retina_convert folder {root / kind} -d {dataset} {settings}")
    type_in(root, f"nnUNetv2_plan_and_preprocess -d {dataset} -c 2d --verify_dataset_integrity -np 1", warm)
    return root / "nnUNet_raw" / f"Dataset{dataset}_{kind}"


def fold(root: Path, dataset: str, fold: int | str, trainer: str = "nnUNetTrainerRETINA") -> Path:
    return root / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}"


@pytest.fixture(scope="module")
def png(root, warm):
    """PNG images, trained in fold 0 with -pretrained_weights."""
    raw = prepare(root, 921, "png", warm=warm)
    type_in(root, f"nnUNetv2_train 921 2d 0 {TRAINER} -pretrained_weights {root / 'pretrained.pth'}")
    return raw


def test_transformer_is_the_checkpoints_after_training(root, png):
    stored = checkpoint.load(root / "pretrained.pth").weights
    trained = checkpoint.load(fold(root, png.name, 0) / "checkpoint_final.pth").weights
    for key in stored:
        assert torch.equal(stored[key], trained[key]) == key.startswith("transformer."), key


def test_prediction_equals_validation(root, png):
    validation = fold(root, png.name, 0) / "validation"
    images = root / "validation_images"
    images.mkdir()
    cases = [path.stem for path in validation.glob("*.png")]
    assert cases
    for case in cases:
        shutil.copy(png / "imagesTr" / f"{case}_0000.png", images)
    type_in(root, f"nnUNetv2_predict -i {images} -o {root / 'again'} -d 921 -c 2d -f 0 -npp 1 -nps 1 {TRAINER}")
    for case in cases:
        again = imread(root / "again" / f"{case}.png")
        np.testing.assert_array_equal(again, imread(validation / f"{case}.png"))


def test_validation_can_be_repeated(root, png, warm):
    validation = fold(root, png.name, 0) / "validation"
    before = {path.name: imread(path) for path in validation.glob("*.png")}
    shutil.rmtree(validation)
    type_in(root, f"nnUNetv2_train 921 2d 0 {TRAINER} --val", warm)
    for name, mask in before.items():
        np.testing.assert_array_equal(imread(validation / name), mask)


def test_model_folder_of_another_process(root, png, warm):
    model = fold(root, png.name, 0).parent
    folders = f"-i {png / 'imagesTs'} -o {root / 'by_folder'} -m {model}"
    type_in(root, f"nnUNetv2_predict_from_modelfolder {folders} -f 0 -device cpu", warm)
    assert len(list((root / "by_folder").glob("*.png"))) == 2


@pytest.fixture(scope="module")
def tiff(root, warm):
    """Float TIFF images of unknown pixel size, preprocessed."""
    return prepare(root, 922, "tiff", SMALL, warm=warm)


def test_float_tiff_without_weights(root, tiff, warm):
    shown = type_in(root, f"nnUNetv2_train 922 2d 0 {TINY}", warm)
    assert "NO PRE-TRAINED WEIGHTS" in shown
    type_in(root, f"nnUNetv2_predict -i {tiff / 'imagesTs'} -o {root / 'tiffs'} -d 922 -c 2d -f 0 {TINY}", warm)
    for path in (tiff / "labelsTs").iterdir():
        assert imread(root / "tiffs" / path.name).shape == imread(path).shape


def test_fold_all_with_the_variable_then_continue(root, tiff, warm):
    type_in(root, f"nnUNetv2_train 922 2d all {TINY}", warm, RETINA_WEIGHTS="open")
    ended = fold(root, tiff.name, "all", "nnUNetTrainerRETINA_tiny") / "checkpoint_final.pth"
    state = torch.load(ended, weights_only=False)
    assert state["init_args"]["retina"]["transfer"]["named_by"] == "$RETINA_WEIGHTS"
    shown = type_in(root, f"nnUNetv2_train 922 2d all {TINY} --c", warm)
    assert "Validation complete" in shown
    assert "NO PRE-TRAINED WEIGHTS" not in shown


def test_volumes(root, warm):
    raw = prepare(root, 923, "volume", "--spacing 40 4 4", SMALL, warm=warm)
    type_in(root, f"nnUNetv2_train 923 2d 0 {TINY} -pretrained_weights {OPEN}", warm)
    type_in(root, f"nnUNetv2_predict -i {raw / 'imagesTs'} -o {root / 'volumes'} -d 923 -c 2d -f 0 {TINY}", warm)
    for path in (raw / "labelsTs").iterdir():
        predicted, wanted = sitk.ReadImage(root / "volumes" / path.name), sitk.ReadImage(path)
        assert predicted.GetSize() == wanted.GetSize()
        assert predicted.GetSpacing() == pytest.approx((4, 4, 40))
