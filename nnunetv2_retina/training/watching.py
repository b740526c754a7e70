"""A training that can be watched: nnU-Net's loggers get our numbers, and pictures of a few validation patches.

nnU-Net hands every number of an epoch to ``self.logger.loggers``, where its own logger for Weights & Biases is if
``nnUNet_wandb_enabled=1``. Beside it is put one for TensorBoard, if that is installed; both get the pictures too, and
``PICTURE`` in the fold's folder is always the latest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_retina.display.patches import PICTURE, patch_rows
from nnunetv2_retina.files import replacing

TITLE = "validation patches: image, label, prediction"
SWITCH = "RETINA_TENSORBOARD"
PICTURES = 10
"""A training draws about so many times, however long it is."""
_PATCHES = 4
_LARGEST = 256
"""Of patches with longer sides only every second, third ... pixel is drawn."""
_TAGS = {
    "train_losses": "loss/training",
    "val_losses": "loss/validation",
    "lrs": "learning_rate",
    "mean_fg_dice": "pseudo_dice/mean",
    "ema_fg_dice": "pseudo_dice/moving_average",
}
_OF_CLASS = "dice_per_class_or_region/class_"
_START, _END = "epoch_start_timestamps", "epoch_end_timestamps"


class TensorBoardLogger:
    """One of nnU-Net's loggers, which writes for TensorBoard.

    Args:
        folder: for its files.
        class_names: of the foreground classes or regions, in the order of nnU-Net's pseudo Dice.
        first_epoch: what an earlier, stopped training wrote of this epoch and later ones is not shown any more.

    Raises:
        ImportError: if the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], first_epoch: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(os.fspath(folder), purge_step=first_epoch)
        self.class_names = class_names
        self._start: float | None = None
        self._step = first_epoch

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Write settings as text."""
        for key, value in config.items():
            self.writer.add_text(key, f"```\n{json.dumps(value, indent=2, default=str)}\n```", self._step)

    def log(self, key: str, value: Any, step: int) -> None:
        """Write a number of an epoch; keys are nnU-Net's."""
        self._step = step
        if key == _START:
            self._start = value
        elif key == _END:
            if self._start is not None:
                self.writer.add_scalar("seconds", value - self._start, step)
            self.writer.flush()
        elif key.startswith(_OF_CLASS):
            number = int(key.removeprefix(_OF_CLASS)) - 1
            name = self.class_names[number] if number < len(self.class_names) else f"class {number + 1}"
            self.writer.add_scalar(f"pseudo_dice/{name}", value, step)
        else:
            self.writer.add_scalar(_TAGS.get(key, key), value, step)

    def log_summary(self, key: str, value: Any) -> None:
        """Write a number of the whole training, such as the score of the validation."""
        self.writer.add_scalar(key, value, self._step)
        self.writer.flush()

    def log_picture(self, picture: NDArray[np.uint8], step: int) -> None:
        """Write a picture, (Y, X, 3) uint8."""
        self.writer.add_image(TITLE, picture, step, dataformats="HWC")


