"""The systems that RETINA is compared with, through nnU-Net's ``run_training``: training, continuing, predicting."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import known, noting
from helpers.environment import PROTOCOL, SIZES_3D
from helpers.moco import moco, resnet50
from helpers.trainings import CPU, KilledError, fold_folder, log_of, results, train, write_weights
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run import run_training as nnunet_run
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_retina.console.machine import multiplies_bfloat16
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.unet_resnet50 import ENCODER
from nnunetv2_retina.training import baselines
from nnunetv2_retina.weights import checkpoint
from nnunetv2_retina.weights.importing import import_weights

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """Waiting for the disk takes seconds."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def made(monkeypatch):
    """The trainers that nnU-Net makes, in order."""
    trainers, get = [], nnunet_run.get_trainer_from_args

    def remember(*args, **kwargs):
        trainers.append(get(*args, **kwargs))
        return trainers[-1]

    monkeypatch.setattr(nnunet_run, "get_trainer_from_args", remember)
    return trainers


@pytest.fixture
def both(workspace, volumes):
    """The workspace with data set 904 too; what was trained is removed, because these checkpoints are large."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(volumes / name, workspace / name, dirs_exist_ok=True)
    yield workspace
    shutil.rmtree(workspace / "nnUNet_results")


def change_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_protocol(workspace: Path, dataset: int, **settings) -> None:
    path = workspace / "nnUNet_preprocessed" / f"Dataset{dataset}_test" / "dataset.json"
    change_json(path, lambda content: content.update(retina=PROTOCOL | settings))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """MoCo's ResNet-50, imported."""
    folder = tmp_path_factory.mktemp("moco")
    torch.save(moco(resnet50()), folder / "moco.pth.tar")
    return import_weights(folder / "moco.pth.tar", folder / "encoder.pth").path


SYSTEMS = {
    "nnUNetTrainerUNetResNet50": (901, "2d"),
    "nnUNetTrainerUNetResNet50_frozen": (901, "2d"),
    "nnUNetTrainerTransUNet3D_tiny": (904, "3d_fullres"),
    "nnUNetTrainerProtocol": (901, "2d"),
    "nnUNetTrainerProtocol in 3D": (904, "3d_fullres"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_trains_continues_and_predicts(system, both, encoder, monkeypatch, made):
    (dataset, configuration), trainer = SYSTEMS[system], system.split()[0]
    set_protocol(both, dataset, iterations=2, iterations_per_epoch=1, checkpoints=[1])
    options = {"pretrained_weights": str(encoder)} if trainer.endswith("frozen") else {}
    start = nnUNetTrainer.on_epoch_start

    def die_in_the_second_epoch(self):
        if self.current_epoch == 1:
            raise KilledError
        start(self)

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_start", die_in_the_second_epoch)
    with pytest.raises(KilledError):
        train(trainer, dataset, configuration=configuration, **options)
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_start", start)
    train(trainer, dataset, configuration=configuration, continue_training=True)
    assert made[1]._uses_bfloat16() == (configuration == "2d" and multiplies_bfloat16())
    folder = fold_folder(both, trainer, dataset, configuration=configuration)
    names = {path.name for path in folder.glob("*.pth")}
    assert {"checkpoint_final.pth", "checkpoint_iteration_000001.pth"} <= names
    assert np.isfinite(made[1].logger.get_value("train_losses", step=None)).all()
    assert len(made[1].logger.get_value("train_losses", step=None)) == 2
    record = checkpoint.load(folder / "checkpoint_final.pth").retina
    assert record["transfer"]["trainer"] == trainer
    assert record["transfer"]["scope"] == ("encoder" if options else None)
    for name in ("checkpoint_final.pth", "checkpoint_iteration_000001.pth"):
        predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder.parent), (0,), name)
        size = (1, 50, 40) if configuration == "2d" else (10, 40, 40)
        logits = predictor.predict_logits_from_preprocessed_data(torch.randn(1, *size))
        assert logits.shape == (3, *size) and torch.isfinite(logits).all()


