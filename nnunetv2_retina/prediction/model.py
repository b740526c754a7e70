"""The model of a run: named by what can be sent to another process, loaded once in each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nnunetv2_retina.files import file_digest
from nnunetv2_retina.nnunet.datasets import DATASET_JSON
from nnunetv2_retina.nnunet.models import PLANS_JSON
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings


@dataclass(frozen=True)
class Model:
    """A trained model and how it is applied."""

    folder: str
    folds: tuple[int | str, ...]
    checkpoint: str
    device: str | None
    settings: PredictionSettings

    def load(self) -> Predictor:
        """Return the predictor, the same one at every call in a process until the model's files change."""
        folder = Path(self.folder)
        files = [folder / f"fold_{fold}" / self.checkpoint for fold in self.folds]
        facts = [file.stat() for file in (*files, folder / PLANS_JSON, folder / DATASET_JSON)]
        return _load(self, tuple((fact.st_mtime_ns, fact.st_size) for fact in facts))

    def identity(self) -> dict[str, Any]:
        """Return what labels depend on: digests of the checkpoints and plans, and the settings."""
        predictor, folder = self.load(), Path(self.folder)
        return {
            "-f": [str(fold) for fold in self.folds],
            "checkpoint": [file_digest(folder / f"fold_{fold}" / self.checkpoint)[:16] for fold in self.folds],
            "plans.json": file_digest(folder / PLANS_JSON)[:16],
            "dataset.json": file_digest(folder / DATASET_JSON)[:16],
            "inference": predictor.mode,
            "mirroring": self.settings.mirroring,
            "-step_size": self.settings.step_size,
            **({"--precision": self.settings.precision} if self.settings.precision else {}),
        }


@lru_cache(maxsize=1)
def _load(model: Model, _: tuple[tuple[int, int], ...]) -> Predictor:
    return Predictor.from_model_folder(model.folder, model.folds, model.checkpoint, model.device, model.settings)
