"""Short trainings, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

import torch
from helpers.environment import PROTOCOL
from nnunetv2.run import run_training as nnunet_run

from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights import checkpoint

CPU = torch.device("cpu")


def write_weights(path: Path, size: str, grid: int = 14, **description) -> Path:
    torch.manual_seed(5)
    config = NetworkConfig(**{**NetworkConfig.named(size).to_dict(), "grid_size": grid})
    state = TransUNet(1, 1, config).state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.01)
    checkpoint.save(path, state, config, recipe={"epochs": 1}, **description)
    return path


def train(trainer: str, dataset: int = 901, fold: int | str = 0, configuration: str = "2d", **options: Any) -> None:
    nnunet_run.run_training(str(dataset), configuration, fold, trainer, device=CPU, **options)


def set_protocol(workspace: Path, dataset: int = 901, **settings: Any) -> None:
    path = workspace / "nnUNet_preprocessed" / f"Dataset{dataset}_test" / "dataset.json"
    content = json.loads(path.read_text())
    content["retina"] = PROTOCOL | settings
    path.write_text(json.dumps(content))


def results(workspace: Path) -> list[str]:
    return [str(path) for path in (workspace / "nnUNet_results").rglob("*")]


def fold_folder(
    workspace: Path, trainer: str, dataset: int = 901, fold: int | str = 0, configuration: str = "2d"
) -> Path:
    model = f"{trainer}__nnUNetPlans__{configuration}"
    return workspace / "nnUNet_results" / f"Dataset{dataset}_test" / model / f"fold_{fold}"


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("training_log_*.txt")))


class KilledError(Exception):
    """Stands for the end of the process."""
