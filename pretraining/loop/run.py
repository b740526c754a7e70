"""The loop of a pre-training: steps, epochs with their measurement and pictures, checkpoints, signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.weights import checkpoint
from pretraining.loop import state as training_state
from pretraining.loop.batches import Batch, read, training_batches
from pretraining.loop.engine import Engine
from pretraining.loop.processes import StopSignals
from pretraining.loop.progress import TensorBoard, plot, write_log, write_pictures
from pretraining.loop.state import FINAL, LATEST, Progress
from pretraining.loop.stream import Indices, Stream
from pretraining.probe import DatasetProbe
from pretraining.recipe import Execution
from pretraining.store.reader import ImageStore

_SHOWN_IMAGES = 6
_MEASURED_AT_ONCE = 256
_UNDRAWN = 19
"""No new curves and pictures are drawn for so many times as long as the last took: a twentieth of the time at most.
On a GPU an epoch of few images is shorter than they are."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    checkpoint: Path
    """``checkpoint_final.pth``, or ``checkpoint_latest.pth`` if the run was stopped."""
    stopped: bool = False


@dataclass
class _Clock:
    """When the last checkpoint and the current epoch began."""

    saved: float
    epoch: float
    steps: int = 0
    """Of the current epoch since this process began."""
    undrawn_until: float = 0.0
    """When curves and pictures may be drawn again."""


