"""Predicts a folder of images: reading and preprocessing, prediction and writing overlap, in threads of one process.

nnU-Net starts a process for each of its workers, which takes longer than predicting many a data set. Threads start at
once and hand over arrays without copying; what they call (NumPy, SciPy, SimpleITK, torch) lets the others run. Where an
engine has workers, each does whole cases instead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunetv2_retina.console.engines import ALONE, Workers
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.nnunet.inputs import InputCase, left_out, list_cases
from nnunetv2_retina.prediction import outputs
from nnunetv2_retina.prediction.case_files import Origin, check_names
from nnunetv2_retina.prediction.case_work import CaseWork, Prepared, SharedCase, case_files
from nnunetv2_retina.prediction.model import Model
from nnunetv2_retina.prediction.objects import table
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import RunSettings

AHEAD_BYTES = 2**28
"""Cases that are prepared while another is predicted take no more than this, judged by the one before them. While a
larger one is predicted, nothing else is read or written."""


class _AtOnce:
    """Stands in for a thread pool without threads."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_: Any) -> None:
        return


class FolderRun:
    """One run over a folder.

    Args:
        predictor: the model.
        source: folder of images CASE_0000<ending>, ...
        target: folder for CASE<ending>.
        settings: what to write.
        say: takes lines for the user.
        origins: where the images of cases were read from, if they were not in the source from the start.
        begun: called once the target folder is this run's.
        model: the predictor as it is sent to other processes; needed where there are ``workers``.
        workers: who shares the work.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Path,
        target: Path,
        settings: RunSettings,
        say: Callable[[str], None],
        origins: Mapping[str, Origin] | None = None,
        begun: Callable[[], None] = lambda: None,
        model: Model | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.predictor = predictor
        self.source = source
        self.target = target
        self.settings = settings
        self.part = f"_{settings.part}_of_{settings.parts}" if settings.parts > 1 else ""
        self.say = say
        self.begun = begun
        self.dataset_json: dict[str, Any] = predictor.nnunet.dataset_json
        self.origins = origins or {}
        self.files = case_files(predictor, settings, self.origins)
        self.work = CaseWork(predictor, target, self.files, self.part, say)
        self.model = model
        self.workers = workers
        self.names: list[str] = []
        """Of all cases in the folder, also those of other parts; known once it runs."""

    def run(self) -> list[str]:
        """Predict the cases that have no result yet, or all.

        Returns:
            Names of the cases that were predicted.

        Raises:
            RetinaError: naming the case that cannot be read, predicted or written; those before it are finished. Also
                if another run is writing to the folder.
        """
        cases = list_cases(self.source, self.dataset_json)
        self.names = [case.name for case in cases]
        self._check_names(cases)
        if passed_over := left_out(self.source, self.dataset_json):
            self.say(f"not predicted: {shorten(passed_over)}")
        with outputs.held(self.target, self.part):
            return self._run(cases[self.settings.part :: self.settings.parts])

    def _run(self, cases: list[InputCase]) -> list[str]:
        todo = outputs.missing(cases, self.target, self.files.names) if self.settings.continued else cases
        arguments = self._arguments()
        if len(todo) < len(cases):
            outputs.check_goes_on(self.target, arguments)
        outputs.write_records(self.target, self.dataset_json, self.predictor.nnunet.plans_manager.plans, arguments)
        if self.settings.instances is not None:
            table.write_dictionary(self.target)
        self.begun()
        if len(todo) < len(cases):
            self.say(f"{len(cases) - len(todo)} of {len(cases)} cases are finished already")
        try:
            if self.workers.alone:
                self._alone(todo)
            else:
                self._shared(todo)
        finally:
            outputs.remove_if_empty(outputs.unfinished(self.target, self.part))
        return [case.name for case in todo]

    def _shared(self, todo: list[InputCase]) -> None:
        """Let the workers do whole cases."""
        assert self.model is not None, "sent to the workers"
        task = SharedCase(
            self.model, self.target.absolute(), self.settings, self.origins, self.part, self.workers.threads
        )
        cases = [InputCase(case.name, tuple(file.absolute() for file in case.files)) for case in todo]
        spacing_told = False
        with self.workers.engine(self.say) as engine, ProgressBar("predicting", len(todo), "cases") as bar:
            for number, (case, done) in enumerate(engine.run(task, cases), start=1):
                if done.remark and not spacing_told:
                    self.say(f"{case.name}: {done.remark}")
                    spacing_told = True
                shape = " x ".join(map(str, done.shape))
                self.say(f"{number} of {len(todo)}   {case.name}   {shape}   {done.seconds:.1f} s")
                bar.update(number)

    def _alone(self, todo: list[InputCase]) -> None:
        """Read ahead and write behind, in threads, while one case is predicted."""
        preparing = self._pool(self.settings.preparing)
        writing = self._pool(self.settings.writing)
        try:
            self._predict_all(todo, preparing, writing)
        finally:
            preparing.shutdown(cancel_futures=True)
            writing.shutdown()

    def _check_names(self, cases: list[InputCase]) -> None:
        """Check that no result takes the name of another, or of an image.

        Raises:
            RetinaError: naming both.
        """
        if self.target.exists() and self.target.samefile(self.source):
            raise RetinaError(f"{self.target} is the folder of the images and of the predictions; give another with -o")
        for name, origin in self.files.origins.items():
            if self.target.exists() and any(self.target.samefile(file.parent) for file in origin.files):
                raise RetinaError(
                    f"{self.target} is the folder of {name}, an image that is to be predicted; give another with -o"
                )
        check_names(cases, self.files)

    @staticmethod
    def _pool(workers: int) -> ThreadPoolExecutor | _AtOnce:
        return ThreadPoolExecutor(workers) if workers else _AtOnce()

    def _predict_all(
        self, todo: list[InputCase], preparing: ThreadPoolExecutor | _AtOnce, writing: ThreadPoolExecutor | _AtOnce
    ) -> None:
        waiting = deque(todo)
        ahead: deque[tuple[InputCase, Future[Prepared]]] = deque()
        behind: deque[Future[None]] = deque()
        spacing_told = False
        for number in range(1, len(todo) + 1):
            if not ahead:
                case = waiting.popleft()
                ahead.append((case, preparing.submit(self.work.prepare, case)))
            case, future = ahead.popleft()
            data, properties = future.result()
            del future
            if not spacing_told and (remark := self.predictor.spacing_remark(properties)):
                self.say(f"{case.name}: {remark}")
                spacing_told = True
            large = data.nbytes > AHEAD_BYTES
            while waiting and len(ahead) < min(self.settings.preparing, AHEAD_BYTES // data.nbytes):
                following = waiting.popleft()
                ahead.append((following, preparing.submit(self.work.prepare, following)))
            start = time.perf_counter()
            prediction = self.work.predict(case, data, properties)
            shape = " x ".join(str(n) for n in prediction.labels.shape)
            self.say(f"{number} of {len(todo)}   {case.name}   {shape}   {time.perf_counter() - start:.1f} s")
            del data
            behind.append(writing.submit(self.work.write, case, prediction, properties))
            del prediction
            while behind and (len(behind) > self.settings.writing or large or behind[0].done()):
                behind.popleft().result()
        for written in behind:
            written.result()

    def _arguments(self) -> dict[str, Any]:
        """Return what nnU-Net writes to predict_from_raw_data_args.json, and the settings that it does not know."""
        predictor, instances = self.predictor, self.settings.instances
        return {
            "list_of_lists_or_source_folder": str(self.source),
            "output_folder_or_list_of_truncated_output_files": str(self.target),
            "save_probabilities": self.settings.probabilities,
            "overwrite": not self.settings.continued,
            "num_processes_preprocessing": self.settings.preparing,
            "num_processes_segmentation_export": self.settings.writing,
            "folder_with_segs_from_prev_stage": None,
            "num_parts": self.settings.parts,
            "part_id": self.settings.part,
            "retina": {
                "inference": predictor.mode,
                "mirroring": predictor.settings.mirroring,
                "batch_size": predictor.window.batch_size,
                "step_size": predictor.settings.step_size,
                "folds": len(predictor.window.models),
                "model": None if self.model is None else self.model.identity(),
                "instances": None if instances is None else asdict(instances),
            },
        }
