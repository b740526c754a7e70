"""The work of the napari widget when its button is pressed, without napari: an array in, layers of labels out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_retina.display.slider import LabelLayer
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.nnunet.datasets import class_names
from nnunetv2_retina.nnunet.labels import INSTANCES
from nnunetv2_retina.prediction.settings import InstanceSettings
from nnunetv2_retina.protocol import Protocol

if TYPE_CHECKING:
    from nnunetv2_retina.prediction.predictor import Predictor
    from nnunetv2_retina.prediction.tile_count import Progress

_WITHOUT_SPACING = "NaturalImage2DIO"
"""nnU-Net's reader of PNG and TIFF images, which gives every pixel the size 1."""


@lru_cache(maxsize=1)
def _loaded(folder: str, changed: float) -> Predictor:
    import_triton()
    import torch

    from nnunetv2_retina.console.machine import available_cores
    from nnunetv2_retina.prediction.predictor import Predictor

    torch.set_num_threads(available_cores())
    return Predictor.from_model_folder(folder)


def import_triton() -> None:
    """Import triton, which torch brings on Linux, in a way that it keeps its own LLVM.

    Where a window has loaded Mesa's OpenGL, whose LLVM has the same symbols, a plain import ends the process.
    """
    if not hasattr(os, "RTLD_DEEPBIND") or "triton" in sys.modules or find_spec("triton") is None:
        return
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        import_module("triton")
    finally:
        sys.setdlopenflags(before)


def load_model(folder: Path) -> Predictor:
    """Return the model of a folder; it stays loaded until another is asked for.

    Raises:
        RetinaError: if the folder holds none.
    """
    weights = sorted(folder.glob("fold_*/checkpoint_final.pth"))
    if not weights:
        raise RetinaError(
            f"{folder} holds no trained model; expected nnU-Net's folder TRAINER__PLANS__2d with dataset.json and "
            "fold_0/checkpoint_final.pth. Choose that one"
        )
    return _loaded(str(folder.absolute()), max(path.stat().st_mtime for path in weights))


def predict_array(
    predictor: Predictor,
    image: np.ndarray,
    spacing: Spacing | None,
    name: str,
    instances: InstanceSettings | None = None,
    progress: Progress | None = None,
) -> list[LabelLayer]:
    """Predict an image of one channel.

    Args:
        predictor: the model.
        image: (y, x) or (z, y, x).
        spacing: of a voxel, in nm; None: not known, it is taken to be the model's.
        name: of the image; the layers are named after it.
        instances: what counts as one; None: only classes.
        progress: see ``Predictor.predict``.

    Returns:
        The classes, and the instances.

    Raises:
        RetinaError: for an image that does not suit the model.
    """
    if image.ndim not in (2, 3):
        raise RetinaError(f"{name} has the shape {image.shape}; expected (y, x) or (z, y, x) of one channel")
    sides = model_spacing(predictor, image.ndim, spacing)
    labels = predictor.predict(image[None], sides, progress=progress)
    contents = predictor.nnunet.dataset_json
    layers = [LabelLayer(f"{name} labels", labels, class_names(contents))]
    if instances is not None:
        from nnunetv2_retina.prediction.instances import find_instances

        ids, _ = find_instances(labels, spacing or sides, instances)
        layers.append(LabelLayer(f"{name}{INSTANCES}", ids))
    return layers


def model_spacing(predictor: Predictor, axes: int, spacing: Spacing | None) -> Spacing:
    """Return the spacing to predict with: the image's in the unit of the training data, else the model's.

    Models of PNG or TIFF images know no sizes: their pixels are 1. An image that states no spacing is taken to have
    the model's.
    """
    plans = predictor.nnunet.plans_manager.plans
    own: Sequence[float] = predictor.nnunet.configuration_manager.spacing
    in_nm = Protocol.from_dataset_json(predictor.nnunet.dataset_json).spacing_unit == NANOMETRES
    if plans["image_reader_writer"] == _WITHOUT_SPACING:
        return Spacing.of((1.0,) * axes)
    if spacing is not None and len(spacing) == axes and (in_nm or spacing.unit is None):
        return spacing
    y, x = list(own)[-2:]
    return Spacing.of((y, x) if axes == 2 else (plans["original_median_spacing_after_transp"][0], y, x))