def test_the_frozen_encoder_stays_as_it_came_but_its_batch_norms_adapt(both, encoder, made, monkeypatch):
    set_protocol(both, 901, iterations=3, iterations_per_epoch=2)
    modes: dict[str, bool] = {}
    step = nnUNetTrainer.train_step

    def look(self, batch):
        modes.update((name, module.training) for name, module in self.network.named_modules())
        return step(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", look)
    trainer = "nnUNetTrainerUNetResNet50_frozen"
    monkeypatch.setenv("RETINA_WEIGHTS", str(encoder))
    train(trainer)
    stored = checkpoint.load(encoder).weights
    ended = checkpoint.load(fold_folder(both, trainer) / "checkpoint_final.pth").weights
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in ended.items():
        if name.startswith(ENCODER):
            assert torch.equal(value, stored[name]) != name.endswith(statistics), name
    running = [name for name in ended if name.startswith("unet.decoder.") and name.endswith("running_mean")]
    assert running and all(ended[name].isfinite().all() and ended[name].abs().max() > 0 for name in running)
    assert modes["unet.encoder.bn1"] and modes["unet.decoder.blocks.0"]
    held = {id(p) for group in made[0].optimizer.param_groups for p in group["params"]}
    for name, parameter in made[0].network.named_parameters():
        assert (id(parameter) in held) == parameter.requires_grad == (not name.startswith(ENCODER)), name
    report = json.loads((fold_folder(both, trainer) / "transfer_report.json").read_text())
    assert report["network"] == {"encoder": "resnet50"} and report["pretraining"]["trained"] == [ENCODER]
    assert set(report["loaded"]) == {name for name in ended if name.startswith(ENCODER)}
    assert "scope encoder" in log_of(fold_folder(both, trainer))


def test_the_frozen_trainer_without_weights_says_so(both, made):
    set_protocol(both, 901, iterations=1)
    train("nnUNetTrainerUNetResNet50_frozen")
    log = log_of(fold_folder(both, "nnUNetTrainerUNetResNet50_frozen"))
    assert "NO PRE-TRAINED WEIGHTS" in log and "This is not the frozen UNet-ResNet50" in log
    assert all(parameter.requires_grad for parameter in made[0].network.parameters())


@pytest.mark.parametrize(
    ("trainer", "dataset", "other"),
    [
        ("nnUNetTrainerUNetResNet50", 901, ", or use nnUNetTrainerUNetResNet50_frozen"),
        ("nnUNetTrainerTransUNet3D_tiny", 904, ""),
        ("nnUNetTrainerProtocol", 901, ""),
    ],
)
def test_random_initialisation_refuses_weights(both, encoder, trainer, dataset, other):
    configuration = "2d" if dataset == 901 else "3d_fullres"
    message = rf"{trainer} takes no weights file, but -pretrained_weights .* Leave that out{other}$"
    with pytest.raises(RetinaError, match=message):
        train(trainer, dataset, configuration=configuration, pretrained_weights=str(encoder))
    assert results(both) == []


def test_weights_of_the_other_network_are_refused(both, encoder, tmp_path):
    with pytest.raises(RetinaError, match=r"holds a UNet-ResNet50, but .* TransUNet\. Use .*UNetResNet50_frozen"):
        train("nnUNetTrainerRETINA_tiny", pretrained_weights=str(encoder))
    transunet = write_weights(tmp_path / "transunet.pth", "tiny")
    with pytest.raises(RetinaError, match=r"holds a TransUNet, but .* UNet-ResNet50\. Use .*nnUNetTrainerRETINA_tiny"):
        train("nnUNetTrainerUNetResNet50_frozen", pretrained_weights=str(transunet))
    assert results(both) == []


def test_an_encoder_frozen_at_random_stays_as_it_was(both, made):
    trainer = "nnUNetTrainerUNetResNet50_frozen_random"
    set_protocol(both, 901, iterations=1)
    train(trainer)
    names = [name for name, parameter in made[0].network.named_parameters() if parameter.requires_grad]
    assert names and not any(name.startswith(ENCODER) for name in names)
    assert made[0].network.unet.encoder.bn1.num_batches_tracked > 0
    report = json.loads((fold_folder(both, trainer) / "transfer_report.json").read_text())
    assert report["source"] is None and {name.split(".")[1] for name in report["frozen"]} == {"encoder"}
    assert "Random initialisation, at which" in log_of(fold_folder(both, trainer))


def test_grey_weights_go_with_two_channels(both, encoder, monkeypatch):
    monkeypatch.setenv("RETINA_WEIGHTS", str(encoder))
    folder = both / "nnUNet_preprocessed/Dataset901_test"
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    names = {"channel_names": {"0": "SE", "1": "BSE"}}
    dataset_json = json.loads((folder / "dataset.json").read_text()) | names
    trainer = baselines.nnUNetTrainerUNetResNet50_frozen(plans, "2d", 0, dataset_json, CPU)
    trainer.initialize()
    kernel = checkpoint.load(encoder).weights[f"{ENCODER}conv1.weight"]
    assert torch.equal(trainer.network.unet.encoder.conv1.weight, torch.cat([kernel, kernel], dim=1) / 2)
    assert known(trainer._record)["adapted"] == {
        f"{ENCODER}conv1.weight": "1 input channels to 2: repeated in order, times 1/2"
    }


@pytest.mark.parametrize(
    ("trainer", "dataset", "configuration", "message"),
    [
        (
            "nnUNetTrainerTransUNet3D_tiny",
            904,
            "2d",
            r"2d has 2D patches; the 3D TransUNet is three-.* 3d_fullres, or a 2D",
        ),
        (
            "nnUNetTrainerUNetResNet50",
            904,
            "3d_fullres",
            r"has 3D patches; the UNet-ResNet50 is two-.* configuration 2d",
        ),
        ("nnUNetTrainerTransUNet_tiny", 904, "3d_fullres", r"has 3D patches; the TransUNet is two-dimensional"),
        (
            "nnUNetTrainerTransUNet3D_tiny",
            901,
            "3d_fullres",
            r"no configuration 3d_fullres, but 2d\. Choose one of these",
        ),
    ],
)
def test_configurations_of_the_wrong_dimensions_are_refused(both, trainer, dataset, configuration, message):
    with pytest.raises(RetinaError, match=message):
        train(trainer, dataset, configuration=configuration)
    assert results(both) == []


def use_residual_encoders(content: dict[str, Any]) -> None:
    for configuration in content["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"]["network_class_name"] = "a.b.ResidualEncoderUNet"


@pytest.mark.parametrize("trainer", ["nnUNetTrainerTransUNet3D_tiny", "nnUNetTrainerProtocol"])
def test_plans_of_another_network_are_refused(both, trainer):
    dataset, configuration = (904, "3d_fullres") if "3D" in trainer else (901, "2d")
    change_json(both / f"nnUNet_preprocessed/Dataset{dataset}_test/nnUNetPlans.json", use_residual_encoders)
    with pytest.raises(RetinaError, match=rf"are of a ResidualEncoderUNet, but {trainer} builds on a PlainConvUNet"):
        train(trainer, dataset, configuration=configuration)


def test_a_missing_library_is_said_before_any_folder_is_made(both, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RetinaError, match=r'pip install "nnunetv2-retina\[study\]"'):
        train("nnUNetTrainerUNetResNet50")
    assert results(both) == []


def test_3d_trains_in_the_planned_sizes_with_the_published_loss(both, made):
    set_protocol(both, 904, iterations=1, class_weights=[0.1, 1, 3])
    train("nnUNetTrainerTransUNet3D_tiny", 904, configuration="3d_fullres")
    assert made[0].loss.ce.weight.tolist() == pytest.approx([0.1, 1, 3])
    assert made[0].network.bottleneck.grid == (4, 8, 8)
    folder = fold_folder(both, "nnUNetTrainerTransUNet3D_tiny", 904, configuration="3d_fullres")
    saved = json.loads((folder.parent / "plans.json").read_text())["configurations"]["3d_fullres"]
    assert {key: saved[key] for key in SIZES_3D} == SIZES_3D
    group = made[0].optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)


