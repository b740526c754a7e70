"""From network output to labels in the image's own grid: resampling, classes, cropping and axes as nnU-Net does them.

nnU-Net's ``export_prediction.py`` takes the logits of a whole volume. Here a volume comes slab by slab, and only its
labels are held, wherever resampling leaves the number of slices alone, as it does for every 2d configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.utilities.helpers import softmax_helper_dim0
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from nnunetv2_retina.images.spacing import Spacing


def label_type(labels: LabelManager) -> type[np.uint8 | np.uint16]:
    """Return the smallest type that nnU-Net writes labels in."""
    return np.uint8 if len(labels.foreground_labels) < 255 else np.uint16


@torch.no_grad()
def probabilities(labels: LabelManager, logits: Tensor) -> Tensor:
    """Return probabilities (heads, ...) float32 of logits, those of a voxel the same wherever in a tensor it lies.

    torch's softmax and sigmoid, which nnU-Net takes, round the last few elements of a tensor otherwise than the rest.
    """
    values = logits.float()
    if labels.inference_nonlin is torch.sigmoid:
        return values.neg().exp_().add_(1).reciprocal_()
    if labels.inference_nonlin is not softmax_helper_dim0:
        activated: Tensor = labels.apply_inference_nonlin(logits)
        return activated
    values = (values - values.amax(0)).exp_()
    total = values[0].clone()
    for head in values[1:]:
        total += head
    return values.div_(total)


def classes(labels: LabelManager, values: Tensor, are_logits: bool) -> np.ndarray:
    """Return labels of ``label_type`` from logits or probabilities (heads, ...)."""
    if not labels.has_regions and type(labels) is LabelManager:
        return values.argmax(0).cpu().numpy().astype(label_type(labels))
    values = probabilities(labels, values.cpu()) if are_logits else values.cpu()
    return np.asarray(labels.convert_probabilities_to_segmentation(values)).astype(label_type(labels))


class Grid:
    """The way back from the preprocessed grid of one case to the image's own.

    Args:
        shape: (slices, rows, columns) of the preprocessed volume.
        properties: of the case, as nnU-Net's preprocessor returns them.
    """

    def __init__(
        self,
        plans: PlansManager,
        configuration: ConfigurationManager,
        labels: LabelManager,
        shape: tuple[int, ...],
        properties: Mapping[str, Any],
    ) -> None:
        self.plans = plans
        self.labels = labels
        self.properties = properties
        self.shape = shape
        self.cropped_shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
        self.resampled = self.cropped_shape != self.shape
        self.own_spacing = Spacing.of([properties["spacing"][axis] for axis in plans.transpose_forward])
        """Of the image, axes in the order of the preprocessed volume."""
        self.spacing = Spacing(self.own_spacing.z, *configuration.spacing)
        """Of the preprocessed volume."""
        self.label_type = label_type(labels)
        self._resample = configuration.resampling_fn_probabilities

    @property
    def by_slab(self) -> bool:
        """Tell whether slabs can be brought back one by one."""
        return self.shape[0] == self.cropped_shape[0]

    @property
    def bytes_per_voxel(self) -> int:
        """Return the memory that the logits of a voxel take on the way to labels: nnU-Net resamples in float64."""
        growth = -(-int(np.prod(self.cropped_shape)) // int(np.prod(self.shape)))
        heads = self.labels.num_segmentation_heads
        return 8 * growth + (heads * (2 + 8 + 8 * growth) if self.resampled else 0)

    def resample(self, values: Tensor) -> Tensor:
        """Resample (heads, slices, rows, columns) to the image's grid, with nnU-Net's function."""
        if not self.resampled:
            return values
        slices = values.shape[1] if self.by_slab else self.cropped_shape[0]
        target = (slices, *self.cropped_shape[1:])
        back = self._resample(values.cpu().numpy(), target, list(self.spacing), list(self.own_spacing))
        return back if isinstance(back, Tensor) else torch.from_numpy(back)

    def classes(self, values: Tensor, are_logits: bool) -> np.ndarray:
        """Return labels from logits or probabilities (heads, ...), in the smallest type that nnU-Net writes."""
        return classes(self.labels, values, are_logits)

    def empty(self) -> np.ndarray:
        """Return labels of the cropped image, to be filled."""
        return np.zeros(self.cropped_shape, self.label_type)

    def restore(self, labels: np.ndarray) -> np.ndarray:
        """Return labels of the whole image from those of the cropped one, axes in the order of its reader."""
        whole = labels
        if labels.shape != tuple(self.properties["shape_before_cropping"]):
            whole = np.zeros(self.properties["shape_before_cropping"], self.label_type)
            whole = insert_crop_into_image(whole, labels, self.properties["bbox_used_for_cropping"])
        return whole.transpose(self.plans.transpose_backward)

    def restore_probabilities(self, values: Tensor) -> np.ndarray:
        """Return probabilities (heads, ...) float32 of the whole image; outside the cropped one, 1 for background."""
        whole = self.labels.revert_cropping_on_probabilities(
            values, self.properties["bbox_used_for_cropping"], self.properties["shape_before_cropping"]
        )
        return np.asarray(whole.cpu()).transpose([0, *(axis + 1 for axis in self.plans.transpose_backward)])
