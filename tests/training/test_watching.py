"""A training that is watched: what TensorBoard and W&B get, the picture of patches, and that nothing else changes."""

import json
import sys
import types
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers.trainings import CPU, fold_folder, log_of, set_protocol, train
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_retina.display.patches import GAP, PICTURE, patch_rows
from nnunetv2_retina.training import watching
from nnunetv2_retina.training.trainers import nnUNetTrainerTransUNet_tiny
from nnunetv2_retina.training.watching import TITLE, is_drawn
from nnunetv2_retina.weights import checkpoint

TRAINER = "nnUNetTrainerTransUNet_tiny"


class Writer:
    """Stands for TensorBoard's: the tests' environment has none."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.texts, self.pictures = folder, purge_step, {}, {}, {}
        written.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars.setdefault(tag, []).append((step, float(value)))

    def add_text(self, tag, text, step):
        self.texts[tag] = text

    def add_image(self, tag, picture, step, dataformats):
        assert (tag, dataformats) == (TITLE, "HWC")
        self.pictures[step] = picture

    def flush(self):
        pass


written: list[Writer] = []


@pytest.fixture(autouse=True)
def short(monkeypatch, one_thread):
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, *args: None)
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)


@pytest.fixture
def tensorboard(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    vars(module)["SummaryWriter"] = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    written.clear()
    return written


@pytest.fixture
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails


def test_tensorboard_gets_every_number_by_name_and_the_patches(workspace, tensorboard):
    set_protocol(workspace, iterations=3, iterations_per_epoch=1)
    train(TRAINER)
    (writer,) = tensorboard
    folder = fold_folder(workspace, TRAINER)
    assert writer.folder == str(folder / "tensorboard") and writer.folder in log_of(folder)
    log = torch.load(folder / "checkpoint_final.pth", weights_only=False)["logging"]
    for tag, key in (("loss/training", "train_losses"), ("loss/validation", "val_losses"), ("learning_rate", "lrs")):
        assert [value for _, value in writer.scalars[tag]] == pytest.approx([float(value) for value in log[key]])
        assert [step for step, _ in writer.scalars[tag]] == [0, 1, 2]
    for number, name in enumerate(("one", "two")):
        values = [float(classes[number]) for classes in log["dice_per_class_or_region"]]
        assert [value for _, value in writer.scalars[f"pseudo_dice/{name}"]] == pytest.approx(values, nan_ok=True)
    assert all(0 < seconds < 60 for _, seconds in writer.scalars["seconds"])
    assert '"iterations": 3' in writer.texts["retina"] and "scope" in writer.texts["retina"]
    assert sorted(writer.pictures) == [0, 1, 2]
    np.testing.assert_array_equal(iio.imread(folder / PICTURE), writer.pictures[2])
    both = 2 * 64 + GAP  # image and label, of 64 pixels each, are the same all through
    np.testing.assert_array_equal(writer.pictures[0][:, :both], writer.pictures[2][:, :both])


def started(workspace, monkeypatch, epoch=0, dataset=901):
    """A trainer whose training has just begun, but for nnU-Net's own part of that."""
    trainer = trainer_with_labels(workspace, dataset)
    trainer.current_epoch = epoch
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    watching.WatchedTrainer.on_train_start(trainer)
    return trainer


def test_a_continued_training_goes_on_in_the_same_place(workspace, tensorboard, monkeypatch):
    for epoch in (0, 2):
        started(workspace, monkeypatch, epoch)
    assert [writer.purge_step for writer in tensorboard] == [0, 2]
    assert tensorboard[0].folder == tensorboard[1].folder


def test_without_tensorboard_the_picture_is_there_and_the_weights_are_the_same(workspace, no_tensorboard, monkeypatch):
    """And drawing changes nothing: with RETINA_SEED the weights are those of a training that draws nothing."""
    set_protocol(workspace, iterations=2, iterations_per_epoch=1)
    monkeypatch.setenv("RETINA_SEED", "1")
    ended = []
    for drawn in (True, False):
        monkeypatch.setattr(watching, "is_drawn", lambda epoch, epochs, drawn=drawn: drawn)
        train(TRAINER)
        folder = fold_folder(workspace, TRAINER)
        assert (folder / PICTURE).is_file() and not (folder / "tensorboard").exists()
        if drawn:
            before = (folder / PICTURE).stat().st_mtime_ns
        ended.append(checkpoint.load(folder / "checkpoint_final.pth").weights)
    assert (folder / PICTURE).stat().st_mtime_ns == before
    assert all(torch.equal(value, ended[1][key]) for key, value in ended[0].items())