def test_nnunet_under_the_protocol_keeps_its_optimisation(both, made, monkeypatch):
    set_protocol(both, 901, iterations=3, learning_rate=0.5, patch_size=50)
    rates: list[float] = []
    step = noting(rates, lambda self, _: self.optimizer.param_groups[0]["lr"], nnUNetTrainer.train_step)
    monkeypatch.setattr(nnUNetTrainer, "train_step", step)
    train("nnUNetTrainerProtocol")
    np.testing.assert_allclose(rates, [0.01 * (1 - i / 3) ** 0.9 for i in range(3)])
    group = made[0].optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.99, 3e-5, True)
    assert type(made[0].loss).__name__ == "DeepSupervisionWrapper" and made[0].enable_deep_supervision
    saved = json.loads((fold_folder(both, "nnUNetTrainerProtocol").parent / "plans.json").read_text())
    assert saved["configurations"]["2d"]["patch_size"] == [56, 56]  # the next multiple of the network's stride
    assert saved["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256]


def test_the_unet_is_planned_as_nnunet_plans_it(both):
    """For the patch that nnU-Net itself chose, the same network comes out."""
    for dataset in (901, 904):
        plans = json.loads((both / f"nnUNet_preprocessed/Dataset{dataset}_test/nnUNetPlans.json").read_text())
        configuration = PlansManager(plans).get_configuration("2d")
        planned = baselines.plan_unet_2d(configuration, configuration.configuration["architecture"])
        assert planned["patch_size"] == list(configuration.patch_size)
        assert planned["architecture"] == configuration.configuration["architecture"]


def test_the_unet_of_the_papers_patch(both):
    plans = json.loads((both / "nnUNet_preprocessed/Dataset901_test/nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["patch_size"] = [224, 224]
    configuration = PlansManager(plans).get_configuration("2d")
    arguments = baselines.plan_unet_2d(configuration, configuration.configuration["architecture"])
    assert arguments["patch_size"] == [224, 224]
    assert arguments["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256, 512, 512]


@pytest.mark.parametrize(("arm", "trainer"), [("mae", "nnUNetTrainerRETINA"), ("simclr", "nnUNetTrainerRETINA_full")])
def test_the_arms_that_the_paper_dropped_fine_tune(both, made, tmp_path, arm, trainer):
    """What ``retina_pretrain --arm`` writes: trained values of the transformer alone, or of the CNN alone."""
    from PIL import Image

    from pretraining.cli import main

    for i in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        grey = np.random.default_rng(i).integers(0, 255, (224, 224), np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / f"{i}.png")
    options = ["--size", "tiny", "--batch-size", "2", "--device", "cpu", "--precision", "fp32", "--iterations", "1"]
    assert main([str(tmp_path / "images"), "-o", str(tmp_path / "run"), "--arm", arm, *options]) == 0
    weights = tmp_path / "run" / "checkpoint_final.pth"
    set_protocol(both, 901, iterations=1)
    train(f"{trainer}_tiny", pretrained_weights=str(weights))
    stored = checkpoint.load(weights)
    part = {"mae": "transformer.", "simclr": "cnn."}[arm]
    assert part in stored.retina["trained"]
    ended = checkpoint.load(fold_folder(both, f"{trainer}_tiny") / "checkpoint_final.pth").weights
    same = [torch.equal(ended[name], value) for name, value in stored.weights.items() if name.startswith(part)]
    assert all(same) if arm == "mae" else not any(same)
    if arm == "simclr":
        with pytest.raises(RetinaError, match=r"trained values of cnn\. alone.*Use nnUNetTrainerRETINA_full_tiny"):
            train("nnUNetTrainerRETINA_tiny", fold=1, pretrained_weights=str(weights))
