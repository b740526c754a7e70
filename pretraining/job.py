"""A pre-training from what was asked for to a run that goes on: processes, images, network, earlier state."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import TransUNet, starts
from nnunetv2_retina.weights import shipped
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.compatibility import TRANSUNET, check_compatible, check_values, network_of, shapes_of
from nnunetv2_retina.weights.importing import read_weights
from nnunetv2_retina.weights.transfer import trained_prefixes
from pretraining.loop import state as training_state
from pretraining.loop.batches import read
from pretraining.loop.engine import Engine
from pretraining.loop.output import check_apart, held_output
from pretraining.loop.processes import Processes, StopSignals, join, leave
from pretraining.loop.progress import check_tensorboard
from pretraining.loop.run import Outcome, Run
from pretraining.loop.stream import Stream, split
from pretraining.objectives.distil import Distillation
from pretraining.objectives.mae import MaskedAutoencoder
from pretraining.objectives.masked import MaskedReconstruction
from pretraining.objectives.reconstruction import Objective, Reconstruction
from pretraining.objectives.simclr import SimCLR
from pretraining.objectives.simmim import SimMIM
from pretraining.objectives.teacher import efficientnet_lite0
from pretraining.probe import DatasetProbe
from pretraining.recipe import Execution, Recipe
from pretraining.store.cache import folder_beside, open_or_pack

SAMPLE = 128
"""Images that an objective is shown before the first step."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What ``retina_pretrain`` is asked to do.

    Raises:
        RetinaError: if the output folder lies in the source or in the store.
    """

    source: Path
    """Folder, archive or store of images."""
    output: Path
    store: Path | None = None
    """Where the packed images go; None: beside the source, or in the output folder."""
    init: Path | str | None = None
    """Weights to start from, in any form that ``read_weights`` takes, or a name of ``weights.catalogue``."""
    recipe: Recipe = field(default_factory=Recipe)
    execution: Execution = field(default_factory=Execution)
    packing: dict[str, Any] = field(default_factory=dict)
    """Options of ``packing.pack``."""

    def __post_init__(self) -> None:
        source = self.source.expanduser().resolve()
        check_apart(self.output, images=[source], store=self.store or folder_beside(source))


def pretrain(job: Job, say: Callable[[str], None], begun: Callable[[], None] = lambda: None) -> Outcome:
    """Carry out a pre-training, or continue it where its output folder says it was.

    Args:
        job: what to do.
        say: where messages go; called in the first process only.
        begun: called there once the output folder is found to be this run's.

    Raises:
        RetinaError: for anything a user can put right.
    """
    processes = join(job.execution.device)
    try:
        processes.share(job.recipe.batch_size, job.recipe.normed_together)
        output = held_output(job.output) if processes.is_first else nullcontext()
        with ExitStack() as stack:
            processes.first_before_others(lambda: stack.enter_context(output))
            run = _set_up(job, processes, say if processes.is_first else lambda _: None)
            if processes.is_first:
                begun()
            with StopSignals() as signals:
                return run.fit(signals)
    except OSError as error:
        raise RetinaError(f"{error.filename or job.output}: {error.strerror or error}") from error
    finally:
        leave()


def _set_up(job: Job, processes: Processes, say: Callable[[str], None]) -> Run:
    """Make everything that may be refused before the images are packed, which can take hours."""
    probe = make_probe(job.execution, processes)
    engine = make_engine(job, processes)
    recipe = engine.recipe
    training_state.check_output(job.output, recipe)
    store = processes.first_before_others(
        lambda: open_or_pack(job.source, job.store, job.output / "store", **job.packing)
    )
    training, held_out = split(store, recipe.exclude)
    excluded = len(store) - len(training) - len(held_out)
    say(f"{len(store):,} images of {len(store.groups)} sources in {store.path}")
    say(f"{len(training):,} to train on, {len(held_out):,} held out, {excluded:,} excluded")
    if recipe.arm == "simclr" and len(held_out) < 2:
        say("a single held-out image has nothing to be told apart from: there is no held-out loss (of 150, 2 are)")
    groups = np.asarray(store.group_index)[training]
    run = Run(job.output, engine, job.execution, store, Stream(training, recipe, groups), held_out, probe, say)
    run.restore()
    if not run.progress.iteration:
        sample = training[:: math.ceil(len(training) / SAMPLE)]
        engine.objective.begin(read(store, sample, engine.device).to(engine.device), recipe.seed)
        processes.copy_from_first(engine.objective.buffers())
    return run


def make_engine(job: Job, processes: Processes) -> Engine:
    """Read the weights to start from, and build the network and what trains it.

    Raises:
        RetinaError: for weights that cannot be read or do not fit, a package that is missing, or a batch that cannot be
            divided.
    """
    if job.execution.tensorboard:
        check_tensorboard()
    initial = read_weights(Path(shipped.resolve(job.init))) if job.init else None
    recipe = replace(job.recipe, init=initial.fingerprint) if initial else job.recipe
    return Engine(build_objective(recipe, initial), recipe, job.execution, processes)


def make_probe(execution: Execution, processes: Processes) -> DatasetProbe | None:
    """Read what ``--probe`` names, in the first process.

    Raises:
        RetinaError: see ``DatasetProbe``.
    """
    if not execution.probe or not processes.is_first:
        return None
    return DatasetProbe(execution.probe, execution.probe_label)


def build_objective(recipe: Recipe, initial: Checkpoint | None = None) -> Objective:
    """Build the network, seeded, and what it learns.

    Args:
        recipe: size, arm and options.
        initial: weights to start from, as far as the file says that they were trained; the head too, where it has one
            output channel.

    Raises:
        RetinaError: if they are of another size, or the arm needs a package that is not installed.
    """
    torch.manual_seed(recipe.seed)
    network = TransUNet(1, 1, recipe.network)
    starts.begin(network, recipe.positions, recipe.attention)
    if initial is not None:
        _check_start(initial, network, recipe)
        mine = network.state_dict()
        trained = trained_prefixes(initial.retina)  # the rest is some other random initialisation
        fitting = {k: v for k, v in initial.weights.items() if k.startswith(trained) and k in mine}
        network.load_state_dict({k: v for k, v in fitting.items() if v.shape == mine[k].shape}, strict=False)
    objective = _objective(network, recipe)
    objective.inherited = trained_prefixes(initial.retina) if initial else ()
    return objective


def _check_start(initial: Checkpoint, network: TransUNet, recipe: Recipe) -> None:
    """Say what is wrong with weights to start from in the words of a pre-training, which has sizes and no trainers."""
    shapes = shapes_of(initial.weights)
    theirs = network_of(shapes)
    if theirs is not None and theirs is not TRANSUNET:
        raise RetinaError(f"{initial.path} holds {theirs.name}; --init expects a TransUNet. Give other weights")
    size = TRANSUNET.sizes(shapes) if theirs else None
    if size is not None and size.name != recipe.size:
        raise RetinaError(
            f"{initial.path} is of another size: {TRANSUNET.describe(shapes)}, but --size is {recipe.size}. Give "
            f"--size {size.name}, or weights of size {recipe.size}"
        )
    check_compatible(initial.weights, network, str(initial.path))
    check_values(initial.weights, network, str(initial.path))


def _objective(network: TransUNet, recipe: Recipe) -> Objective:
    settings, together = recipe.augmentation, recipe.normed_together
    cells: dict[str, Any] = {
        "crop": recipe.crop,
        "blanked": recipe.blanked,
        "block": recipe.block,
        "together": together,
    }
    if recipe.arm == "distil":
        return Distillation(network, efficientnet_lite0(), settings, restore=recipe.restore, **cells)
    if recipe.arm == "masked":
        return MaskedReconstruction(network, settings, hide_skips=recipe.hide_skips, **cells)
    if recipe.arm == "simmim":
        return SimMIM(network, settings, **cells)
    if recipe.arm == "mae":
        return MaskedAutoencoder(network, settings, decoder_blocks=recipe.decoder_blocks)
    if recipe.arm == "simclr":
        return SimCLR(network, settings)
    return Reconstruction(
        network,
        settings,
        together=together,
        masked_loss=recipe.masked_loss,
        skip_drop=recipe.skip_drop,
        two_terms=recipe.two_terms,
    )