class Run:
    """A pre-training under way.

    Args:
        output: folder of everything that is written.
        engine: trains.
        execution: how.
        store: the images.
        stream: the order of the training images.
        held_out: indices of the held-out ones.
        probe: what is measured beside the loss, by the first process.
        say: where messages go before and between the lines of progress.
    """

    def __init__(
        self,
        output: Path,
        engine: Engine,
        execution: Execution,
        store: ImageStore,
        stream: Stream,
        held_out: Indices,
        probe: DatasetProbe | None,
        say: Callable[[str], None],
    ) -> None:
        self.output = output
        self.engine = engine
        self.execution = execution
        self.store = store
        self.stream = stream
        self.held_out = held_out
        self.processes = engine.processes
        self.recipe = engine.recipe
        self.total = self.recipe.total_iterations(len(stream))
        self.progress = Progress()
        first = self.processes.is_first
        self.probe = probe
        images = ("images", self.recipe.batch_size)
        self.line = ProgressBar("pre-training", self.total, "steps", rate=images) if first else None
        self.board = TensorBoard(output) if first and execution.tensorboard else None
        self.say = self.line.message if self.line else say

    def restore(self) -> None:
        """Go to where the latest checkpoint in the output folder was written, if there is one."""
        if path := training_state.latest(self.output):
            images = training_state.Images(self.store.fingerprint, len(self.stream), len(self.held_out))
            self.progress = training_state.restore(path, self.engine, self.recipe, images)
            self.say(f"continuing after step {self.progress.iteration:,} of {self.total:,}")
        if self.processes.is_first:
            write_log(self.output, self.progress.history)

    def fit(self, signals: StopSignals) -> Outcome:
        """Train to the last step, or until a signal stops it."""
        try:
            return self._fit(signals)
        finally:
            if self.line:
                self.line.close()

    def _fit(self, signals: StopSignals) -> Outcome:
        state = self.progress
        clock = _Clock(time.monotonic(), time.monotonic())
        unread: tuple[Tensor, Indices] | None = None
        for indices, images in self._batches():
            loss = self.engine.step(images, state.iteration, self.total)
            late = clock.saved + 60 * self.execution.checkpoint_minutes < time.monotonic()
            stop, due = self._agree(unread, signals.received is not None, late)
            state.iteration += 1
            clock.steps += 1
            unread = loss, indices  # read one step late: a GPU is not waited for
            ended = self._ends(self.execution.measure_every) or self._is_kept() or state.iteration == self.total
            if not (stop or due or ended):
                continue
            self._agree(unread, False, False)
            unread = None
            self._check_weights(indices)
            if ended:
                self._end_epoch(clock)
            self._save(LATEST, to_continue=True)
            clock.saved = time.monotonic()
            if stop and state.iteration < self.total:
                self.say(f"stopped after step {state.iteration:,}, which is saved; the same command continues")
                return Outcome(self.output / LATEST, stopped=True)
        self._save(FINAL)
        return Outcome(self.output / FINAL)

    def _batches(self) -> Iterator[Batch]:
        begin, workers = self.progress.iteration, self.execution.workers
        return training_batches(self.store, self.stream, self.processes, begin, self.total, workers)

    def _epochs(self, offset: int = 0) -> int:
        """Return how many epochs are complete after the steps done so far."""
        return self.stream.epoch(self.progress.iteration + offset)

    def _agree(self, unread: tuple[Tensor, Indices] | None, stop: bool, due: bool) -> tuple[bool, bool]:
        """Note the loss of a step, the mean over the processes, and decide together.

        Args:
            unread: this process's loss and the images it came from; None: none to note.
            stop: whether this process got a signal.
            due: whether a checkpoint is due by this process's clock; the first one's counts.

        Returns:
            Whether to stop, and whether to write a checkpoint.

        Raises:
            RetinaError: if the loss is not finite.
        """
        loss = 0.0 if unread is None else float(unread[0])
        if unread is not None and not math.isfinite(loss):
            raise RetinaError(self._non_finite(f"the loss became {loss}", unread[1]))
        shared = [loss / self.processes.count, float(stop), float(due and self.processes.is_first)]
        loss, stopping, writing = self.processes.sum(torch.tensor(shared, dtype=torch.float64)).tolist()
        if unread is not None:
            self.progress.loss_sum += loss
            self.progress.loss_count += 1
            if self.line:
                self.line.update(self.progress.iteration, note=f"loss {loss:.4f}")
        return stopping > 0, writing > 0

    def _check_weights(self, indices: Indices) -> None:
        """Refuse to save what the last step has spoiled though its own loss, from before it, was finite.

        Raises:
            RetinaError: if a weight is not finite.
        """
        if not checkpoint.is_finite(self.engine.objective.state_dict()):
            raise RetinaError(self._non_finite("weights became infinite or not a number", indices))

    def _non_finite(self, what: str, indices: Indices) -> str:
        names = shorten((self.store.name(int(index)) for index in indices), 8)
        saved = f"{LATEST} is from before it. " if (self.output / LATEST).exists() else ""
        return (
            f"{what} at step {self.progress.iteration:,}, on the images {names}. {saved}If the images are damaged "
            "leave them out (--exclude); else lower --lr, or --precision fp32"
        )

    def _end_epoch(self, clock: _Clock) -> None:
        """Measure, record and draw what was trained since the last time, and keep its checkpoint if it is due."""
        state = self.progress
        self.processes.copy_from_first(self.engine.objective.buffers())
        seconds = time.monotonic() - clock.epoch
        epoch = state.iteration * self.recipe.batch_size / len(self.stream)
        record: dict[str, Any] = {
            "epoch": round(epoch, 4),
            "iteration": state.iteration,
            "train_loss": state.loss_sum / max(state.loss_count, 1),
            **self._measure(),
            **(self.probe.measure(self.engine.objective.network, self.engine.device) if self.probe else {}),
            "learning_rate": self.recipe.learning_rate_at(state.iteration - 1, self.total),
            "images_per_second": round(clock.steps * self.recipe.batch_size / seconds, 2),
            "seconds": round(seconds, 2),
        }
        state.history.append(record)
        state.loss_sum, state.loss_count = 0.0, 0
        keep = self._is_kept()
        if self.processes.is_first:
            self._report(record)
            begin = time.monotonic()
            if keep or state.iteration == self.total or begin >= clock.undrawn_until:
                self._draw(keep)
                end = time.monotonic()
                clock.undrawn_until = end + _UNDRAWN * (end - begin)
        if keep:
            self._save(f"checkpoint_epoch_{self._epochs():04d}.pth")
        clock.epoch, clock.steps = time.monotonic(), 0

    def _ends(self, epochs: int) -> bool:
        """Tell whether the last step completed so many epochs, or a multiple of them."""
        return self._epochs() // epochs > self._epochs(-1) // epochs

    def _is_kept(self) -> bool:
        return bool(self.execution.keep_every) and self._ends(self.execution.keep_every)

    def _measure(self) -> dict[str, float]:
        """Return what the objective reports of all held-out images; each process measures some groups of them."""
        mine = range(0, len(self.held_out), _MEASURED_AT_ONCE)[self.processes.rank :: self.processes.count]
        sums: dict[str, Tensor] = {}
        for start in mine:
            indices = self.held_out[start : start + _MEASURED_AT_ONCE]
            images = read(self.store, indices, self.engine.device).to(self.engine.device)
            for name, pair in self.engine.measure(images, start).items():
                sums[name] = sums.get(name, torch.zeros(2, dtype=torch.float64)) + pair
        return {f"held_out_{name}": self._mean(sums.get(name)) for name in self.engine.objective.measured}

    def _mean(self, pair: Tensor | None) -> float:
        total, count = self.processes.sum(torch.zeros(2, dtype=torch.float64) if pair is None else pair).tolist()
        return total / count if count else math.nan

    def _draw(self, keep: bool) -> None:
        plot(self.output, self.progress.history)
        shown = self.held_out[:: math.ceil(len(self.held_out) / _SHOWN_IMAGES)]  # of all sources
        images = read(self.store, shown, self.engine.device).to(self.engine.device)
        if pictures := self.engine.pictures(images):
            names = [self.store.name(int(index)) for index in shown]
            write_pictures(self.output, pictures, names, "latest")
            if keep:
                write_pictures(self.output, pictures, names, f"epoch_{self._epochs():04d}")

    def _report(self, record: dict[str, Any]) -> None:
        write_log(self.output, self.progress.history)
        if self.board:
            self.board.add(record)
        loss = record["held_out_loss"]
        held_out = "no held-out loss" if math.isnan(loss) else f"held out {loss:.4f}"
        probed = (
            f", probe {record['probe_tokens_in']:.3f} in, {record['probe_tokens_out']:.3f} out" if self.probe else ""
        )
        self.say(
            f"epoch {record['epoch']:g}: loss {record['train_loss']:.4f}, {held_out}, "
            f"{record['images_per_second']:,} images/s{probed}"
        )

    def _save(self, name: str, to_continue: bool = False) -> None:
        if self.processes.is_first:
            training_state.save(self.output / name, self.engine, self.progress, self._description(), to_continue)

    def _description(self) -> dict[str, Any]:
        """Return what the checkpoint says of itself."""
        return {
            "recipe": self.recipe.to_dict(),
            "total_iterations": self.total,
            "epoch": self.progress.iteration * self.recipe.batch_size / len(self.stream),
            "images": {"training": len(self.stream), "held_out": len(self.held_out)},
            "store": {
                "fingerprint": self.store.fingerprint,
                "sources": list(self.store.groups),
                "mean": self.store.mean,
                "std": self.store.std,
                "drawn": self.store.manifest["source"].get("drawn"),
            },
            "execution": asdict(self.execution) | training_state.software(self.engine),
            "last_epoch": self.progress.history[-1] if self.progress.history else None,
        }
