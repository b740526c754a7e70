"""What is done with one image of a folder, in this process or in a worker: it is read, predicted and written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from nnunetv2_retina.console.machine import use_threads
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.plain import check_plain
from nnunetv2_retina.images.whole import check_whole
from nnunetv2_retina.nnunet.inputs import InputCase
from nnunetv2_retina.prediction import outputs
from nnunetv2_retina.prediction.case_files import CaseFiles, Origin
from nnunetv2_retina.prediction.model import Model
from nnunetv2_retina.prediction.predictor import Prediction, Predictor
from nnunetv2_retina.prediction.settings import RunSettings
from nnunetv2_retina.prediction.tile_count import count_tiles, counted
from nnunetv2_retina.protocol import BLOCK

Prepared = tuple[Tensor, dict[str, Any]]


class CaseWork:
    """The steps for one image.

    Args:
        predictor: the model.
        target: folder for CASE<ending>.
        files: what is written.
        part: what tells those who write to the folder at the same time apart, see ``outputs.unfinished``.
        say: takes lines for the user; None: there is nobody to show progress to.
    """

    def __init__(
        self, predictor: Predictor, target: Path, files: CaseFiles, part: str, say: Callable[[str], None] | None = None
    ) -> None:
        self.predictor = predictor
        self.target = target
        self.files = files
        self.part = part
        self.say = say

    def prepare(self, case: InputCase) -> Prepared:
        """Read and preprocess.

        Raises:
            RetinaError: naming the case, for files that cannot be read or do not suit the model.
        """
        try:
            for path in case.files:
                check_whole(path)
                if BLOCK in self.predictor.nnunet.dataset_json:  # its images were read as they show
                    check_plain(path)
            data, properties = self.predictor.preprocess_files([str(path) for path in case.files])
        except RetinaError as error:
            raise RetinaError(f"case {case.name} ({case.files[0]}): {error}") from error
        except Exception as error:  # readers raise whatever their library raises
            raise RetinaError(
                f"case {case.name} cannot be read from {case.files[0]} ({str(error).strip() or type(error).__name__}). "
                "Repair or remove it, then continue with --continue_prediction"
            ) from error
        if data.shape[0] != self.predictor.channels:
            raise RetinaError(
                f"case {case.name} has {data.shape[0]} channels in {case.files[0]} and its like; the model takes "
                f"{self.predictor.channels}. Give it the channels that the model was trained with"
            )
        return data, properties

    def predict(self, case: InputCase, data: Tensor, properties: dict[str, Any]) -> Prediction:
        """Predict what ``prepare`` returned.

        Raises:
            RetinaError: naming the case.
        """
        scratch = outputs.unfinished(self.target, self.part)
        scratch.mkdir(parents=True, exist_ok=True)
        window, bar = (
            self.predictor.window,
            ProgressBar(case.name, unit="tiles", say=self.say, shown=self.say is not None),
        )
        tiles = count_tiles(window, data.shape[1:], self.predictor.mode == "orthoplane")
        try:
            with bar, counted(window, tiles, bar.update):
                return self.predictor.predict_preprocessed(data, properties, self.files.settings.probabilities, scratch)
        except RetinaError as error:
            raise RetinaError(f"case {case.name}: {error}") from error

    def write(self, case: InputCase, prediction: Prediction, properties: dict[str, Any]) -> None:
        """Write the case's files, which appear all or not at all.

        Raises:
            RetinaError: if they cannot be written.
        """
        with outputs.appearing(self.target, case.name, last=self.files.main(case), part=self.part) as folder:
            self.files.write(folder, case, prediction, properties)


def case_files(predictor: Predictor, settings: RunSettings, origins: Mapping[str, Origin]) -> CaseFiles:
    """Return what is written for the cases of a run."""
    writer = predictor.nnunet.plans_manager.image_reader_writer_class()
    return CaseFiles(predictor.nnunet.dataset_json, writer, settings, origins)


@dataclass(frozen=True)
class Outcome:
    """What a worker says of a case."""

    shape: tuple[int, ...]
    """Of the labels."""
    seconds: float
    """Of reading, prediction and writing."""
    remark: str | None
    """On the spacing."""


@dataclass(frozen=True)
class SharedCase:
    """The whole work on a case, for an engine's workers; paths are absolute."""

    model: Model
    target: Path
    settings: RunSettings
    origins: Mapping[str, Origin]
    part: str
    threads: int | None

    def __call__(self, case: InputCase) -> Outcome:
        """Predict a case and write its files."""
        start = time.perf_counter()
        use_threads(self.threads)
        predictor = self.model.load()
        own = f"{self.part}/{uuid4().hex[:8]}"  # a worker whose run was killed may still be at this very case
        work = CaseWork(predictor, self.target, case_files(predictor, self.settings, self.origins), own)
        try:
            data, properties = work.prepare(case)
            prediction = work.predict(case, data, properties)
            work.write(case, prediction, properties)
        finally:
            shutil.rmtree(outputs.unfinished(self.target, own), ignore_errors=True)
        remark = predictor.spacing_remark(properties)
        return Outcome(prediction.labels.shape, time.perf_counter() - start, remark)
