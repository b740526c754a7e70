"""Label files of small images and volumes, and a ``dataset.json`` for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from PIL import Image

BINARY = {"background": 0, "cleft": 1}


def dataset_json(labels=BINARY, ending=".png", **block) -> dict[str, Any]:
    return {"name": "Test", "labels": labels, "file_ending": ending} | ({"retina": block} if block else {})


def save_nifti(path: Path, array, spacing=(4.0, 4.0, 40.0), origin=(0.0, 0.0, 0.0), direction=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.asarray(array, np.uint8))
    image.SetSpacing(spacing[: image.GetDimension()])
    image.SetOrigin(origin[: image.GetDimension()])
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))


def save_png(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def two_images(folder: Path) -> Path:
    """Predictions and ground truths of two images, and what scores them."""
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    save_png(folder / "labels" / "a.png", truth)
    save_png(folder / "labels" / "b.png", np.zeros((2, 4)))
    save_png(folder / "predictions" / "a.png", [[0, 1, 1, 0], [0, 0, 0, 0]])
    save_png(folder / "predictions" / "b.png", np.zeros((2, 4)))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(pixel_size=[1.0, 1.0])))
    return folder
