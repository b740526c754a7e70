"""Correct and train again: predictions go out, the corrected boxes come back, and training goes on from the model."""

import json

import numpy as np
import pytest
from helpers.environment import CASES, blobs, plan_and_preprocess
from helpers.raw_datasets import read_back
from helpers.trainings import fold_folder, set_protocol, train
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from PIL import Image

from dataset_conversion.convert import main
from nnunetv2_retina import Predictor
from nnunetv2_retina.weights import checkpoint

BOXES = [np.s_[0:40, 0:48], np.s_[50:80, 20:80]]


@pytest.fixture
def corrected(tmp_path):
    """A folder with an image, its pre-labels and the boxes in which they were corrected; the truth."""
    folder = tmp_path / "corrected"
    for name in ("images", "masks", "boxes"):
        (folder / name).mkdir(parents=True)
    image, truth = blobs(99)
    Image.fromarray(image).save(folder / "images" / "new.png")
    (folder / "boxes" / "new.txt").write_text("0:40,0:48\n50:80,20:80\n")
    return folder, image, truth


def test_the_loop(workspace, corrected, one_thread, capsys, monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_: None)  # starts processes
    folder, image, truth = corrected
    set_protocol(workspace, iterations=1, iterations_per_epoch=1)
    train("nnUNetTrainerRETINA_tiny")
    trained = fold_folder(workspace, "nnUNetTrainerRETINA_tiny")

    labels = Predictor.from_model_folder(trained.parent, device="cpu").predict(image[None], (1, 1))
    for box in BOXES:
        labels[box] = truth[box]
    Image.fromarray(labels).save(folder / "masks" / "new.png")
    raw = workspace / "nnUNet_raw"
    for case in CASES[:2]:  # some of what the model was trained on, so that it is not forgotten
        for source, target in (("imagesTr", "images"), ("labelsTr", "masks")):
            (file,) = (raw / "Dataset901_test" / source).glob(f"{case}*")
            (folder / target / file.name).write_bytes(file.read_bytes())

    command = ["folder", str(folder), "-d", "911", "--name", "test", "--like", "901", "--iterations", "1"]
    assert main(command) == 0, capsys.readouterr().err
    contents = json.loads((raw / "Dataset911_test" / "dataset.json").read_text())
    assert contents["labels"] == {"background": 0, "one": 1, "two": 2, "ignore": 3}
    assert contents["retina"]["patch_size"] == 64 and contents["retina"]["iterations"] == 1
    expected = np.full(truth.shape, 3)
    for box in BOXES:
        expected[box] = truth[box]
    np.testing.assert_array_equal(read_back(raw / "Dataset911_test", "new")[1][0], expected)
    assert (read_back(raw / "Dataset911_test", CASES[0])[1] < 3).all()

    plan_and_preprocess(workspace, 911)
    final = trained / "checkpoint_final.pth"
    train("nnUNetTrainerRETINA_full_tiny", 911, "all", pretrained_weights=str(final))
    again = fold_folder(workspace, "nnUNetTrainerRETINA_full_tiny", 911, "all")
    report = json.loads((again / "transfer_report.json").read_text())
    assert report["source"] == str(final) and report["scope"] == "full" and not report["frozen"]
    assert report["fingerprint"] == checkpoint.load(final).fingerprint
    weights = checkpoint.load(final).weights
    assert set(report["loaded"]) == {name for name in weights if "head" not in name and "seg_layers" not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:, :70], "the image has shape (80, 80), the mask (80, 70); expected the same"),
        (lambda labels: labels + 7, "case new: label value 7 is not declared"),
    ],
)
def test_corrected_labels_that_do_not_fit_are_refused(workspace, corrected, capsys, change, message):
    folder, _, truth = corrected
    Image.fromarray(change(truth)).save(folder / "masks" / "new.png")
    assert main(["folder", str(folder), "-d", "912", "--name", "test", "--like", "901"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (workspace / "nnUNet_raw" / "Dataset912_test").exists()


def test_classes_come_from_one_place_that_has_some(workspace, corrected, capsys):
    folder, _, truth = corrected
    Image.fromarray(truth).save(folder / "masks" / "new.png")
    for more, message in (
        (["--like", "901", "--labels", "1=one"], "Leave one out"),
        (["--like", "903"], "has regions, not classes"),
        (["--like", "999"], "data set 999 not found"),
    ):
        assert main(["folder", str(folder), "-d", "912", "--name", "test", *more]) == 2
        assert message in capsys.readouterr().err