class WatchedTrainer(nnUNetTrainer):
    """Shows nnU-Net's loggers a few validation patches, and adds TensorBoard to them."""

    _kept: tuple[Tensor, Tensor] | None = None
    """Data (N, C, ...) and target (N, 1 or regions, ...) of the patches to show; the same all through a process."""

    def _plain_network(self) -> nn.Module:
        network: nn.Module = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        return network

    def on_train_start(self) -> None:
        """Start as nnU-Net does, then tell the loggers what is trained."""
        super().on_train_start()
        if self.local_rank != 0:
            return
        if os.environ.get(SWITCH, "1") != "0":
            folder = Path(self.output_folder) / "tensorboard"
            try:
                self.logger.loggers.append(TensorBoardLogger(folder, self._class_names(), self.current_epoch))
                self.print_to_log_file(f"Watch it with: tensorboard --logdir {folder}")
            except ImportError:
                pass  # not installed, so not wanted
        self.logger.update_config({"retina": self.my_init_kwargs.get("retina")})

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate one batch as nnU-Net does; of the first a few patches are kept, before nnU-Net changes them."""
        if self._kept is None and self.local_rank == 0:
            target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
            chosen = _both_ends(len(target), _PATCHES)  # nnU-Net puts those with foreground at the end
            self._kept = batch["data"][chosen].clone(), target[chosen].clone()
        outputs: dict[str, Any] = super().validation_step(batch)
        return outputs

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Gather nnU-Net's numbers; now and then, draw the patches."""
        super().on_validation_epoch_end(val_outputs)
        if self._kept is not None and is_drawn(self.current_epoch, self.num_epochs):
            try:
                self._show(self._draw(*self._kept))
            except OSError as error:  # a full disk is the checkpoint's to report
                self.print_to_log_file(f"The validation patches could not be drawn: {error}")

    @torch.no_grad()
    def _draw(self, data: Tensor, target: Tensor) -> NDArray[np.uint8]:
        """Predict the patches and draw them; of volumes, the slice with most labelled voxels."""
        logits = self._plain_network()(data.to(self.device))
        logits = (logits[0] if isinstance(logits, (list, tuple)) else logits).float().cpu().numpy()
        images: list[NDArray[Any]] = []
        truths: list[NDArray[Any]] = []
        predictions: list[NDArray[Any]] = []
        for image, truth, logit in zip(data[:, 0].float().cpu().numpy(), target.cpu().numpy(), logits, strict=True):
            labels = self._label_map(truth)
            predicted = np.asarray(self.label_manager.convert_logits_to_segmentation(logit))
            if labels.ndim == 3:
                z = int((labels > 0).sum((1, 2)).argmax())
                image, labels, predicted = image[z], labels[z], predicted[z]
            step = -(-max(image.shape) // _LARGEST)
            for arrays, array in ((images, image), (truths, labels), (predictions, predicted)):
                arrays.append(array[::step, ::step])
        foreground = [int(value) for value in self.label_manager.foreground_labels]
        return patch_rows(images, truths, predictions, foreground, self.label_manager.ignore_label)

    def _label_map(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return label values of a target: of values, or of regions and, last, what to ignore."""
        if not self.label_manager.has_regions:
            return np.asarray(target[0]).astype(np.int64)
        regions = target[: self.label_manager.num_segmentation_heads].astype(np.float32)
        labels = np.asarray(self.label_manager.convert_probabilities_to_segmentation(regions)).astype(np.int64)
        if self.label_manager.has_ignore_label:
            labels[target[-1] > 0] = self.label_manager.ignore_label
        return labels

    def _show(self, picture: NDArray[np.uint8]) -> None:
        with replacing(Path(self.output_folder) / PICTURE) as temporary:
            Image.fromarray(picture).save(temporary, format="png")
        for logger in self.logger.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_picture(picture, self.current_epoch)
            elif hasattr(logger, "run"):  # nnU-Net's of Weights & Biases, which is installed then
                import wandb

                logger.log(TITLE, wandb.Image(picture), self.current_epoch)

    def _class_names(self) -> list[str]:
        """Return the names of the foreground classes or regions, in the order of nnU-Net's pseudo Dice."""
        names = [(value, name) for name, value in self.dataset_json["labels"].items() if value not in (0, [0], (0,))]
        names = [entry for entry in names if entry[1] != "ignore"]
        return [name for _, name in (names if self.label_manager.has_regions else sorted(names))]


def is_drawn(epoch: int, epochs: int) -> bool:
    """Tell whether patches are drawn after an epoch (from 0): the first, the last, and evenly between."""
    return epoch in (0, epochs - 1) or (epoch + 1) % max(1, -(-epochs // PICTURES)) == 0


def _both_ends(number: int, most: int) -> list[int]:
    """Return the first and the last of so many indices."""
    if number <= most:
        return list(range(number))
    return [*range(most - most // 2), *range(number - most // 2, number)]
