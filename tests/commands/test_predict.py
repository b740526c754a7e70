"""``retina_predict`` on folders: what it writes, that it continues, and what it says of wrong input."""

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from helpers import thread_workers
from helpers.checks import noting
from helpers.model_folders import make_model
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from skimage.io import imread, imsave

from nnunetv2_retina.commands import predict as command
from nnunetv2_retina.console.config_file import RUN_YAML
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import LOCK
from nnunetv2_retina.prediction import folder as prediction_run
from nnunetv2_retina.prediction.case_files import write_wide
from nnunetv2_retina.prediction.case_work import CaseWork
from nnunetv2_retina.prediction.model import Model
from nnunetv2_retina.prediction.outputs import appearing, held, unfinished
from nnunetv2_retina.prediction.settings import PredictionSettings


@pytest.fixture
def model(tmp_path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def images(tmp_path) -> Path:
    return write_images(tmp_path / "images", 3)


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        image = np.random.default_rng(i).integers(1, 256, (40 + 7 * i, 50), dtype=np.uint8)
        imsave(folder / f"case_{i}_0000.png", image, check_contrast=False)
    return folder


def predict(*arguments) -> int:
    return command.main([*map(str, arguments), "-device", "cpu", "--disable_tta"])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


RECORDS = {"dataset.json", "plans.json", "predict_from_raw_data_args.json", RUN_YAML}


def test_files_are_those_of_nnunet(model, images, tmp_path, capsys):
    theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    theirs.initialize_from_trained_model_folder(str(model), (0,))
    (tmp_path / "theirs").mkdir()
    theirs.predict_from_files_sequential(str(images), str(tmp_path / "theirs"), save_probabilities=True)
    capsys.readouterr()
    assert predict("-i", images, "-o", tmp_path / "ours", "-m", model, "--save_probabilities") == 0
    shown = capsys.readouterr()
    assert "1 fold, stack, on cpu" in shown.out and "3 of 3   case_2   1 x 54 x 50" in shown.out
    assert shown.err == "" and "perform_everything_on_device" not in shown.out
    assert files(tmp_path / "ours") == {*files(tmp_path / "theirs"), RUN_YAML}
    for i in range(3):
        one, other = (tmp_path / who / f"case_{i}" for who in ("ours", "theirs"))
        assert (imread(f"{one}.png") == imread(f"{other}.png")).mean() >= 0.9999
        np.testing.assert_allclose(
            np.load(f"{one}.npz")["probabilities"], np.load(f"{other}.npz")["probabilities"], atol=1e-3
        )
        assert pickle.loads(Path(f"{one}.pkl").read_bytes()) == pickle.loads(Path(f"{other}.pkl").read_bytes())
    for name in ("dataset.json", "plans.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads((model / name).read_text())
    told = json.loads((tmp_path / "ours" / "predict_from_raw_data_args.json").read_text())
    assert told["save_probabilities"] is True and told["retina"]["inference"] == "stack"
    assert command.main(["--config", str(tmp_path / "ours" / RUN_YAML), "-o", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again") == files(tmp_path / "ours")
    assert (tmp_path / "again" / RUN_YAML).read_text() == (tmp_path / "ours" / RUN_YAML).read_text()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(model, images, tmp_path, workers):
    assert predict("-i", images, "-o", tmp_path / "one", "-m", model) == 0
    assert predict("-i", images, "-o", tmp_path / "other", "-m", model, "-npp", workers, "-nps", workers) == 0
    assert files(tmp_path / "other") == RECORDS | {f"case_{i}.png" for i in range(3)}
    for i in range(3):
        np.testing.assert_array_equal(
            imread(tmp_path / "one" / f"case_{i}.png"), imread(tmp_path / "other" / f"case_{i}.png")
        )


def test_geometry_is_the_inputs(tmp_path):
    model = make_model(tmp_path / "model", ending=".nii.gz", reader="SimpleITKIO")
    (tmp_path / "images").mkdir()
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 10, (20, 24, 28)).astype(np.float32))
    image.SetSpacing((1.0, 1.2, 1.4))
    image.SetOrigin((3.0, -4.0, 5.0))
    image.SetDirection((0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    sitk.WriteImage(image, tmp_path / "images" / "volume_0000.nii.gz")
    done = predict("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", model, "--orthoplane", "--instances")
    assert done == 0
    for name in ("volume", "volume_instances"):
        found = sitk.ReadImage(tmp_path / "out" / f"{name}.nii.gz")
        assert found.GetSize() == image.GetSize()
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(found, get)(), getattr(image, get)(), atol=1e-6)
    told = json.loads((tmp_path / "out" / "predict_from_raw_data_args.json").read_text())
    assert told["retina"]["inference"] == "orthoplane"


def test_model_by_dataset(tmp_path, images, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    name = "nnUNetTrainer__nnUNetPlans__2d"
    make_model(tmp_path / "results" / "Dataset950_test" / name, folds=(1,))
    assert predict("-i", images, "-o", tmp_path / "out", "-d", 950, "-f", 1) == 0
    assert predict("-i", images, "-o", tmp_path / "out", "-d", 950, "-tr", "nnUNetTrainerRETINA") == 2
    shown = capsys.readouterr().err
    assert "no model nnUNetTrainerRETINA__nnUNetPlans__2d" in shown and f"There are {name}" in shown
    assert predict("-i", images, "-o", tmp_path / "out", "-d", 951) == 2
    assert "-d: data set 951 not found" in capsys.readouterr().err
    (tmp_path / "results" / "Dataset950_other").mkdir()
    assert predict("-i", images, "-o", tmp_path / "out", "-d", 950) == 2
    assert "Dataset950_other, Dataset950_test. Give the whole name; or give -m" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_results")
    assert predict("-i", images, "-o", tmp_path / "out", "-d", 950) == 2
    assert "$nnUNet_results is not set" in capsys.readouterr().err


def test_continues_without_redoing(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict("-i", images, "-o", out, "-m", model) == 0
    expected = {i: imread(out / f"case_{i}.png") for i in range(3)}
    (out / "case_1.png").unlink()
    imsave(out / "case_0.png", np.zeros((3, 3), np.uint8), check_contrast=False)
    assert predict("-i", images, "-o", out, "-m", model, "--continue_prediction") == 0
    assert "2 of 3 cases are finished already" in capsys.readouterr().out
    assert imread(out / "case_0.png").shape == (3, 3)
    np.testing.assert_array_equal(imread(out / "case_1.png"), expected[1])
    assert predict("-i", images, "-o", out, "-m", model) == 0, "without the option all are done again"
    np.testing.assert_array_equal(imread(out / "case_0.png"), expected[0])


def test_another_model_or_setting_does_not_go_on(model, images, tmp_path, capsys):
    """What is there and what is added would be of two models, and the records of the second."""
    out, other = tmp_path / "out", tmp_path / "other"
    assert predict("-i", images, "-o", out, "-m", model, "--instances") == 0
    (out / "case_1.png").unlink()
    shutil.copytree(model, other)
    (checkpoint,) = other.glob("fold_*/*.pth")
    content = torch.load(checkpoint, weights_only=False)
    content["network_weights"] = {name: value + 1 for name, value in content["network_weights"].items()}
    torch.save(content, checkpoint)
    for more, differs in (
        (["-m", other, "--instances"], "checkpoint ["),
        (["-m", model, "--instances", "-step_size", 0.4], "-step_size 0.5; this run has 0.4, and would mix the two"),
        (["-m", model, "--instances", "--instance-distance", 3], "min_distance 10.0; this run has 3.0"),
    ):
        records = {path: path.read_bytes() for path in out.glob("*.json")}
        assert predict("-i", images, "-o", out, *more, "--continue_prediction") == 2
        assert f"was begun with {differs}" in capsys.readouterr().err
        assert records == {path: path.read_bytes() for path in out.glob("*.json")}
    assert predict("-i", images, "-o", out, "-m", model, "--continue_prediction") == 0


def test_what_belongs_to_instances_is_refused_without_them(model, images, tmp_path, capsys):
    assert predict("-i", images, "-o", tmp_path / "out", "-m", model, "--instance-size", 9) == 2
    assert "are of --instances. Add it" in capsys.readouterr().err


def test_a_case_is_finished_when_all_its_files_are_there(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict("-i", images, "-o", out, "-m", model) == 0
    assert predict("-i", images, "-o", out, "-m", model, "--c", "--save_probabilities", "--instances") == 0
    assert "3 predicted" in capsys.readouterr().out
    assert {"case_0.npz", "case_0.pkl", "case_0_instances.png", "case_0_instances.csv"} <= files(out)
    assert predict("-i", images, "-o", out, "-m", model, "--c", "--save_probabilities", "--instances") == 0
    assert "0 predicted" in capsys.readouterr().out


def test_instances_beside_the_labels(model, images, tmp_path):
    out = tmp_path / "out"
    options = ("--instances", "--instance-distance", 6, "--instance-size", 4)
    assert predict("-i", images, "-o", out, "-m", model, *options) == 0
    for i in range(3):
        labels, ids = imread(out / f"case_{i}.png"), imread(out / f"case_{i}_instances.png")
        assert ids.shape == labels.shape
        with (out / f"case_{i}_instances.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["id"]) for row in rows] == list(range(1, ids.max() + 1))
        for row in rows:
            inside = ids == int(row["id"])
            assert inside.sum() == int(row["voxels"]) >= 4
            assert set(labels[inside]) == {int(row["label"])}
            assert row["class"] == ("one", "two", "three")[int(row["label"]) - 1]
            assert (row["unit"], float(row["area"]), row["volume"]) == ("voxels", inside.sum(), "")
    assert files(out) >= {"objects.columns.json", "objects.html"}


KILLED = """
import os, signal, sys
from pathlib import Path
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2_retina.commands import predict as command
write = NaturalImage2DIO.write_seg
def half(self, labels, path, properties):
    write(self, labels, path, properties)
    if "case_1" in path:
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
NaturalImage2DIO.write_seg = half
command.main(sys.argv[1:])
"""


def test_killed_while_writing(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["-i", str(images), "-o", str(out), "-m", str(model), "-device", "cpu", "-npp", "0", "-nps", "0"]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert files(out) == RECORDS | {"case_0.png", unfinished(out, "").name, LOCK}, "nothing of case_1 under its name"
    before = os.stat(out / "case_0.png").st_mtime_ns
    assert command.main([*arguments, "--continue_prediction"]) == 0
    assert "1 of 3 cases are finished already" in capsys.readouterr().out
    assert os.stat(out / "case_0.png").st_mtime_ns == before
    assert files(out) == RECORDS | {f"case_{i}.png" for i in range(3)}
    assert imread(out / "case_1.png").shape == (47, 50)


def test_labels_come_last(tmp_path, monkeypatch):
    moved: list[str] = []
    monkeypatch.setattr(os, "replace", noting(moved, lambda _, target: Path(target).name, os.replace))
    with appearing(tmp_path, "a", last="a.tif") as folder:
        for name in ("a.tif", "a.npz", "a_instances.tif"):
            (folder / name).write_text("x")
    assert moved[-1] == "a.tif" and len(moved) == 3


def test_what_a_library_says_of_a_failure_is_one_line(tmp_path):
    with (
        pytest.raises(
            RetinaError, match=r"of a cannot be written to .* \(sitk::ERROR: no\). .* another --output-format"
        ),
        appearing(tmp_path, "a", last="a.tif"),
    ):
        raise RuntimeError("Exception thrown in SimpleITK WriteImage:\n/tmp/a.cxx:12:\nsitk::ERROR: no")
    with pytest.raises(RetinaError, match="See that it is writable and has room"), appearing(tmp_path, "a", last="a"):
        raise OSError(28, "No space left on device")


def test_no_folder_is_made_for_a_url(model, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict("-i", images, "-o", "s3://bucket/out", "-m", model) == 2
    assert "s3:/bucket/out is not a local folder" in capsys.readouterr().err and not Path("s3:").exists()


def test_one_run_in_an_output_folder_at_a_time(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    with held(out):
        (unfinished(out, "") / "case_0").mkdir(parents=True)
        assert predict("-i", images, "-o", out, "-m", model) == 2
        assert "another prediction is writing to" in (shown := capsys.readouterr().err) and "Traceback" not in shown
        assert (unfinished(out, "") / "case_0").is_dir() and not RECORDS & files(out)
    assert predict("-i", images, "-o", out, "-m", model) == 0
    assert files(out) == RECORDS | {f"case_{i}.png" for i in range(3)}


def test_disk_full(model, images, tmp_path, monkeypatch, capsys):
    def full(self, labels, path, properties):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(NaturalImage2DIO, "write_seg", full)
    assert predict("-i", images, "-o", tmp_path / "out", "-m", model) == 2
    assert "case_0 cannot be written" in (shown := capsys.readouterr().err) and "No space left on device" in shown
    assert files(tmp_path / "out") == RECORDS


def test_large_cases_are_not_prepared_ahead(model, images, tmp_path, monkeypatch):
    """No more than one case is held in memory."""
    monkeypatch.setattr(prediction_run, "AHEAD_BYTES", 10)
    held, most = [0], [0]
    prepare, write = CaseWork.prepare, CaseWork.write

    def count(self, case):
        held[0] += 1
        most[0] = max(most[0], held[0])
        return prepare(self, case)

    def uncount(self, *arguments):
        write(self, *arguments)
        held[0] -= 1

    monkeypatch.setattr(CaseWork, "prepare", count)
    monkeypatch.setattr(CaseWork, "write", uncount)
    assert predict("-i", images, "-o", tmp_path / "out", "-m", model) == 0
    assert most[0] == 1 and held[0] == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments) -> str:
    assert predict(*arguments) == 2
    return capsys.readouterr().err


def test_wrong_input(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert "Give either -m MODEL_FOLDER, or -d" in refused(capsys, "-i", images, "-o", out)
    assert "no input folder" in refused(capsys, "-i", tmp_path / "nowhere", "-o", out, "-m", model)
    (tmp_path / "empty").mkdir()
    assert "it is empty" in refused(capsys, "-i", tmp_path / "empty", "-o", out, "-m", model)
    (tmp_path / "empty" / "image.czi").touch()
    shown = refused(capsys, "-i", tmp_path / "empty", "-o", out, "-m", model)
    assert "it holds image.czi. Expected names like CASE_0000.png" in shown
    assert "-1 workers" in refused(capsys, "-i", images, "-o", out, "-m", model, "-npp", -1)
    assert "case case_0: a 2D image of 40 x 50" in refused(capsys, "-i", images, "-o", out, "-m", model, "--orthoplane")
    (tmp_path / "file").touch()
    assert "Give another output folder with -o" in refused(capsys, "-i", images, "-o", tmp_path / "file", "-m", model)


def test_wrong_number_of_channels(model, images, tmp_path, capsys):
    (images / "case_1_0001.png").write_bytes((images / "case_1_0000.png").read_bytes())
    shown = refused(capsys, "-i", images, "-o", tmp_path / "out", "-m", model)
    assert "case case_1" in shown and "has case_1_0000.png, case_1_0001.png; the model takes 1 channel:" in shown
    assert not (tmp_path / "out").exists()


def test_channels_in_one_file(images, tmp_path, capsys):
    """As nnU-Net reads RGB images; how many there are shows when the file is read."""
    model = make_model(tmp_path / "model", channels=3)
    shown = refused(capsys, "-i", images, "-o", tmp_path / "out", "-m", model)
    assert "case case_0 has 1 channels" in shown and "the model takes 3" in shown
    for path in images.iterdir():
        imsave(path, np.stack([imread(path)] * 3, -1), check_contrast=False)
    assert predict("-i", images, "-o", tmp_path / "out", "-m", model) == 0
    assert imread(tmp_path / "out" / "case_0.png").shape == (40, 50)


def test_unreadable_image(model, images, tmp_path, capsys):
    (images / "case_1_0000.png").write_bytes(b"no image")
    shown = refused(capsys, "-i", images, "-o", tmp_path / "out", "-m", model)
    assert "case case_1 cannot be read from" in shown and "--continue_prediction" in shown
    assert "case_0.png" in files(tmp_path / "out"), "what came before is finished"


def test_more_instances_than_16_bits_hold(tmp_path):
    ids = np.arange(70_000, dtype=np.uint32).reshape(1, 700, 100)
    write_wide(Tiff3DIO(), tmp_path / "ids.tif", ids, {"spacing": (1, 1, 1)})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "ids.tif"), ids[0])
    with pytest.raises(RetinaError, match=r"69999 instances, but NaturalImage2DIO writes numbers up to 65535"):
        write_wide(NaturalImage2DIO(), tmp_path / "ids.png", ids, {})


def test_what_is_passed_over_is_named(model, images, tmp_path, capsys):
    (images / "case_0_0000.png").rename(images / "case_0_0000.PNG")
    (images / "case_1_0000.png").rename(images / "case_1.png")
    assert predict("-i", images, "-o", tmp_path / "out", "-m", model) == 0
    shown = capsys.readouterr().out
    assert "not predicted: case_0_0000.PNG (expected the ending .png), case_1.png (expected a channel number" in shown
    (images / "case_3_0000.png").symlink_to("/gone/case_3_0000.png")
    assert "is a link to /gone/case_3_0000.png" in refused(capsys, "-i", images, "-o", tmp_path / "two", "-m", model)


def test_names_do_not_collide(model, images, tmp_path, capsys):
    assert "is the folder of the images and of the predictions" in refused(
        capsys, "-i", images, "-o", images, "-m", model
    )
    (images / "case_0_0000.png").rename(images / "case_1_instances_0000.png")
    arguments = ("-i", images, "-o", tmp_path / "out", "-m", model)
    assert "the instances of case case_1 and the prediction of" in refused(capsys, *arguments, "--instances")
    assert not (tmp_path / "out").exists()
    assert predict(*arguments) == 0


def test_a_spacing_far_from_the_plan_is_said(tmp_path, capsys):
    model = make_model(tmp_path / "model", ending=".nii.gz", reader="SimpleITKIO", spacing=(5.0, 5.0))
    (tmp_path / "in").mkdir()
    for name, spacing in (("far", 1.0), ("near", 6.0)):
        volume = sitk.GetImageFromArray(np.random.default_rng(0).integers(1, 256, (2, 40, 40), dtype=np.uint8))
        volume.SetSpacing((spacing, spacing, 50.0))
        sitk.WriteImage(volume, str(tmp_path / "in" / f"{name}_0000.nii.gz"))
    assert predict("-i", tmp_path / "in", "-o", tmp_path / "out", "-m", model) == 0
    shown = capsys.readouterr().out
    assert "far: its spacing is 1 x 1, the model's 5 x 5" in shown and "near: its" not in shown


def test_cut_files_and_nan_are_refused(tmp_path, capsys):
    model = make_model(tmp_path / "model", ending=".tif", reader="NaturalImage2DIO")
    (tmp_path / "in").mkdir()
    path, image = tmp_path / "in/a_0000.tif", np.ones((40, 40), np.float32)
    image[0, 0] = np.nan
    tifffile.imwrite(path, image)
    arguments = ("-i", tmp_path / "in", "-o", tmp_path / "out", "-m", model)
    assert "the image holds NaN or infinite values" in refused(capsys, *arguments)
    path.write_bytes(path.read_bytes()[:3000])
    assert "cut off" in refused(capsys, *arguments)


def test_instances_in_nm_need_a_pixel_size(model, images, tmp_path, capsys):
    arguments = ("-i", images, "-o", tmp_path / "out", "-m", model, "--instances", "--instance-units", "physical")
    assert '"pixel_size": [Y, X] (nm) in its block "retina"' in refused(capsys, *arguments)
    contents = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**contents, "retina": {"pixel_size": [5.0, 5.0]}}))
    smallest = 4 * 25
    assert predict(*arguments, "--instance-distance", 0, "--instance-size", smallest) == 0
    with (tmp_path / "out/case_0_instances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert min(int(row["voxels"]) for row in rows) >= 4
    assert {(row["unit"], int(row["voxels"]) * 25 == float(row["area"])) for row in rows} == {("nm", True)}


def test_other_images_are_read_as_conversion_reads_them(model, images, tmp_path, capsys):
    """A folder without nnU-Net's names, and a file of another format: the labels are those of the named PNG files."""
    assert predict("-i", images, "-o", tmp_path / "named", "-m", model) == 0
    (tmp_path / "other").mkdir()
    for path in images.iterdir():
        array = imread(path)
        tifffile.imwrite(tmp_path / "other" / f"{path.name[:6]}.tif", 255 - array, photometric="miniswhite")
    capsys.readouterr()
    assert predict("-i", tmp_path / "other", "-o", tmp_path / "out", "-m", model) == 0
    shown = capsys.readouterr().out
    assert f"3 images of {tmp_path / 'other'} read as retina_convert images does" in shown
    assert "case_0: the file shows 0 as white; it was read as it shows" in shown
    assert predict("-i", tmp_path / "other" / "case_1.tif", "-o", tmp_path / "one", "-m", model) == 0
    assert files(tmp_path / "one") == {"case_1.png", *RECORDS}
    for name in files(tmp_path / "named") - RECORDS:
        right = imread(tmp_path / "named" / name)
        np.testing.assert_array_equal(imread(tmp_path / "out" / name), right)
    np.testing.assert_array_equal(imread(tmp_path / "one" / "case_1.png"), imread(tmp_path / "named" / "case_1.png"))
    (tmp_path / "other" / "case_1.tif").write_bytes(b"II*\0cut")
    assert predict("-i", tmp_path / "other", "-o", tmp_path / "none", "-m", model) == 2
    assert "case_1.tif: cannot be read as tif" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_parts_share_the_cases_and_do_not_disturb_each_other(model, images, tmp_path, capsys):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert predict("-i", images, "-o", whole, "-m", model) == 0
    shared.mkdir()
    other = unfinished(shared, "_1_of_2") / "case_1"
    with held(shared, "_0_of_2"):
        assert predict("-i", images, "-o", shared, "-m", model, "-num_parts", 2, "-part_id", 0) == 2
    assert "another prediction is writing" in capsys.readouterr().err
    with held(shared, "_1_of_2"):
        other.mkdir(parents=True)  # as the other part would have it
        assert predict("-i", images, "-o", shared, "-m", model, "-num_parts", 2, "-part_id", 0) == 0
        assert other.is_dir() and not (shared / "case_1.png").exists()
    assert predict("-i", images, "-o", shared, "-m", model, "-num_parts", 2, "-part_id", 1) == 0
    assert files(shared) == files(whole)
    for i in range(3):
        np.testing.assert_array_equal(imread(shared / f"case_{i}.png"), imread(whole / f"case_{i}.png"))
    assert predict("-i", images, "-o", shared, "-m", model, "-num_parts", 2, "-part_id", 2) == 2
    assert "-part_id 2 of -num_parts 2; expected 0 to 1" in capsys.readouterr().err


def test_workers_of_an_engine_write_the_same_and_leave_what_is_done(model, images, tmp_path, capsys, monkeypatch):
    thread_workers.use(monkeypatch)
    common = ("-i", images, "-m", model, "--instances", "--save_probabilities")
    assert predict(*common, "-o", tmp_path / "alone") == 0
    broken = images / "case_1_0000.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    capsys.readouterr()
    assert predict(*common, "-o", tmp_path / "shared", "--workers", 2) == 2
    assert "case case_1 cannot be read" in capsys.readouterr().err
    assert "case_0.png" in files(tmp_path / "shared") and "case_1.png" not in files(tmp_path / "shared")
    broken.write_bytes(content)
    assert predict(*common, "-o", tmp_path / "shared", "--workers", 2, "--c") == 0
    shown = capsys.readouterr().out
    assert "cases are finished already" in shown and "case_1   1 x 47 x 50" in shown
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
    same = [name for name in files(tmp_path / "alone") if name.endswith((".png", ".csv", ".pkl"))]
    for name in same:
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_images_for_workers_elsewhere_are_laid_where_they_see_them(model, tmp_path, monkeypatch):
    """What is read from other files goes beside the output, not into this machine's temporary folder."""
    seen = []

    def run(self):
        seen.append((self.source, self.workers.scheduler))
        return []

    monkeypatch.setattr(prediction_run.FolderRun, "run", run)
    write_images(tmp_path / "images", 1)
    (tmp_path / "images" / "case_0_0000.png").rename(tmp_path / "images" / "mine.png")
    assert (
        predict("-i", tmp_path / "images", "-o", tmp_path / "new" / "out", "-m", model, "--scheduler", "tcp://a") == 0
    )
    assert seen[0][0].is_relative_to(tmp_path / "new") and seen[0][1] == "tcp://a"


def test_a_model_that_changed_is_loaded_anew(model, monkeypatch):
    """A worker of a scheduler outlives many runs."""
    asked = Model(str(model), (0,), "checkpoint_final.pth", "cpu", PredictionSettings())
    first = asked.load()
    assert asked.load() is first
    os.utime(model / "fold_0" / "checkpoint_final.pth", ns=(1, 1))
    assert asked.load() is not first