def test_it_can_be_switched_off(workspace, tensorboard, monkeypatch):
    monkeypatch.setenv("RETINA_TENSORBOARD", "0")
    started(workspace, monkeypatch)
    assert tensorboard == []


def test_weights_and_biases_get_the_pictures_through_nnunets_own_logger(workspace, no_tensorboard, monkeypatch):
    got: dict[tuple[str, int], Any] = {}
    config: dict[str, Any] = {}

    class Wandb:
        def __init__(self, folder, resume):
            self.run = object()

        def log(self, key, value, step):
            got[key, step] = value

        update_config = staticmethod(config.update)

    fake = types.ModuleType("wandb")
    vars(fake)["Image"] = lambda picture: ("picture", picture.shape)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.WandbLogger", Wandb)
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    trainer = started(workspace, monkeypatch, epoch=1)
    trainer._show(np.zeros((132, 200, 3), np.uint8))
    assert got == {(TITLE, 1): ("picture", (132, 200, 3))} and "retina" in config


def trainer_with_labels(workspace, dataset):
    folder = workspace / "nnUNet_preprocessed" / f"Dataset{dataset}_test"
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    return nnUNetTrainerTransUNet_tiny(plans, "2d", 0, json.loads((folder / "dataset.json").read_text()), CPU)


def test_targets_become_label_values(workspace):
    plain = trainer_with_labels(workspace, 902)  # ignore is 3
    values = np.array([[0, 1], [2, 3]], np.float32)
    np.testing.assert_array_equal(plain._label_map(values[None]), [[0, 1], [2, 3]])
    assert plain._class_names() == ["one", "two"]
    regions = trainer_with_labels(workspace, 903)  # any = 1 and 2, two = 2
    channels = np.array([[[0, 1], [1, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]], bool)
    np.testing.assert_array_equal(regions._label_map(channels), [[0, 1], [2, 3]])
    assert regions._class_names() == ["any", "two"]


def test_volumes_show_the_slice_with_most_labels(workspace, monkeypatch):
    trainer = trainer_with_labels(workspace, 901)
    data, target = torch.rand(1, 1, 3, 6, 6), torch.zeros(1, 1, 3, 6, 6)
    target[0, 0, 2, 1:3, 1:3] = 1
    logits = torch.zeros(1, 3, 3, 6, 6)
    logits[0, 2, 2] = 1  # the last slice is predicted as class 2
    monkeypatch.setattr(trainer, "_plain_network", lambda: lambda patches: [logits])  # as with deep supervision
    monkeypatch.setattr(watching, "patch_rows", lambda *given: given)
    images, truths, predictions, foreground, ignore = trainer._draw(data, target)
    np.testing.assert_array_equal(images[0], data[0, 0, 2])
    np.testing.assert_array_equal(truths[0], target[0, 0, 2])
    assert (predictions[0] == 2).all() and foreground == [1, 2] and ignore is None


def test_rows_have_the_colours_of_our_reports():
    image = np.tile(np.arange(8.0), (6, 1))
    truth, prediction = np.zeros((6, 8), int), np.zeros((6, 8), int)
    truth[:, 0], truth[:, 1], prediction[:, 0] = 1, 9, 1
    picture = patch_rows([image, image], [truth, truth], [prediction, truth * 0], [1], ignore=9)
    assert picture.shape == (2 * 6 + GAP, 3 * 8 + 2 * GAP, 3) and picture.dtype == np.uint8
    assert (picture[6 : 6 + GAP] == 255).all() and (picture[:6, 8 : 8 + GAP] == 255).all()
    assert (picture[0, :8, 0] == picture[0, :8, 1]).all()  # grey
    np.testing.assert_array_equal(picture[0, 8 + GAP], [0, 79, 58])  # black, half of #009E73
    np.testing.assert_array_equal(picture[0, 8 + GAP + 1] > 100, [True, False, True])  # magenta
    np.testing.assert_array_equal(picture[0, 16 + 2 * GAP], [0, 79, 58])
    assert (picture[6 + GAP, 16 + 2 * GAP] == 0).all()


@pytest.mark.parametrize(("epochs", "drawn"), [(1, [0]), (4, [0, 1, 2, 3]), (50, [0, *range(4, 50, 5)])])
def test_pictures_are_rare(epochs, drawn):
    assert [epoch for epoch in range(epochs) if is_drawn(epoch, epochs)] == drawn
