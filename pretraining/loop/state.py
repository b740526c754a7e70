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


@dataclass(frozen=True)
class Images:
    """Which images a run has."""

    fingerprint: str
    """Of their store."""
    training: int
    held_out: int


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


def restore(path: Path, engine: Engine, recipe: Recipe, images: Images) -> Progress:
    """Put a run back to where its latest checkpoint was written.

    Raises:
        RetinaError: if the file cannot be read, or belongs to a run with other settings or other images.
    """
    loaded = checkpoint.load(path)
    _check_same_run(loaded, recipe, images)
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


def latest(output: Path) -> Path | None:
    """Return the checkpoint from which the run in a folder goes on; None if there is no run yet.

    Raises:
        RetinaError: if it has ended and there is nothing to continue from.
    """
    if (output / LATEST).exists():
        return output / LATEST
    if (output / FINAL).exists():
        raise RetinaError(
            f"{output} holds {FINAL} without {LATEST}: nothing to continue from. Choose another output folder (-o)"
        )
    return None


def check_output(output: Path, recipe: Recipe, images: Images | None = None) -> None:
    """Check, before the work of it, that a run can be continued where an output folder holds one.

    Args:
        output: the folder.
        recipe: of the run to be.
        images: of the run to be; None where they are not known yet.

    Raises:
        RetinaError: as ``restore`` and ``latest``.
    """
    if path := latest(output):
        _check_same_run(checkpoint.load(path), recipe, images)


def _check_same_run(loaded: checkpoint.Checkpoint, recipe: Recipe, images: Images | None) -> None:
    path = loaded.path
    if not loaded.training:
        raise RetinaError(
            f"{path} holds weights but no state to continue from. Start from them with --init in another output folder"
        )
    differences = _differences(loaded, recipe)
    if images is not None:
        differences += _other_images(loaded, images)
    if differences:
        raise RetinaError(
            f"{path.parent} holds a run with other settings: {shorten(differences)}. Take these settings to continue "
            "it, or another output folder (-o) to begin anew"
        )


def _other_images(loaded: checkpoint.Checkpoint, images: Images) -> list[str]:
    """Say whether a run had other images, or of the same store others to train on."""
    if checkpoint.entry(loaded.path, loaded.retina, "store").get("fingerprint") != images.fingerprint:
        return ["other images"]
    counts = {"training": images.training, "held_out": images.held_out}
    recorded = checkpoint.entry(loaded.path, loaded.retina, "images")
    if not recorded or recorded == counts:
        return []
    return [f"{recorded.get('training')} images to train on there, {images.training} now"]


def _differences(loaded: checkpoint.Checkpoint, recipe: Recipe) -> list[str]:
    """Say where the settings differ. Before ``norm_batch`` a batch norm or a contrast saw what was computed at once."""
    recorded = checkpoint.entry(loaded.path, loaded.retina, "recipe")
    if "norm_batch" in recorded:
        return recipe.differences(recorded)
    execution = checkpoint.entry(loaded.path, loaded.retina, "execution")
    seen = execution.get("micro_batch", recipe.seen_together)
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
