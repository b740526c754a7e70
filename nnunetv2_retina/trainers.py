"""nnU-Net trainers of the 2D TransUNet with transferred, frozen transformer blocks (Xing et al. 2025, Fine-tuning).

Variants are class attributes under names of their own, because nnU-Net's trainers take no further arguments. nnU-Net
finds the classes through ``nnunetv2_retina.registration``.
"""

from __future__ import annotations

import math
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

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

from nnunetv2_retina import __version__, checkpoint, preflight, seeding, transfer
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.losses import SquaredDiceLoss
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.processor import multiplies_bfloat16
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.weights_option import VARIABLE as WEIGHTS_VARIABLE
from nnunetv2_retina.weights_option import WeightsRequest, is_validation_only, requested_weights

__all__ = [
    "nnUNetTrainerRETINA",
    "nnUNetTrainerRETINA_base",
    "nnUNetTrainerRETINA_encoder",
    "nnUNetTrainerRETINA_encoder_base",
    "nnUNetTrainerRETINA_encoder_tiny",
    "nnUNetTrainerRETINA_full",
    "nnUNetTrainerRETINA_full_base",
    "nnUNetTrainerRETINA_full_tiny",
    "nnUNetTrainerRETINA_tiny",
    "nnUNetTrainerTransUNet",
    "nnUNetTrainerTransUNet_base",
    "nnUNetTrainerTransUNet_tiny",
]


