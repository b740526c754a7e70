"""What a shared model consists of, whatever the package: tensors, plans, dataset.json, and a manifest with hashes.

The tensors of all folds are in one file; everything else of a checkpoint that prediction and reports need is in the
manifest, as JSON, so that nothing in a package has to be unpickled beyond tensors. It leaves out the optimiser's state,
so that a training cannot be continued from it, the names of training cases, and the folders of paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetv2_retina import __version__
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import file_digest, read_json, write_json
from nnunetv2_retina.nnunet import models, record
from nnunetv2_retina.nnunet.datasets import DATASET_JSON
from nnunetv2_retina.nnunet.models import PLANS_JSON
from nnunetv2_retina.protocol import BLOCK
from nnunetv2_retina.weights.checkpoint import read_file

MANIFEST = "nnunet_model.json"
FORMAT_VERSION = 1
WEIGHTS = "network_weights"
_TRAINING_ONLY = (WEIGHTS, "optimizer_state", "grad_scaler_state")
_CASE_LISTS = {
    "settings": ("train", "val"),
    BLOCK: ("groups", "folds"),
    "dataset_json": ("dataset", "training", "test"),
}
"""Where names of cases stand: name of a dictionary -> its keys."""
_ABSOLUTE = re.compile(r"(?:/|[A-Za-z]:[\\/]).*[\\/]")


@dataclass(frozen=True)
class Fold:
    """One trained network of a model folder."""

    name: str
    """``0``, ``1``, ... or ``all``."""
    weights: Mapping[str, Tensor]
    about: Mapping[str, Any]
    """The rest of its checkpoint that is shared: plain texts, numbers, lists and dictionaries."""
    scores: Mapping[str, Any]
    """nnU-Net's summary.json of its validation; empty where there is none."""
    validated_on_training: bool
    """Whether those scores are of cases that it was trained on."""


@dataclass(frozen=True)
class Bundle:
    """A trained model, read from its folder."""

    folder: Path
    checkpoint: str
    """Name of the file that was read in each fold's folder."""
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    folds: tuple[Fold, ...]

    @property
    def trainer(self) -> str:
        """Return the name of the trainer."""
        return str(self.folds[0].about["trainer_name"])

    @property
    def configuration(self) -> str:
        """Return the name of the configuration, such as ``2d``."""
        return str(self.folds[0].about["init_args"]["configuration"])

    @property
    def dataset(self) -> str:
        """Return the name of the data set, such as ``Dataset801_CREMI``."""
        return str(self.plans["dataset_name"])

    @property
    def name(self) -> str:
        """Return a readable name: the data set's without its number, and the trainer's."""
        return f"{self.dataset.partition('_')[2] or self.dataset} {self.trainer} {self.configuration}"

    @property
    def home(self) -> str:
        """Return where the model belongs below nnU-Net's results folder."""
        return f"{self.dataset}/{models.model_name(self.trainer, str(self.plans['plans_name']), self.configuration)}"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of all folds, each with memory of its own; see ``prefix``."""
        return {
            prefix(index, len(self.folds)) + name: tensor.detach().cpu().contiguous().clone()
            for index, fold in enumerate(self.folds)
            for name, tensor in fold.weights.items()
        }

    def write(self, folder: Path, weights: str) -> list[Path]:
        """Write plans.json, dataset.json and the manifest beside the weights, which are written first.

        Args:
            folder: of the package.
            weights: name of the file of ``tensors`` in it.

        Returns:
            The files, without the weights.
        """
        write_json(folder / PLANS_JSON, self.plans)
        write_json(folder / DATASET_JSON, self.dataset_json)
        manifest = {
            "format_version": FORMAT_VERSION,
            "made_by": f"nnunetv2-retina {__version__}",
            "model": self.home,
            "weights": weights,
            "checkpoint": self.checkpoint,
            "folds": {fold.name: fold.about for fold in self.folds},
            "sha256": {name: file_digest(folder / name) for name in (PLANS_JSON, DATASET_JSON, weights)},
        }
        write_json(folder / MANIFEST, manifest)
        return [folder / name for name in (PLANS_JSON, DATASET_JSON, MANIFEST)]


def prefix(index: int, count: int) -> str:
    """Return what the names of tensors of a fold begin with, as ``network.ensemble`` calls them."""
    return f"members.{index}." if count > 1 else ""


def read_bundle(folder: Path, folds: list[int | str] | None, checkpoint: str) -> Bundle:
    """Read a model folder.

    Args:
        folder: the one with dataset.json, plans.json and fold_0, fold_1, ...
        folds: those to share; None: every numbered one, else ``all``.
        checkpoint: name of the file in each fold's folder.

    Raises:
        RetinaError: for a part that is missing or damaged, or a checkpoint that could run code.
    """
    chosen = models.check(folder, folds, checkpoint)
    advice = "Give a model folder that nnUNetv2_train wrote"
    plans, dataset_json = (read_json(folder / name, advice) for name in (PLANS_JSON, DATASET_JSON))
    read = tuple(_read_fold(folder / f"fold_{fold}", str(fold), checkpoint) for fold in chosen)
    return Bundle(folder, checkpoint, plans, _public({"dataset_json": dataset_json})["dataset_json"], read)


def _read_fold(folder: Path, name: str, checkpoint: str) -> Fold:
    path = folder / checkpoint
    content = read_file(path)
    try:
        weights, _ = content[WEIGHTS], (content["trainer_name"], content["init_args"]["configuration"])
        on_training = record.validated_on_training(name, content["init_args"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RetinaError(
            f"{path} is not a checkpoint of an nnU-Net training. Give a model folder that nnUNetv2_train wrote"
        ) from error
    about = {str(key): value for key, value in content.items() if key not in _TRAINING_ONLY}
    plain = _public(json.loads(json.dumps(about, default=_plain)))
    summary = folder / record.VALIDATED
    return Fold(name, weights, plain, read_json(summary, "Remove it") if summary.is_file() else {}, on_training)


def _plain(value: Any) -> Any:
    """Turn a number or array of NumPy or torch into plain ones; anything else, such as a device, into text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _public(value: Any, name: str = "") -> Any:
    """Return the same JSON without names of cases, and with only the last part of every absolute path."""
    if isinstance(value, dict):
        left_out = _CASE_LISTS.get(name, ())
        return {key: _public(item, key) for key, item in value.items() if key not in left_out}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return _ABSOLUTE.sub("", value) if isinstance(value, str) and _ABSOLUTE.match(value) else value
