"""Prediction with any 2d model of nnU-Net, RETINA's or not: batched, slice by slice or orthoplane, in bounded memory.

    predictor = Predictor.from_model_folder("nnUNet_results/.../nnUNetTrainerRETINA__nnUNetPlans__2d")
    labels = predictor.predict(image, spacing)

The network, its weights, preprocessing and the way back to the image's grid are nnU-Net's own; the sliding window is
``nnunetv2_retina.prediction.sliding_window``. ``nnunetv2_retina.prediction.folder`` predicts folders.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.nnunet import models
from nnunetv2_retina.nnunet.datasets import channel_count
from nnunetv2_retina.prediction import orthoplane
from nnunetv2_retina.prediction.label_grid import Grid, classes, label_type, probabilities
from nnunetv2_retina.prediction.optimised import optimised
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.prediction.sliding_window import Region, SlidingWindow, Source
from nnunetv2_retina.prediction.tile_count import Progress, count_tiles, counted
from nnunetv2_retina.protocol import Protocol

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FAR = 1.5
"""Ratio of an image's spacing to the plan's from which on it is remarked on."""


@dataclass(frozen=True)
class Prediction:
    """Of one image, in its own grid."""

    labels: np.ndarray
    """(z, y, x) uint8, or uint16 from 255 classes on."""
    probabilities: np.ndarray | None = None
    """(heads, z, y, x) float32, if asked for."""


class Predictor:
    """A trained model, ready for images. Make one with ``from_model_folder``."""

    def __init__(self, nnunet: nnUNetPredictor, settings: PredictionSettings) -> None:
        self.nnunet = nnunet
        self.settings = settings
        self.mode = settings.mode or Protocol.from_dataset_json(nnunet.dataset_json).inference
        self.channels = channel_count(nnunet.dataset_json)
        self.window = SlidingWindow(
            [self._model(network) for network in self._networks()],
            nnunet.label_manager.num_segmentation_heads,
            nnunet.configuration_manager.patch_size,
            settings.step_size,
            nnunet.device,
            settings.batch_size,
            settings.slab_bytes,
        )

    @classmethod
    def from_model_folder(
        cls,
        folder: str | Path,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: str | torch.device | None = None,
        settings: PredictionSettings | None = None,
    ) -> Predictor:
        """Load a model that ``nnUNetv2_train`` wrote.

        Args:
            folder: the one with dataset.json, plans.json and fold_0, fold_1, ...
            folds: whose logits are averaged, numbers or "all"; None: every numbered fold with such a checkpoint.
            checkpoint: name of the file in each fold's folder.
            device: where to predict; None: a GPU where there is one.
            settings: None: nnU-Net's defaults.

        Raises:
            RetinaError: if a part of it is missing or damaged, or the model is not a 2d one.
        """
        settings = settings or PredictionSettings()
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RetinaError("no CUDA GPU is usable here. To predict on the processor, add: -device cpu")
        chosen = models.check(Path(folder), folds, checkpoint)
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net announces what its defaults do on a CPU
            nnunet = nnUNetPredictor(
                settings.step_size, use_mirroring=settings.mirroring, device=device, allow_tqdm=False
            )
            models.initialise(nnunet, Path(folder), chosen, checkpoint)
        return cls(nnunet, settings)

    @overload
    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | Spacing,
        probabilities: Literal[False] = False,
        progress: Progress | None = None,
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | Spacing,
        probabilities: Literal[True],
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self,
        image: np.ndarray,
        spacing: Sequence[float] | Spacing,
        probabilities: bool = False,
        progress: Progress | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict one image as nnU-Net's reader of this data set would hand it over.

        Args:
            image: (channels, z, y, x) or, for a 2D image, (channels, y, x); grey levels of any type.
            spacing: of (z, y, x) or (y, x), in the training data's unit.
            probabilities: return them too.
            progress: gets the tiles that are done, and all of them; what it raises ends the prediction.

        Returns:
            Labels (z, y, x) or (y, x), uint8, or uint16 from 255 classes on; with ``probabilities`` also those,
            (heads, ...) float32.

        Raises:
            RetinaError: for wrong axes, channels or spacing, or an image that the mode does not suit.
        """
        sides = Spacing.of(spacing)
        if image.ndim not in (3, 4) or len(sides) != image.ndim - 1:
            raise RetinaError(
                f"the image has shape {image.shape} and spacing {tuple(spacing)}; expected (channels, z, y, x) or "
                "(channels, y, x) and a number for each axis after the first"
            )
        if image.shape[0] != self.channels:
            raise RetinaError(
                f"the image of shape {image.shape} has {image.shape[0]} channels; the model takes {self.channels}, as "
                "the first axis. Add or remove channels"
            )
        flat = image.ndim == 3
        properties: dict[str, Any] = {"spacing": list(sides)}
        if flat:  # the distance of slices that nnU-Net's readers give an image
            image, properties["spacing"] = image[:, None], [999 * max(sides), *sides]
        data, properties = self.preprocess_array(image, properties)
        with counted(self.window, count_tiles(self.window, data.shape[1:], self.mode == "orthoplane"), progress):
            done = self.predict_preprocessed(data, properties, probabilities)
        labels = done.labels[0] if flat else done.labels
        if done.probabilities is None:
            return labels
        return labels, done.probabilities[:, 0] if flat else done.probabilities

    def preprocess_array(self, image: np.ndarray, properties: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Preprocess (channels, z, y, x) as nnU-Net does; return the result, and what is needed to undo it."""
        configuration = self.nnunet.configuration_manager
        data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            image, None, properties, self.nnunet.plans_manager, configuration, self.nnunet.dataset_json
        )
        return _finite(data), properties

    def preprocess_files(self, files: Sequence[str]) -> tuple[Tensor, dict[str, Any]]:
        """Preprocess the files of a case, one for each channel, with the reader that the plans name."""
        configuration = self.nnunet.configuration_manager
        data, _, properties = configuration.preprocessor_class(verbose=False).run_case(
            list(files), None, self.nnunet.plans_manager, configuration, self.nnunet.dataset_json
        )
        return _finite(data), properties

    def spacing_remark(self, properties: Mapping[str, Any]) -> str | None:
        """Say so if an image's spacing is far from the plan's: nnU-Net resamples it by that, right or wrong."""
        image = [properties["spacing"][axis] for axis in self.nnunet.plans_manager.transpose_forward][-2:]
        plan = list(self.nnunet.configuration_manager.spacing)[-2:]
        if all(1 / FAR <= own / expected <= FAR for own, expected in zip(image, plan, strict=True)):
            return None
        return (
            f"its spacing is {image[0]:g} x {image[1]:g}, the model's {plan[0]:g} x {plan[1]:g}: nnU-Net resamples the "
            "image by their ratio. If the file states no true voxel size, correct its header first"
        )

    def predict_preprocessed(
        self, data: Tensor, properties: dict[str, Any], probabilities: bool = False, scratch: Path | None = None
    ) -> Prediction:
        """Predict what the preprocessor returned.

        Args:
            data: (channels, z, y, x) float32.
            properties: of the case.
            probabilities: keep them too, which takes 4 bytes a voxel and class several times over.
            scratch: see ``orthoplane.mean_probabilities``.
        """
        grid = self.grid(data, properties)
        if self.mode == "orthoplane":
            orthoplane.check_volume(grid.shape, grid.spacing, self.settings.force)
        if probabilities or not grid.by_slab:
            return self._predict_whole(data, grid, probabilities, scratch)
        labels = grid.empty()
        if self.mode == "orthoplane":
            for slices, rows, mean in self._orthoplane(data, grid, scratch):
                rows = slice(None) if grid.resampled else rows
                labels[slices, rows] = grid.classes(grid.resample(mean), are_logits=False)
                del mean
        else:
            for part in self.window.parts(data, grid.resampled, grid.bytes_per_voxel):
                rows = slice(None) if grid.resampled else part.rows
                labels[part.slices, rows] = grid.classes(grid.resample(part.logits), are_logits=True)
                del part  # the next slab needs its memory
        return Prediction(grid.restore(labels))

    def predict_logits(self, data: Tensor) -> Tensor:
        """Return logits (heads, z, y, x) float16, on the CPU, of preprocessed (channels, z, y, x), slice by slice.

        They are those of nnU-Net's ``predict_logits_from_preprocessed_data``, and as large.
        """
        logits = torch.empty((self.window.heads, *data.shape[1:]), dtype=torch.half)
        for part in self.window.parts(data):
            logits[:, part.slices, part.rows] = part.logits.cpu()
        return logits

    def predict_region(self, source: Source, region: Region) -> np.ndarray:
        """Predict a region of a volume with the tiles of the whole volume that touch it.

        Args:
            source: the volume, preprocessed and at the plan's spacing.
            region: (z, y, x), with both ends.

        Returns:
            Labels (z, y, x), uint8, or uint16 from 255 classes on: those of the whole volume there, bit for bit on a
            CPU, whatever the region.
        """
        manager = self.nnunet.label_manager
        labels = np.zeros([part.stop - part.start for part in region], label_type(manager))
        if self.mode == "orthoplane":
            # a block's sums are part of what the block was chosen for: they stay in memory
            parts = orthoplane.mean_probabilities(
                self.window, source, self._probabilities, spare_bytes=sys.maxsize, region=region
            )
        else:
            parts = ((part.slices, part.rows, part.logits) for part in self.window.parts(source, region=region))
        for slices, rows, values in parts:
            z, y, _ = (whole.start for whole in region)
            place = slice(slices.start - z, slices.stop - z), slice(rows.start - y, rows.stop - y)
            labels[place] = classes(manager, values, are_logits=self.mode == "stack")
            del values  # the next slab needs its memory
        return labels

    def grid(self, data: Tensor, properties: dict[str, Any]) -> Grid:
        """Return the way from preprocessed data back to the image."""
        nnunet = self.nnunet
        shape = tuple(data.shape[1:])
        return Grid(nnunet.plans_manager, nnunet.configuration_manager, nnunet.label_manager, shape, properties)

    def _predict_whole(self, data: Tensor, grid: Grid, probabilities: bool, scratch: Path | None) -> Prediction:
        are_logits = self.mode == "stack"
        if are_logits:
            values = self.predict_logits(data)
        else:
            values = torch.empty((self.window.heads, *data.shape[1:]))
            for slices, rows, mean in self._orthoplane(data, grid, scratch):
                values[:, slices, rows] = mean
        values = grid.resample(values)
        if not probabilities:
            return Prediction(grid.restore(grid.classes(values, are_logits)))
        if are_logits:
            values = self._probabilities(values)
        labels = grid.restore(grid.classes(values, are_logits=False))
        return Prediction(labels, grid.restore_probabilities(values))

    def _orthoplane(self, data: Tensor, grid: Grid, scratch: Path | None) -> Iterator[tuple[slice, slice, Tensor]]:
        return orthoplane.mean_probabilities(
            self.window,
            data,
            self._probabilities,
            scratch,
            whole_slices=grid.resampled,
            bytes_per_voxel=grid.bytes_per_voxel,
        )

    def _probabilities(self, logits: Tensor) -> Tensor:
        return probabilities(self.nnunet.label_manager, logits)

    def _networks(self) -> Iterator[nn.Module]:
        """Yield the network of each fold, ready to predict."""
        network, compiled = self.nnunet.network, isinstance(self.nnunet.network, OptimizedModule)
        network = network._orig_mod if compiled else network
        for weights in self.nnunet.list_of_parameters:
            network.load_state_dict(weights)
            ready = optimised(network, self.nnunet.device)
            yield cast(nn.Module, torch.compile(ready)) if compiled else ready

    def _model(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return a function that predicts tiles, mirrored if asked for."""
        nnunet, device = self.nnunet, self.nnunet.device.type
        precision = self.settings.precision or ("fp16" if device == "cuda" else "fp32")

        def predict(tiles: Tensor) -> Tensor:
            trained, nnunet.network = nnunet.network, network
            try:
                with torch.autocast(device, _DTYPES.get(precision), enabled=precision in _DTYPES):
                    logits: Tensor = nnunet._internal_maybe_mirror_and_predict(tiles)
            finally:
                nnunet.network = trained
            return logits

        return predict


def _finite(data: np.ndarray) -> Tensor:
    """Return preprocessed data as a tensor.

    Raises:
        RetinaError: if they hold NaN or infinite values, which normalisation has spread from the image.
    """
    values = torch.from_numpy(data)
    if not torch.isfinite(values.sum()):
        raise RetinaError(
            "the image holds NaN or infinite values; expected numbers only. Replace them first, for example with "
            "numpy.nan_to_num(image, nan=image_minimum), or crop them off"
        )
    return values
