"""All eight data sets of the five benchmarks, from files in the sources' layout to one training iteration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import benchmark_sources, benchmark_sources_2d
from helpers.environment import FOLDERS, plan_and_preprocess
from helpers.raw_datasets import read_back, report_of
from nnunetv2.run import run_training
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from dataset_conversion.benchmarks import DATASETS
from dataset_conversion.convert import main

MAKERS: dict[str, Callable[[Path], Any]] = {
    "cremi": benchmark_sources.cremi,
    "guay": benchmark_sources.guay,
    "kasthuri": benchmark_sources_2d.kasthuri,
    "perez": benchmark_sources_2d.perez,
    "urocell": benchmark_sources.urocell,
}
BENCHMARK_OF = {f"Dataset{dataset.id}_{dataset.name}": dataset.benchmark for dataset in DATASETS}
NAMES = list(BENCHMARK_OF)
CHEAP = {"iterations": 1, "iterations_per_epoch": 1, "batch_size": 2, "patch_size": 32}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All benchmarks converted by the command, planned and preprocessed by nnU-Net; and what the cases must hold."""
    root = tmp_path_factory.mktemp("benchmarks")
    expected: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            (root / name).mkdir()
            patch.setenv(name, str(root / name))
        for benchmark, make in MAKERS.items():
            source = root / benchmark
            source.mkdir()
            made = make(source)
            names = [name for name in NAMES if benchmark == BENCHMARK_OF[name]]
            expected |= dict(zip(names, made.values() if len(names) > 1 else [made], strict=True))
            assert main([benchmark, str(source)]) == 0
    for dataset in DATASETS:
        plan_and_preprocess(root, dataset.id)
    return root, expected


@pytest.fixture
def cheap(root, monkeypatch):
    """nnU-Net's folders, with settings under which an iteration takes a moment."""
    root, _ = root
    for name in FOLDERS:
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for folder in (root / "nnUNet_preprocessed").iterdir():
        settings = json.loads((folder / "dataset.json").read_text())
        settings["retina"] |= CHEAP
        (folder / "dataset.json").write_text(json.dumps(settings))
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        plans["configurations"]["2d"]["batch_size"] = 2
        network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [4] * network["n_stages"]
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    return root


@pytest.mark.parametrize("name", NAMES)
def test_nnunet_reads_every_voxel_where_it_was(root, name):
    folder, cases = root[0] / "nnUNet_raw" / name, root[1][name]
    assert {case["name"] for case in report_of(folder)["cases"]} == cases.keys()
    for case, written in cases.items():
        image, label, spacing = read_back(folder, case, written.part)
        np.testing.assert_array_equal(image.squeeze(), written.image)
        np.testing.assert_array_equal(label.squeeze(), written.label)
        assert spacing == pytest.approx(written.spacing)
    assert (folder / "conversion_sheet.png").is_file()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trainer", ["nnUNetTrainerRETINA_tiny", "nnUNetTrainer"])
def test_trains_an_iteration(cheap, name, trainer, monkeypatch):
    for fold in (0, "all"):
        made = run_training.get_trainer_from_args(name, "2d", fold, trainer, device=torch.device("cpu"))
        made.num_epochs = made.num_iterations_per_epoch = made.num_val_iterations_per_epoch = 1
        made.disable_checkpointing = True
        made.plot_network_architecture = lambda: None
        monkeypatch.setattr(made, "on_train_end", lambda: None)  # it drops the loaders
        monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)
        made.run_training()
        assert len(made.logger.get_value("train_losses", step=None)) == 1
        assert np.isfinite(made.logger.get_value("train_losses", step=-1))
        used = [set(loader.data_loader.indices) for loader in (made.dataloader_train, made.dataloader_val)]
        report = report_of(cheap / "nnUNet_raw" / name)
        if fold == "all":
            every = {case["name"] for case in report["cases"] if case["split"] == "train"}
            assert used == [every, every]
        else:
            assert used == [set(report["folds"][0][part]) for part in ("train", "val")]
            assert not used[0] & used[1]
