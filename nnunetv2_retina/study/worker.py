"""Carries out one run of a study: trains with nnU-Net, predicts, scores, writes ``result.json``.

    python -m nnunetv2_retina.study.worker RUN_FOLDER --device cpu

The study starts one such process a run, with nnU-Net's folders set to the run's own, so that a run that fails takes no
other with it. Started again, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_retina.console.machine import available_cores, end_with
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.evaluation.evaluate import evaluate
from nnunetv2_retina.evaluation.output import as_json, versions, write_scores
from nnunetv2_retina.files import read_json, write_json
from nnunetv2_retina.nnunet.datasets import read_dataset_json
from nnunetv2_retina.nnunet.models import BEST, FINAL, LATEST, model_name
from nnunetv2_retina.prediction.folder import FolderRun
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings, RunSettings
from nnunetv2_retina.protocol import iteration_checkpoint
from nnunetv2_retina.study import folders
from nnunetv2_retina.study.runs import ANEW, PREDICTIONS, REHEARSAL_STEPS, RESULT, RUN, Run
from nnunetv2_retina.training import seeding

TRAINING = "training.json"
FORMAT_VERSION = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the run of a folder; exit status 2 after a RetinaError."""
    parser = argparse.ArgumentParser(prog="python -m nnunetv2_retina.study.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, help="on a processor; default: a thread a core")
    parser.add_argument("--parent", type=int, help="process that started this one, which ends with it")
    arguments = parser.parse_args(argv)
    if arguments.parent is not None:
        end_with(arguments.parent)
    try:
        Worker(arguments.folder, torch.device(arguments.device), arguments.threads).execute()
    except RetinaError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the log's end is what the study shows of a failure
        return 2
    return 0


class Worker:
    """One run.

    Args:
        folder: holds ``run.json`` and the folders of ``folders``, to which nnU-Net's variables point.
        device: where to train and predict.
        threads: on a processor; None: a thread a core.
    """

    def __init__(self, folder: Path, device: torch.device, threads: int | None = None) -> None:
        self.folder = folder
        self.device = device
        self.threads = threads or available_cores()
        self.run = Run.from_json(read_json(folder / RUN, ANEW))
        trained = model_name(self.run.trainer, self.run.plans, self.run.configuration)
        self.model = folders.results(folder) / self.run.dataset / trained
        self.fold = self.model / f"fold_{self.run.fold}"

    def execute(self) -> None:
        """Do everything that is not done yet."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.threads)
        started = _now()
        training = self._train()
        iterations = self.run.iterations or (training["iterations"],)
        images, labels = folders.scored_files(self.folder, self.run)
        dataset_json = read_dataset_json(self.model)
        scores: dict[str, Any] = {}
        seconds = []
        for iteration in iterations:
            name = FINAL if iteration == iterations[-1] else iteration_checkpoint(iteration)
            target = self.folder / PREDICTIONS / str(iteration)
            begun = target.exists()
            begin = time.perf_counter()
            self._predict(images, target, name)
            if not begun:  # else part of it was done by an earlier start
                seconds.append(time.perf_counter() - begin)
            evaluated = evaluate(target, labels, dataset_json)
            write_scores(evaluated, self.folder / "scores" / str(iteration))
            scores[str(iteration)] = _scores(as_json(evaluated))
            metrics = {metric.key: metric.meaning for metric in evaluated.rule.metrics}
        write_json(
            self.folder / RESULT,
            {
                "format_version": FORMAT_VERSION,
                "dataset": self.run.title,
                "system": self.run.system,
                "seed": self.run.seed,
                "iterations": list(iterations),
                "scores": scores,
                "metrics": metrics,
                "seconds_per_iteration": training["seconds_per_iteration"],
                "training_seconds": training["seconds"],
                "prediction_seconds": statistics.median(seconds) if seconds else None,
                "parameters": training["parameters"],
                "made_by": self._made_by(started, dataset_json),
            },
        )
        self._tidy(iterations)

    # ---- training

    def _train(self) -> dict[str, Any]:
        """Train to the end, or go on with it; iterations, seconds and parameters."""
        record = self.folder / TRAINING
        if record.is_file():
            return read_json(record, ANEW)
        continued = not self.run.rehearsal and any((self.fold / name).is_file() for name in (FINAL, LATEST))
        seeding.set_seed(self.run.seed)
        trainer = get_trainer_from_args(
            self.run.dataset,
            self.run.configuration,
            self.run.fold,
            self.run.trainer,
            self.run.plans,
            continued,
            self.device,
        )
        maybe_load_checkpoint(trainer, continued, False, None)
        if self.run.rehearsal:
            per_step = _rehearse(trainer)
        else:
            trainer.run_training()
            per_step = None
        facts = _facts(trainer, self.run, per_step)
        write_json(record, facts)
        return facts

    # ---- prediction

    def _predict(self, images: Path, target: Path, checkpoint: str) -> None:
        if self.run.configuration.startswith("2d"):
            settings = PredictionSettings(mirroring=self.run.mirroring, step_size=self.run.step_size)
            predictor = Predictor.from_model_folder(self.model, [self.run.fold], checkpoint, self.device, settings)
            FolderRun(predictor, images, target, RunSettings(continued=True), _log).run()
            return
        nnunet = nnUNetPredictor(
            self.run.step_size,
            use_mirroring=self.run.mirroring,
            perform_everything_on_device=self.device.type == "cuda",
            device=self.device,
            allow_tqdm=False,
        )
        nnunet.initialize_from_trained_model_folder(str(self.model), (self.run.fold,), checkpoint)
        nnunet.predict_from_files(
            str(images),
            str(target),
            overwrite=False,
            num_processes_preprocessing=1,
            num_processes_segmentation_export=1,
        )

    # ---- what is kept

    def _made_by(self, started: str, dataset_json: Mapping[str, Any]) -> dict[str, Any]:
        report = self.fold / "transfer_report.json"
        transfer = read_json(report, ANEW) if report.is_file() else {}
        return {
            "versions": {**versions(), "torch": torch.__version__},
            "device": _device_name(self.device),
            "threads": torch.get_num_threads() if self.device.type == "cpu" else None,
            "platform": platform.platform(),
            "trainer": self.run.trainer,
            "configuration": self.run.configuration,
            "fold": self.run.fold,
            "protocol": dict(dataset_json.get("retina", {})),
            "weights": {"file": Path(transfer["source"]).name, "fingerprint": transfer["fingerprint"]}
            if transfer.get("source")
            else None,
            "started": started,
            "finished": _now(),
        }

    def _tidy(self, iterations: Sequence[int]) -> None:
        """Delete what can be made again: checkpoints and predictions but the last, links to preprocessed data."""
        for file in (*self.fold.glob("checkpoint_iteration_*.pth"), self.fold / BEST):
            file.unlink(missing_ok=True)
        for iteration in iterations[:-1]:
            shutil.rmtree(self.folder / PREDICTIONS / str(iteration), ignore_errors=True)
        folders.remove(self.folder)
        if self.run.rehearsal:
            shutil.rmtree(folders.results(self.folder), ignore_errors=True)


def _rehearse(trainer: nnUNetTrainer) -> float:
    """Train a few steps; seconds of one, data loading included, the first ones left out."""
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, REHEARSAL_STEPS, 1
    ends: list[float] = []
    step = trainer.train_step

    def timed(batch: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = step(batch)
        ends.append(time.perf_counter())
        return result

    trainer.train_step = timed
    trainer.run_training()
    return statistics.median(after - before for before, after in pairwise(ends[1:]))


def _facts(trainer: nnUNetTrainer, run: Run, per_step: float | None) -> dict[str, Any]:
    """Return what to record of a training. Times are nnU-Net's of its epochs, those before an interruption included."""
    starts = trainer.logger.get_value("epoch_start_timestamps", step=None)
    ends = trainer.logger.get_value("epoch_end_timestamps", step=None)
    seconds = sum(end - start for start, end in zip(starts, ends, strict=False))
    own = trainer.num_epochs * trainer.num_iterations_per_epoch
    iterations = run.iterations[-1] if run.iterations else own
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in trainer.network.parameters()]
    return {
        "iterations": iterations,
        "seconds": seconds,
        "seconds_per_iteration": seconds / iterations if per_step is None else per_step,
        "parameters": {
            "all": sum(size for size, _ in sizes),
            "trained": sum(size for size, trained in sizes if trained),
        },
    }


def _scores(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return the means of the data set, of its classes and of its cases."""
    return {
        "mean": contents["mean"],
        "classes": contents["classes"],
        "cases": {name: case["mean"] for name, case in contents["cases"].items()},
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _log(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - into the run's log


if __name__ == "__main__":
    sys.exit(main())
