"""What the trainers under a data set's protocol share: its length, seeds, folds and checkpoints; transferred weights.

``ProtocolTrainer`` trains whatever network nnU-Net builds, as nnU-Net does, under ``dataset.json["retina"]``. It is no
trainer to choose: those are in ``trainers`` and ``baselines``. What differs between them is a class attribute or one of
the methods below "what a system decides".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_retina import __version__
from nnunetv2_retina.console.machine import multiplies_bfloat16
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import remove_leftovers, replacing, write_json
from nnunetv2_retina.network import TransUNet, starts
from nnunetv2_retina.network.unet_resnet50 import UNetResNet50
from nnunetv2_retina.protocol import EARLIER, Protocol, iteration_checkpoint, with_usual
from nnunetv2_retina.training import continuing, preflight, seeding
from nnunetv2_retina.training.watching import WatchedTrainer
from nnunetv2_retina.training.weights_request import VARIABLE as WEIGHTS_VARIABLE
from nnunetv2_retina.training.weights_request import (
    WeightsRequest,
    is_validation_only,
    option_weights,
    requested_weights,
)
from nnunetv2_retina.weights import checkpoint, transfer
from nnunetv2_retina.weights.transfer import Scope
from nnunetv2_retina.weights.unpickling import take_absent_gpus_for_the_cpu

take_absent_gpus_for_the_cpu()


class ProtocolTrainer(WatchedTrainer):
    """nnU-Net under a data set's protocol: iterations, checkpoints, seed and folds; in 2D patch and batch size.

    Network, loss, optimiser and first learning rate are nnU-Net's; the rate falls at every iteration, over the
    protocol's iterations. 3D configurations keep patch and batch size of the plans: the protocol's are of images.

    Raises:
        RetinaError: before any folder is made, for a wrong protocol, weights file, fold, configuration or device.
    """

    system: ClassVar[str] = "nnU-Net"
    """What it is called in messages."""
    network_name: ClassVar[str] = "nnU-Net's network"
    """What its network is called in messages."""
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    """Of the patches that its network takes."""
    transfer_scope: ClassVar[str | None] = None
    """What is taken from pre-trained weights, a key of ``scopes``; None: random initialisation."""
    scopes: ClassVar[Mapping[str, Scope]] = {}
    """The rules of transfer that its network knows."""
    usual: ClassVar[Mapping[str, Any]] = {}
    """Settings of this trainer's where the data set's block does not say otherwise, instead of ``Protocol``'s."""
    frozen_at_random: ClassVar[tuple[str, ...]] = ()
    """Prefixes of tensors that stay as they were initialised, where nothing is transferred."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        dataset_json = with_usual(dataset_json, self.usual)
        self.protocol = Protocol.from_dataset_json(dataset_json)
        plans = deepcopy(plans)
        preflight.check_device(device)
        preflight.check_environment()
        preflight.check_dataset_json(dataset_json)
        preflight.check_dimensions(plans, configuration, self.dimensions, self.network_name)
        preflight.check_start(self.protocol, self._reference_network(), self.network_name)
        preflight.write_sizes_into(plans, configuration, self.protocol)
        plans["configurations"][configuration].update(
            self._plan_network(PlansManager(plans).get_configuration(configuration))
        )
        labels = PlansManager(plans).get_label_manager(dataset_json)
        preflight.check_class_weights(labels, self.protocol.class_weights)
        split = preflight.check_fold(plans, configuration, fold, self.protocol)
        self._seed = seeding.seed_from_environment()
        self._weights: WeightsRequest | None = None
        self._continued = False
        self._record: dict[str, Any] | None = None
        self._load_hooks = ExitStack()
        self._file_shapes: dict[str, tuple[int, ...]] = {}
        self._resumes = bool(plans.get("continue_training"))
        if self._resumes:
            preflight.check_nothing_to_load(option_weights())
            self._resumes = continuing.has_checkpoint(plans, configuration, fold, type(self).__name__)
        if not self._resumes and not is_validation_only():
            self._record = self._plan_transfer(plans, configuration, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations)
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 10)
        self.num_epochs = math.ceil(self.protocol.iterations / self.protocol.iterations_per_epoch)
        self.save_every = 1
        self._set_attributes()
        settings = continuing.lasting_settings(plans, configuration, dataset_json)
        cases = {part: sorted(split[part]) for part in ("train", "val")}
        self._settings = {**settings, **cases, "seed": self._seed}

    # ---- what a system decides

    def _set_attributes(self) -> None:
        """Set what differs from nnU-Net's trainer in attributes, once it has set its own."""

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        """Return what this network changes in the configuration's plans, which nnU-Net saves and predicts by."""
        return {}

    def _reference_network(self, channels: int = 1) -> TransUNet | UNetResNet50 | None:
        """Build what pre-trained weights must fit: the network for so many channels; None if it takes no weights."""
        return None

    def _set_train_mode(self) -> None:
        """Put all that is not frozen into training mode: see ``transfer``."""
        transfer.set_train_mode(self.network)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the parameters that are trained."""
        optimizer: torch.optim.Optimizer = super().configure_optimizers()[0]
        return optimizer

    # ---- the network and what is transferred into it

    def _plan_transfer(self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> dict[str, Any]:
        """Decide what to transfer, and check the file; see ``transfer_report.json`` for what the record holds."""
        record: dict[str, Any] = {"trainer": type(self).__name__, "scope": None, "source": None, "fingerprint": None}
        reference = self._reference_network(preflight.count_channels(plans, configuration, dataset_json))
        if self.transfer_scope is None or reference is None:
            preflight.check_nothing_to_take(option_weights(), type(self).__name__, reference)
            return record
        if (request := requested_weights(self.protocol.weights)) is None:
            return record
        scope = self.scopes[self.transfer_scope]
        stored, fitted = preflight.check_weights(request, reference, scope)
        self._weights, self._file_shapes = request, fitted.shapes
        trained = transfer.trained_prefixes(stored.retina)
        return record | {
            "scope": self.transfer_scope,
            "source": str(Path(request.path).resolve()),
            "named_by": request.origin,
            "fingerprint": stored.fingerprint,
            "trained": list(trained),
            "adapted": {name: how for name, how in fitted.changes.items() if scope.within(trained).takes(name)},
            "pretraining": preflight.told_of_pretraining(stored),
            "seen": preflight.seen_in_pretraining(stored, plans["dataset_name"]),
        }

    def _describe_network(self) -> dict[str, Any]:
        """Return the network as checkpoints and ``transfer_report.json`` hold it."""
        reference = self._reference_network()
        return (
            reference.config.to_dict() if reference else dict(self.configuration_manager.configuration["architecture"])
        )

    def initialize(self) -> None:
        """Build everything (nnU-Net's own), then load ``$RETINA_WEIGHTS``; ``-pretrained_weights`` nnU-Net loads."""
        if self._record is None or (self._weights is None and not self._continued):
            # a trainer made in Python code of its own
            self._record = self._plan_transfer(self.plans_manager.plans, self.configuration_name, self.dataset_json)
        if self._seed is not None:
            seeding.set_seed(self._seed, self.local_rank)
        super().initialize()
        self.my_init_kwargs["retina"] = {
            "format_version": checkpoint.FORMAT_VERSION,
            "version": __version__,
            "network": self._describe_network(),
            "transfer": self._record,
            "settings": self._settings,
        }
        if self._weights is not None and not self._weights.loaded_by_nnunet:
            load_pretrained_weights(self.network, self._weights.path)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Freeze what the transfer freezes, and give the rest to the optimiser. Called while nnU-Net initialises."""
        assert self._record is not None
        network = self._plain_network()
        if isinstance(network, TransUNet):
            starts.begin(network, self.protocol.positions, self.protocol.attention)
        scope = transfer.scope_of(self._record, self.scopes)
        transfer.freeze(network, scope.frozen if scope is not None else self.frozen_at_random)
        if scope is not None and self._weights is not None:
            self._load_hooks = transfer.restrict_load(network, scope, self._file_shapes)
        optimizer = self._make_optimizer()
        # Counted in epochs, as nnU-Net does, with fractions: train_step moves on at every iteration.
        epochs = self.protocol.iterations / self.protocol.iterations_per_epoch
        return optimizer, self._make_schedule(optimizer, epochs)

    def _make_schedule(self, optimizer: torch.optim.Optimizer, epochs: float) -> PolyLRScheduler:
        """Return the schedule of the learning rate, whose steps are epochs and fractions of them."""
        return PolyLRScheduler(optimizer, self.initial_lr, epochs)

    def plot_network_architecture(self) -> None:
        """Do nothing: nnU-Net's plot needs a package that no longer installs, and says so at every start."""

    # ---- training

    def on_train_start(self) -> None:
        """Report what was transferred, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        self._load_hooks.close()
        super().on_train_start()
        if self.local_rank == 0:
            remove_leftovers(Path(self.output_folder))
        self._report_transfer()
        if self._uses_bfloat16():
            self.print_to_log_file("Training in bfloat16 where it is safe: this processor multiplies it natively.")

    def _report_transfer(self) -> None:
        assert self._record is not None
        record = self._record | {"network": self._describe_network()}
        report = transfer.report(self._plain_network(), record, self.scopes)
        if self.local_rank == 0:
            write_json(Path(self.output_folder) / "transfer_report.json", report)
        if self._record["scope"] is None and self.transfer_scope is not None:
            self.print_to_log_file(
                "\n!!! NO PRE-TRAINED WEIGHTS: nothing is frozen and the whole network trains from random\n"
                f"!!! initialisation. This is not {self.system}. Give -pretrained_weights FILE, or set "
                f"${WEIGHTS_VARIABLE}.\n",
                add_timestamp=False,
            )
        else:
            self.print_to_log_file(transfer.summary(report))
        if self._record.get("seen"):
            self.print_to_log_file(
                f"The pre-training saw images of this data set, without labels: {' and '.join(self._record['seen'])}. "
                "Scores of them are in-domain: say so where you report them."
            )

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's loaders; with ``$RETINA_SEED`` the same batches in the same order in every run."""
        processes = get_allowed_n_proc_DA()
        with seeding.no_workers() if self._seed is not None else nullcontext():  # plain loaders, to be wrapped
            train, validation = super().get_dataloaders()
        if self._seed is None:
            return train, validation
        pin, epoch = self.device.type == "cuda", self.current_epoch
        numbers = epoch * self.protocol.iterations_per_epoch, epoch * self.num_val_iterations_per_epoch
        entropy = self._seed, self.local_rank
        return (
            seeding.seeded_loader(train.data_loader, processes, pin, numbers[0], *entropy, seeding.TRAINING),
            seeding.seeded_loader(
                validation.data_loader, min(processes, max(1, processes // 2)), pin, numbers[1], *entropy,
                seeding.VALIDATION,
            ),
        )  # fmt: skip

    def on_train_epoch_start(self) -> None:
        """Shorten the last epoch to the protocol's iterations; set the mode of every module."""
        done = self.current_epoch * self.protocol.iterations_per_epoch
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations - done)
        self._iteration = done
        super().on_train_epoch_start()
        self._set_train_mode()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train one iteration at its own learning rate; on processors that multiply bfloat16, under autocast.

        After the iterations that the protocol names, a checkpoint of its own is written.
        """
        if self._seed is not None:
            seeding.set_seed(self._seed, self.local_rank, seeding.STEP, self._iteration)
        self.lr_scheduler.step(self._iteration / self.protocol.iterations_per_epoch)
        self._iteration += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._uses_bfloat16()):
            outputs: dict[str, Any] = super().train_step(batch)
        if self._iteration in (self.protocol.checkpoints or ()):
            self.save_checkpoint(os.path.join(self.output_folder, iteration_checkpoint(self._iteration)))
        return outputs

    def _uses_bfloat16(self) -> bool:
        # nnU-Net leaves autocast out on CPUs, where float16 is slow; bfloat16 is not, where the processor knows it.
        # Not in 3D: the backward pass of 3D convolutions in bfloat16 writes beyond its memory on patches of 10 x 384 x
        # 384 and ends the process (PyTorch 2.15, AMX; two Conv3d layers of 32 channels show it).
        flat = len(self.configuration_manager.patch_size) == 2
        return self.device.type == "cpu" and flat and multiplies_bfloat16()

    # ---- folds and checkpoints

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return nnU-Net's split, of a file that keeps the cases of one volume together."""
        preflight.check_fold(self.plans_manager.plans, self.configuration_name, self.fold, self.protocol)
        split: tuple[list[str], list[str]] = super().do_split()
        return split

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint; a run that is killed while writing leaves the one before it.

        Raises:
            RetinaError: if it cannot be written, or a weight is not finite: the checkpoint before it is worth more.
        """
        if self.local_rank == 0 and not self.disable_checkpointing:
            if not checkpoint.is_finite(self.network.state_dict()):
                raise RetinaError(
                    f"weights became infinite or not a number by epoch {self.current_epoch} and are not saved. Train "
                    "anew with a lower learning_rate (retina in dataset.json)"
                )
            size = sum(parameter.nbytes for parameter in self.network.parameters())
            with checkpoint.explained(filename, 2 * size), replacing(filename) as temporary:
                super().save_checkpoint(temporary)
        else:
            super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Restore everything, with the set of frozen tensors of the run that is continued."""
        path = Path(filename_or_checkpoint)
        retina = continuing.read_record(path, type(self).__name__)
        if not self.was_initialized:
            self._go_on_with_loss(checkpoint.entry(path, retina, "settings"))
        if self._resumes and not self.was_initialized:
            continuing.check_unchanged(path, retina, self._settings)
        elif is_validation_only():
            continuing.check_scored_alike(path, retina, self._settings)
        if not self.was_initialized:
            self._continued, self._weights, self._record = True, None, retina["transfer"]
        super().load_checkpoint(filename_or_checkpoint)

    def _go_on_with_loss(self, settings: Mapping[str, Any]) -> None:
        """Keep the loss that a training was begun with before there was a choice of losses."""
        if "loss" not in settings:
            self.protocol = replace(self.protocol, loss=EARLIER["loss"])
            self._settings["loss"] = EARLIER["loss"]
