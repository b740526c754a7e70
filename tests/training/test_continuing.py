"""``--c`` goes on under the settings that a training was begun with, or is refused; without a checkpoint it begins."""

import json

import pytest
import torch
from helpers.trainings import CPU, KilledError, fold_folder, results, set_protocol, train, write_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.training import trainers

TRAINER = "nnUNetTrainerTransUNet_tiny"


@pytest.fixture
def preprocessed(workspace):
    return workspace / "nnUNet_preprocessed" / "Dataset901_test"


@pytest.fixture
def latest(workspace, preprocessed):
    """A checkpoint of fold 0, of a training that has just been begun."""
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())
    trainer = trainers.nnUNetTrainerTransUNet_tiny(plans, "2d", 0, dataset_json, CPU)
    trainer.initialize()
    path = fold_folder(workspace, TRAINER) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    return path


def test_with_a_seed_a_continued_training_is_the_uninterrupted_one(workspace, monkeypatch, short, tmp_path):
    """Bit for bit: batches, augmentation, dropout, optimiser; also with another number of processes."""
    monkeypatch.setenv("RETINA_SEED", "5")
    set_protocol(workspace, iterations=5, optimiser="adamw")
    folder, start = fold_folder(workspace, TRAINER), nnUNetTrainer.on_epoch_start
    train(TRAINER)
    folder.rename(tmp_path / "whole")

    def die_in_the_third_epoch(self):
        if self.current_epoch == 2:
            raise KilledError
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(nnUNetTrainer, "on_epoch_start", die_in_the_third_epoch)
        with pytest.raises(KilledError):
            train(TRAINER)
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    train(TRAINER, continue_training=True)
    whole, resumed = (
        torch.load(path / "checkpoint_final.pth", weights_only=False) for path in (tmp_path / "whole", folder)
    )
    for name, value in whole["network_weights"].items():
        assert torch.equal(value, resumed["network_weights"][name]), name
    for number, state in whole["optimizer_state"]["state"].items():
        assert torch.equal(state["exp_avg_sq"], resumed["optimizer_state"]["state"][number]["exp_avg_sq"])
    for name in ("train_losses", "val_losses"):
        assert whole["logging"][name] == resumed["logging"][name]


def test_another_seed_is_another_training(latest, monkeypatch):
    monkeypatch.setenv("RETINA_SEED", "6")
    with pytest.raises(RetinaError, match=r"seed was null, now 6\. --c .* seed: \$RETINA_SEED"):
        train(TRAINER, continue_training=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 8}, "iterations was 4, now 8"),
        ({"iterations_per_epoch": 1}, "iterations_per_epoch was 2, now 1"),
        ({"learning_rate": 0.1}, r"learning_rate was 0\.003, now 0\.1"),
        ({"class_weights": [0, 1, 1]}, r"class_weights was null, now \[0, 1, 1\]"),
        ({"patch_size": 48}, r"patch_size was \[64, 64\], now \[48, 48\]"),
        ({"batch_size": 3}, "batch_size was 2, now 3"),
        ({"clip": None}, r"clip was 12\.0, now null"),
    ],
)
def test_changed_settings_are_named(latest, workspace, change, message):
    before = latest.read_bytes()
    set_protocol(workspace, **change)
    with pytest.raises(RetinaError, match=rf"was trained with other settings: {message}\. --c continues a training"):
        train(TRAINER, continue_training=True)
    assert latest.read_bytes() == before and not (latest.parent / "transfer_report.json").exists()


def test_changed_labels_and_cases_are_named(latest, preprocessed):
    contents = json.loads((preprocessed / "dataset.json").read_text())
    contents["labels"] = {"background": 0, "one": 2, "two": 1}
    (preprocessed / "dataset.json").write_text(json.dumps(contents))
    path = preprocessed / "splits_final.json"
    (split, *_) = json.loads(path.read_text())
    moved = split["train"].pop()
    split["val"].append(moved)
    path.write_text(json.dumps([split]))
    words = rf"labels was .*, now .*; train cases: 1 gone \({moved}\); val cases: 1 new \({moved}\)"
    with pytest.raises(RetinaError, match=words):
        train(TRAINER, continue_training=True)


