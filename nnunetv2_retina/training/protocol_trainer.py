"""What the trainers under a data set's protocol share: its length, seeds, folds and checkpoints; transferred weights.

``ProtocolTrainer`` trains whatever network nnU-Net builds, as nnU-Net does, under ``dataset.json["retina"]``;
``FineTuningTrainer`` trains as RETINA's fine-tuning does (Xing et al. 2025) and can start from pre-trained weights.
Neither is a trainer to choose: those are in ``trainers`` and ``baselines``. What differs between them is a class
attribute or one of the methods below "what a system decides".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_retina import __version__
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import replacing
from nnunetv2_retina.machine import multiplies_bfloat16
from nnunetv2_retina.network.dice import SquaredDiceLoss
from nnunetv2_retina.protocol import Protocol, iteration_checkpoint
from nnunetv2_retina.training import preflight, seeding
from nnunetv2_retina.training.weights_request import VARIABLE as WEIGHTS_VARIABLE
from nnunetv2_retina.training.weights_request import WeightsRequest, is_validation_only, requested_weights
from nnunetv2_retina.weights import checkpoint, transfer
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.transfer import Scope


class ProtocolTrainer(nnUNetTrainer):
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
    trainer_with_weights: ClassVar[str | None] = None
    """The trainer of the same network that starts from pre-trained weights, for messages."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        self.protocol = Protocol.from_dataset_json(dataset_json)
        plans = deepcopy(plans)
        preflight.check_device(device)
        preflight.check_dimensions(plans, configuration, self.dimensions, self.network_name)
        preflight.write_sizes_into(plans, configuration, self.protocol)
        plans["configurations"][configuration].update(
            self._plan_network(PlansManager(plans).get_configuration(configuration))
        )
        labels = PlansManager(plans).get_label_manager(dataset_json)
        preflight.check_class_weights(labels, self.protocol.class_weights)
        preflight.check_fold(plans, configuration, fold, self.protocol)
        self._seed = seeding.seed_from_environment()
        self._weights: WeightsRequest | None = None
        self._continued = False
        self._record: dict[str, Any] | None = None
        self._load_hook: torch.utils.hooks.RemovableHandle | None = None
        if not plans.get("continue_training") and not is_validation_only():
            self._record = self._plan_transfer()
            if self._record["source"]:
                self._check_channels(plans, configuration, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations)
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 10)
        self.num_epochs = math.ceil(self.protocol.iterations / self.protocol.iterations_per_epoch)
        self.save_every = 1

    # ---- what a system decides

    def _plan_network(self, configuration: ConfigurationManager) -> dict[str, Any]:
        """What this network changes in the configuration's plans, which nnU-Net saves and predicts by."""
        return {}

    def _describe_network(self) -> dict[str, Any]:
        """The network as checkpoints and ``transfer_report.json`` hold it."""
        return dict(self.configuration_manager.configuration["architecture"])

    def _check_weights(self, request: WeightsRequest) -> Checkpoint:
        """Read the weights file that the training starts from, and see that it fits the network."""
        raise NotImplementedError

    def _check_channels(self, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        """Refuse a data set whose channels the pre-trained weights do not take."""

    def _set_train_mode(self) -> None:
        """Training mode, but for what is frozen: see ``transfer``."""
        transfer.set_train_mode(self.network)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the parameters that are trained."""
        return super().configure_optimizers()[0]

    # ---- the network and what is transferred into it

    def _plan_transfer(self) -> dict[str, Any]:
        """Decide what to transfer, and check the file; see ``transfer_report.json`` for what the record holds."""
        record: dict[str, Any] = {"trainer": type(self).__name__, "scope": None, "source": None, "fingerprint": None}
        request = requested_weights()
        if self.transfer_scope is None:
            if request is not None and request.loaded_by_nnunet:
                other = f", or use {self.trainer_with_weights}" if self.trainer_with_weights else ""
                raise RetinaError(
                    f"{type(self).__name__} trains from random initialisation, but -pretrained_weights {request.path} "
                    f"was given. Leave that out{other}"
                )
            return record
        if request is None:
            return record
        stored = self._check_weights(request)
        self._weights = request
        told = ("version", "recipe", "step", "epoch", "trained", "origin")
        return record | {
            "scope": self.transfer_scope,
            "source": str(Path(request.path).resolve()),
            "named_by": request.origin,
            "fingerprint": stored.fingerprint,
            "pretraining": {key: stored.retina[key] for key in told if key in stored.retina},
        }

    def initialize(self) -> None:
        """Build everything (nnU-Net's own), then load ``$RETINA_WEIGHTS``; ``-pretrained_weights`` nnU-Net loads."""
        if self._record is None or (self._weights is None and not self._continued):
            # --c without a checkpoint to continue from, or a trainer made in Python code of one's own
            self._record = self._plan_transfer()
        if self._seed is not None:
            seeding.set_seed(self._seed, self.local_rank)
        super().initialize()
        self.my_init_kwargs["retina"] = {
            "format_version": checkpoint.FORMAT_VERSION,
            "version": __version__,
            "network": self._describe_network(),
            "transfer": self._record,
        }
        if self._weights is not None and not self._weights.loaded_by_nnunet:
            load_pretrained_weights(self.network, self._weights.path)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Freeze what the transfer freezes, and give the rest to the optimiser. Called while nnU-Net initialises."""
        assert self._record is not None
        network = self._plain_network()
        scope = self.scopes[self._record["scope"]] if self._record["scope"] else None
        if scope is not None:
            transfer.freeze(network, scope.frozen)
            if self._weights is not None:
                self._load_hook = transfer.restrict_load(network, scope)
        optimizer = self._make_optimizer()
        # Counted in epochs, as nnU-Net does, with fractions: train_step moves on at every iteration.
        epochs = self.protocol.iterations / self.protocol.iterations_per_epoch
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, epochs)

    def _plain_network(self) -> nn.Module:
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        return network

    def plot_network_architecture(self) -> None:
        """Nothing: nnU-Net's plot needs a package that no longer installs, and says so at every start."""

    # ---- training

    def on_train_start(self) -> None:
        """Report what was transferred, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        if self._load_hook is not None:
            self._load_hook.remove()
            self._load_hook = None
        super().on_train_start()
        self._report_transfer()
        if self._uses_bfloat16():
            self.print_to_log_file("Training in bfloat16 where it is safe: this processor multiplies it natively.")

    def _report_transfer(self) -> None:
        assert self._record is not None
        record = self._record | {"network": self._describe_network()}
        report = transfer.report(self._plain_network(), record, self.scopes)
        if self.local_rank == 0:
            save_json(report, os.path.join(self.output_folder, "transfer_report.json"), sort_keys=False)
        if self._record["scope"] is None and self.transfer_scope is not None:
            self.print_to_log_file(
                "\n!!! NO PRE-TRAINED WEIGHTS: nothing is frozen and the whole network trains from random\n"
                f"!!! initialisation. This is not {self.system}. Give -pretrained_weights FILE, or set "
                f"${WEIGHTS_VARIABLE}.\n",
                add_timestamp=False,
            )
        else:
            self.print_to_log_file(transfer.summary(report))

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; with ``$RETINA_SEED`` the same batches in the same order in every run."""
        if self._seed is None:
            return super().get_dataloaders()
        processes = get_allowed_n_proc_DA()
        before = os.environ.get("nnUNet_n_proc_DA")
        os.environ["nnUNet_n_proc_DA"] = "0"  # plain loaders, to be wrapped
        try:
            loaders = [augmenter.data_loader for augmenter in super().get_dataloaders()]
        finally:
            os.environ.pop("nnUNet_n_proc_DA")
            if before is not None:
                os.environ["nnUNet_n_proc_DA"] = before
        pin = self.device.type == "cuda"
        entropy = (self._seed, self.local_rank, self.current_epoch)
        train, validation = (
            seeding.seeded_loader(loader, min(processes, most), pin, *entropy, stream)
            for stream, (loader, most) in enumerate(zip(loaders, (processes, max(1, processes // 2)), strict=True))
        )
        return train, validation

    def on_train_epoch_start(self) -> None:
        """Shorten the last epoch to the protocol's iterations; set the mode of every module."""
        done = self.current_epoch * self.protocol.iterations_per_epoch
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations - done)
        self._iteration = done
        super().on_train_epoch_start()
        self._set_train_mode()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One iteration at its own learning rate; on processors that multiply bfloat16, under autocast.

        After the iterations that the protocol names, a checkpoint of its own is written.
        """
        self.lr_scheduler.step(self._iteration / self.protocol.iterations_per_epoch)
        self._iteration += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._uses_bfloat16()):
            outputs = super().train_step(batch)
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
        """nnU-Net's split, of a file that keeps the cases of one volume together."""
        preflight.check_fold(self.plans_manager.plans, self.configuration_name, self.fold, self.protocol)
        return super().do_split()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint; a run that is killed while writing leaves the one before it."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            with replacing(filename) as temporary:
                super().save_checkpoint(temporary)
        else:
            super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Restore everything, with the set of frozen tensors of the run that is continued."""
        if not self.was_initialized:
            stored = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)
            self._continued, self._weights = True, None
            self._record = stored["init_args"]["retina"]["transfer"]
        super().load_checkpoint(filename_or_checkpoint)


class FineTuningTrainer(ProtocolTrainer):
    """RETINA's fine-tuning of a network with one output, from pre-trained weights or random initialisation.

    SGD, the protocol's learning rate, momentum 0.9, weight decay 1e-4, polynomial decay 0.9 at every iteration; half
    cross entropy with the protocol's class weights, half Dice, as in the released code; nnU-Net's augmentation.
    """

    dimensions = (2,)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.protocol.learning_rate
        self.weight_decay = 1e-4
        self.enable_deep_supervision = False

    def _make_optimizer(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, self.initial_lr, momentum=0.9, weight_decay=self.weight_decay)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing: the network has one output."""

    def _build_loss(self) -> nn.Module:
        dice = {"ddp": self.is_ddp}
        if self.label_manager.has_regions:
            ignore = self.label_manager.ignore_label is not None
            return DC_and_BCE_loss({}, dice, 0.5, 0.5, use_ignore_label=ignore, dice_class=SquaredDiceLoss)
        weights = self.protocol.class_weights
        ce = {"weight": torch.tensor(weights, dtype=torch.float32)} if weights is not None else {}
        loss = DC_and_CE_loss(dice, ce, 0.5, 0.5, self.label_manager.ignore_label, dice_class=SquaredDiceLoss)
        return loss.to(self.device)
