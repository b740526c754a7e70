"""What a run needs to go on where it was: written to ``checkpoint_latest.pth``, beside the weights in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.weights import checkpoint
from pretraining.loop.engine import Engine
from pretraining.recipe import Recipe

LATEST = "checkpoint_latest.pth"
FINAL = "checkpoint_final.pth"
_NETWORK = "network."


@dataclass
class Progress:
    """How far a run is."""

    iteration: int = 0
    """Steps that are done."""
    loss_sum: float = 0.0
    """Of this process, over the steps of the current epoch."""
    loss_count: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record an epoch."""


def save(path: Path, engine: Engine, progress: Progress, description: dict[str, Any], to_continue: bool) -> None:
    """Write the weights and, if the run is to go on from here, its state.

    Raises:
        RetinaError: if the file cannot be written; an earlier one of that name is then untouched.
    """
    objective = engine.objective
    training = {
        "objective": {k: v for k, v in objective.state_dict().items() if not k.startswith(_NETWORK)},
        "optimizer": engine.optimizer.state_dict(),
        "scaler": engine.scaler.state_dict(),
        "progress": vars(progress),
    }
    checkpoint.save(
        path,
        objective.network.state_dict(),
        objective.network.config,
        training=training if to_continue else None,
        iteration=progress.iteration,
        trained=sorted({*objective.trained, *objective.inherited}),
        **description,
    )


def restore(path: Path, engine: Engine, recipe: Recipe, store_fingerprint: str) -> Progress:
    """Put a run back to where its latest checkpoint was written.

    Raises:
        RetinaError: if the file cannot be read, or belongs to a run with other settings or other images.
    """
    loaded = checkpoint.load(path)
    _check_same_run(path, loaded, recipe, store_fingerprint)
    training = loaded.training
    weights = {_NETWORK + name: value for name, value in loaded.weights.items()}
    engine.objective.load_state_dict(weights | training["objective"])
    load_optimizer(engine.optimizer, training["optimizer"])
    if training["scaler"]:  # a run in bf16 or fp32 has none, and an enabled scaler then begins anew
        engine.scaler.load_state_dict(training["scaler"])
    return Progress(**training["progress"])


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's state but for ``fused``, which belongs to the device: where the optimiser has it, it stays.

    It is put into the state before the load, which places AdamW's counts of steps by it.
    """
    groups = [
        saved | {"fused": here["fused"]} if "fused" in here else saved
        for here, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _check_same_run(path: Path, loaded: checkpoint.Checkpoint, recipe: Recipe, store_fingerprint: str) -> None:
    if not loaded.training:
        raise RetinaError(
            f"{path} holds weights but no state to continue from. Start from them with --init in another output folder"
        )
    differences = _differences(loaded, recipe)
    if loaded.retina.get("store", {}).get("fingerprint") != store_fingerprint:
        differences.append("other images")
    if differences:
        raise RetinaError(
            f"{path.parent} holds a run with other settings: {shorten(differences)}. Take these settings to continue "
            "it, or another output folder (-o) to begin anew"
        )


def _differences(loaded: checkpoint.Checkpoint, recipe: Recipe) -> list[str]:
    """Say where the settings differ. Before ``norm_batch`` a batch norm or a contrast saw what was computed at once."""
    recorded = dict(loaded.retina.get("recipe", {}))
    if "norm_batch" in recorded:
        return recipe.differences(recorded)
    seen = loaded.retina.get("execution", {}).get("micro_batch", recipe.seen_together)
    differences = recipe.differences({**recorded, "norm_batch": recipe.norm_batch})
    if recipe.seen_together not in (None, seen):
        what = "a contrast" if recipe.arm == "simclr" else "a batch norm (--norm-batch)"
        differences.append(f"{seen} images together in {what} there, {recipe.seen_together} now")
    if recipe.masked_loss and seen is not None and seen < recipe.batch_size:
        differences.append(f"the masked loss averaged over {seen} images there, over all {recipe.batch_size} now")
    return differences


def software(engine: Engine) -> dict[str, Any]:
    """Return device and versions, for the record."""
    device = engine.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "torch": str(torch.__version__),
        "device": f"{device.type}: {name}",
        "processes": engine.processes.count,
        "micro_batch": engine.micro_batch,
        "precision": str(engine.dtype).removeprefix("torch."),
        "compiled": engine.compiled,
    }