class nnUNetTrainerRETINA(nnUNetTrainer):
    """2D TransUNet of size ``retina`` whose transformer blocks come from pre-training and stay frozen.

    SGD, learning rate 0.003, momentum 0.9, weight decay 1e-4, polynomial decay 0.9 at every iteration; half cross
    entropy, half Dice, as in the released code; nnU-Net's augmentation. Iterations, batch and patch
    size and class weights (and another learning rate) come from ``dataset.json["retina"]``.

    Raises:
        RetinaError: before any folder is made, for a wrong protocol, weights file, fold, configuration or device.
    """

    network_size = "retina"
    transfer_scope: str | None = "transformer"

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
        config = NetworkConfig.named(self.network_size)
        preflight.check_device(device)
        preflight.write_protocol_into(plans, configuration, self.protocol, config)
        labels = PlansManager(plans).get_label_manager(dataset_json)
        preflight.check_class_weights(labels, self.protocol.class_weights)
        preflight.check_fold(plans, configuration, fold, self.protocol)
        self._seed = seeding.seed_from_environment()
        self._weights: WeightsRequest | None = None
        self._continued = False
        self._record: dict[str, Any] | None = None
        self._load_hook: torch.utils.hooks.RemovableHandle | None = None
        if not plans.get("continue_training") and not is_validation_only():
            self._record = self._plan_transfer(config)
            if self._record["source"]:
                preflight.check_channels(plans, configuration, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.protocol.learning_rate
        self.weight_decay = 1e-4
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations)
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 10)
        self.num_epochs = math.ceil(self.protocol.iterations / self.protocol.iterations_per_epoch)
        self.save_every = 1
        self.enable_deep_supervision = False

    # ---- the network and what is transferred into it

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """The TransUNet of the sizes that the plans hold. nnU-Net calls this at training and prediction."""
        config = NetworkConfig.from_dict(configuration_manager.network_arch_init_kwargs["config"])
        return TransUNet(num_input_channels, num_output_channels, config)

    def _plan_transfer(self, config: NetworkConfig) -> dict[str, Any]:
        """Decide what to transfer, and check the file; see ``transfer_report.json`` for what the record holds."""
        record: dict[str, Any] = {"trainer": type(self).__name__, "scope": None, "source": None, "fingerprint": None}
        request = requested_weights()
        if self.transfer_scope is None:
            if request is not None and request.loaded_by_nnunet:
                raise RetinaError(
                    f"{type(self).__name__} trains from random initialisation, but -pretrained_weights {request.path} "
                    "was given. Leave that out, or use nnUNetTrainerRETINA (or its _encoder and _full variants)"
                )
            return record
        if request is None:
            return record
        stored = preflight.check_weights(request, config, transfer.SCOPES[self.transfer_scope])
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
            self._record = self._plan_transfer(NetworkConfig.named(self.network_size))
        if self._seed is not None:
            seeding.set_seed(self._seed, self.local_rank)
        super().initialize()
        self.my_init_kwargs["retina"] = {
            "format_version": checkpoint.FORMAT_VERSION,
            "version": __version__,
            "network": self._plain_network().config.to_dict(),
            "transfer": self._record,
        }
        if self._weights is not None and not self._weights.loaded_by_nnunet:
            load_pretrained_weights(self.network, self._weights.path)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Freeze what the transfer freezes, and give the rest to SGD. Called while nnU-Net initialises."""
        assert self._record is not None
        network = self._plain_network()
        scope = transfer.SCOPES[self._record["scope"]] if self._record["scope"] else None
        if scope is not None:
            transfer.freeze(network, scope.frozen)
            if self._weights is not None:
                self._load_hook = transfer.restrict_load(network, scope)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, self.initial_lr, momentum=0.9, weight_decay=self.weight_decay)
        # Counted in epochs, as nnU-Net does, with fractions: train_step moves on at every iteration.
        epochs = self.protocol.iterations / self.protocol.iterations_per_epoch
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, epochs)

    def _plain_network(self) -> TransUNet:
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        assert isinstance(network, TransUNet)
        return network

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing: the network has one output."""

    def plot_network_architecture(self) -> None:
        """Nothing: nnU-Net's plot needs a package that no longer installs, and says so at every start."""

    # ---- training

    def _build_loss(self) -> nn.Module:
        dice = {"ddp": self.is_ddp}
        if self.label_manager.has_regions:
            ignore = self.label_manager.ignore_label is not None
            return DC_and_BCE_loss({}, dice, 0.5, 0.5, use_ignore_label=ignore, dice_class=SquaredDiceLoss)
        weights = self.protocol.class_weights
        ce = {"weight": torch.tensor(weights, dtype=torch.float32)} if weights is not None else {}
        loss = DC_and_CE_loss(dice, ce, 0.5, 0.5, self.label_manager.ignore_label, dice_class=SquaredDiceLoss)
        return loss.to(self.device)

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
        report = transfer.report(self._plain_network(), self._record)
        if self.local_rank == 0:
            save_json(report, os.path.join(self.output_folder, "transfer_report.json"), sort_keys=False)
        if self._record["scope"] is None and self.transfer_scope is not None:
            self.print_to_log_file(
                "\n!!! NO PRE-TRAINED WEIGHTS: nothing is frozen and the whole network trains from random\n"
                f"!!! initialisation. This is not RETINA. Give -pretrained_weights FILE, or set ${WEIGHTS_VARIABLE}.\n",
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
        """Shorten the last epoch to the protocol's iterations; keep frozen modules in evaluation mode."""
        done = self.current_epoch * self.protocol.iterations_per_epoch
        self.num_iterations_per_epoch = min(self.protocol.iterations_per_epoch, self.protocol.iterations - done)
        self._iteration = done
        super().on_train_epoch_start()
        transfer.set_train_mode(self.network)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One iteration at its own learning rate; on processors that multiply bfloat16, under autocast."""
        self.lr_scheduler.step(self._iteration / self.protocol.iterations_per_epoch)
        self._iteration += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._uses_bfloat16()):
            return super().train_step(batch)

    def _uses_bfloat16(self) -> bool:
        # nnU-Net leaves autocast out on CPUs, where float16 is slow; bfloat16 is not, where the processor knows it.
        return self.device.type == "cpu" and multiplies_bfloat16()

    # ---- folds and checkpoints

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, of a file that keeps the cases of one volume together."""
        preflight.check_fold(self.plans_manager.plans, self.configuration_name, self.fold, self.protocol)
        return super().do_split()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint; a run that is killed while writing leaves the one before it."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            with checkpoint.replacing(filename) as temporary:
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


class nnUNetTrainerRETINA_encoder(nnUNetTrainerRETINA):
    """Takes the whole encoder and freezes the transformer: what the authors' released code does."""

    transfer_scope = "encoder"


class nnUNetTrainerRETINA_full(nnUNetTrainerRETINA):
    """Takes all but the head and freezes nothing."""

    transfer_scope = "full"


class nnUNetTrainerTransUNet(nnUNetTrainerRETINA):
    """The same network and training from random initialisation; ``$RETINA_WEIGHTS`` is not read."""

    transfer_scope = None


class nnUNetTrainerRETINA_base(nnUNetTrainerRETINA):
    """Size ``base``: the published pre-training script's, and the ImageNet checkpoints'."""

    network_size = "base"


class nnUNetTrainerRETINA_encoder_base(nnUNetTrainerRETINA_encoder):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerRETINA_full_base(nnUNetTrainerRETINA_full):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerTransUNet_base(nnUNetTrainerTransUNet):
    """Size ``base``."""

    network_size = "base"


class nnUNetTrainerRETINA_tiny(nnUNetTrainerRETINA):
    """Size ``tiny``: for trying things out and for tests."""

    network_size = "tiny"


class nnUNetTrainerRETINA_encoder_tiny(nnUNetTrainerRETINA_encoder):
    """Size ``tiny``."""

    network_size = "tiny"


class nnUNetTrainerRETINA_full_tiny(nnUNetTrainerRETINA_full):
    """Size ``tiny``."""

    network_size = "tiny"


class nnUNetTrainerTransUNet_tiny(nnUNetTrainerTransUNet):
    """Size ``tiny``."""

    network_size = "tiny"