def test_validation_alone_scores_what_was_not_trained_on(latest, preprocessed):
    latest.rename(latest.with_name("checkpoint_final.pth"))
    path = preprocessed / "splits_final.json"
    (split, *_) = json.loads(path.read_text())
    path.write_text(json.dumps([{"train": split["val"], "val": split["train"]}]))
    with pytest.raises(RetinaError, match=r"train cases: .* gone .*val cases: .* --val scores a training on the cases"):
        train(TRAINER, only_run_validation=True)


def test_what_does_not_change_a_training_may_change(latest, workspace, monkeypatch, short):
    set_protocol(workspace, inference="orthoplane", checkpoints=[3], source="a paper")
    monkeypatch.setattr(trainers.nnUNetTrainerTransUNet_tiny, "run_training", lambda self: None)
    train(TRAINER, continue_training=True)


def test_a_checkpoint_without_a_choice_of_losses_goes_on_with_the_one_it_had(latest, workspace, monkeypatch, short):
    content = torch.load(latest, weights_only=False)
    settings = content["init_args"]["retina"]["settings"]
    for name in ("loss", "clip", "foreground", "seed", "schedule", "schedule_iterations", "weight_decay"):
        del settings[name]
    torch.save(content, latest)
    losses = []
    monkeypatch.setattr(
        trainers.nnUNetTrainerTransUNet_tiny, "run_training", lambda self: losses.append(self.protocol.loss)
    )
    train(TRAINER, continue_training=True)
    assert losses == ["squared"]
    set_protocol(workspace, foreground=0.8)
    with pytest.raises(RetinaError, match=r"foreground was null, now 0\.8"):
        train(TRAINER, continue_training=True)


def test_a_checkpoint_of_an_earlier_version_is_continued(latest, workspace, monkeypatch, short):
    content = torch.load(latest, weights_only=False)
    del content["init_args"]["retina"]["settings"]
    torch.save(content, latest)
    set_protocol(workspace, learning_rate=0.1)
    monkeypatch.setattr(trainers.nnUNetTrainerTransUNet_tiny, "run_training", lambda self: None)
    train(TRAINER, continue_training=True)


def test_without_a_checkpoint_the_checks_are_those_of_a_new_training(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_WEIGHTS", str(write_weights(tmp_path / "weights.pth", "retina")))
    with pytest.raises(RetinaError, match="is of another size: retina"):
        train("nnUNetTrainerRETINA_tiny", continue_training=True)
    assert results(workspace) == []


def test_a_full_disk_leaves_the_earlier_checkpoint(latest, workspace, monkeypatch):
    before = latest.read_bytes()

    def full(content, path):
        open(path, "wb").close()
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(
        trainers.nnUNetTrainerTransUNet_tiny, "run_training", lambda self: self.save_checkpoint(str(latest))
    )
    with pytest.raises(
        RetinaError, match=r"checkpoint_latest\.pth cannot be written .* still the earlier one.* MiB free"
    ):
        train(TRAINER, continue_training=True)
    assert latest.read_bytes() == before and [path.name for path in latest.parent.glob("*.tmp")] == []


def test_weights_that_are_not_finite_leave_the_earlier_checkpoint(latest, workspace, monkeypatch):
    before = latest.read_bytes()

    def spoil(self):
        with torch.no_grad():
            next(self.network.parameters())[0] = torch.inf
        self.save_checkpoint(str(latest))

    monkeypatch.setattr(trainers.nnUNetTrainerTransUNet_tiny, "run_training", spoil)
    with pytest.raises(RetinaError, match=r"^weights became infinite or not a number by epoch \d and are not saved"):
        train(TRAINER, continue_training=True)
    assert latest.read_bytes() == before


@pytest.mark.parametrize("missing", ["labels", "file_ending", "channel_names"])
def test_a_dataset_json_that_lacks_something(workspace, preprocessed, missing):
    contents = json.loads((preprocessed / "dataset.json").read_text())
    del contents[missing]
    (preprocessed / "dataset.json").write_text(json.dumps(contents))
    with pytest.raises(RetinaError, match=rf"dataset\.json has no {missing}\. Correct the one in the raw data set"):
        train(TRAINER)
    assert results(workspace) == []


def test_a_number_of_processes_that_is_none(workspace, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "abc")
    with pytest.raises(RetinaError, match=r"\$nnUNet_n_proc_DA is 'abc'; expected a whole number"):
        train(TRAINER)
    assert results(workspace) == []
