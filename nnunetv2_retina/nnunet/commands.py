"""Runs commands, nnU-Net's and RETINA's, in a workspace of their own, with a log file each and lines of progress."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from nnunetv2_retina.console.machine import available_cores
from nnunetv2_retina.console.wording import time_left
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.nnunet.datasets import PREPROCESSED, RAW, RESULTS

Say = Callable[[str], None]
Watch = Callable[[str], str | None]

_TAIL = 15
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?|\bnan\b")


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three folders inside one folder, so that the user's own stay untouched."""

    root: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further ones for the commands."""
    log_suffix: str = ""
    """In the names of log files, where a command runs more than once."""

    @property
    def raw(self) -> Path:
        """``nnUNet_raw``"""
        return self.root / RAW

    @property
    def preprocessed(self) -> Path:
        """``nnUNet_preprocessed``"""
        return self.root / PREPROCESSED

    @property
    def results(self) -> Path:
        """``nnUNet_results``"""
        return self.root / RESULTS

    @property
    def logs(self) -> Path:
        """Return the folder of the commands' full output."""
        return self.root / "logs"

    def folders(self) -> dict[str, Path]:
        """Return the variables that tell nnU-Net its folders."""
        paths = (self.raw, self.preprocessed, self.results)
        return {path.name: path.resolve() for path in paths}

    def exported(self) -> dict[str, str]:
        """Return what a user would export for the same commands."""
        return {**{name: str(path) for name, path in self.folders().items()}, **self.variables}

    def environment(self) -> dict[str, str]:
        """Return the process environment with what is ``exported``; other variables only where they are not set."""
        defaults = {**process_defaults(), "nnUNet_compile": "f"}  # compiling takes longer than a short training
        return {**defaults, **os.environ, **self.exported(), "PYTHONUNBUFFERED": "1"}


def process_defaults() -> dict[str, str]:
    """Return nnU-Net's numbers of processes and threads for this machine, for where the user has set none."""
    return {
        "nnUNet_n_proc_DA": str(max(1, min(8, available_cores() - 1))),
        "nnUNet_def_n_proc": str(min(8, available_cores())),
        "OMP_NUM_THREADS": "1",  # for worker processes; nnU-Net gives the main one every core
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads are slow where other programs run
        "PYTHONUNBUFFERED": "1",
    }


def run_command(command: str, arguments: Sequence[str], workspace: Workspace, watch: Watch, say: Say) -> str:
    """Run a command with this interpreter and wait for it.

    Args:
        command: Its name, such as ``nnUNetv2_train``.
        arguments: What follows the name.
        workspace: Where nnU-Net's folders are and the log goes.
        watch: Gets every line of output; what it returns, unless None, is said.
        say: Takes lines for the user.

    Returns:
        The command as one would type it.

    Raises:
        RetinaError: if there is no such command or it fails, with the end of its output and the path of its log.
    """
    log = workspace.logs / f"{command}{workspace.log_suffix}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    typed = f"{command} {shlex.join(arguments)}"
    say(f"$ {typed}")
    tail: deque[str] = deque(maxlen=_TAIL)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, "-c", _entry_code(command), *arguments],
            env=_environment(command, workspace),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stdout is not None, "a pipe was asked for"
            for line in process.stdout:
                file.write(line)
                if line.strip():
                    tail.append(line.rstrip())
                message = watch(line)
                if message is not None:
                    say(message)
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        raise RetinaError(
            f"{command} failed ({_reason(status)}). The end of its output:\n\n{_quoted(tail)}\n\nAll: {log}"
        )
    return typed


class TrainingProgress:
    """Boils nnU-Net's training output down to a line per epoch; a ``watch`` for ``run_command``."""

    def __init__(self, epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._epochs = epochs
        self._clock = clock
        self._first: float | None = None
        self._epoch = 0
        self._values: dict[str, str] = {}

    def __call__(self, line: str) -> str | None:
        """Take one line of output; give the summary where it ends an epoch, and the cases of the final validation."""
        text = re.sub(r"^\S+ [\d:.]+: ", "", line.strip())
        if match := re.fullmatch(r"Epoch (\d+)", text):
            self._epoch = int(match[1])
            self._values = {}
            self._first = self._clock() if self._first is None else self._first
        if text.startswith("predicting "):
            return f"final validation: {text}"
        for name in ("train_loss", "val_loss", "Pseudo dice"):
            if text.startswith(name):
                numbers = _NUMBER.findall(re.sub(r"float\d+", "", text[len(name) :]))
                self._values[name] = " ".join(f"{float(number):.3f}" for number in numbers)
        if not text.startswith("Epoch time:") or self._first is None:
            return None
        done = self._epoch + 1
        left = "" if done >= self._epochs else time_left((self._clock() - self._first) / done * (self._epochs - done))
        progress = (
            f"epoch {done:3d} of {self._epochs}   loss {self._values.get('train_loss', '?')}   "
            f"validation: loss {self._values.get('val_loss', '?')}, "
            f"pseudo Dice {self._values.get('Pseudo dice', '?')}   {left}"
        )
        return progress.rstrip()


def _environment(command: str, workspace: Workspace) -> dict[str, str]:
    """Return the workspace's; without 0 processes where nnU-Net plans, which takes their number for torch's threads."""
    environment = workspace.environment()
    if "plan" in command and environment["nnUNet_n_proc_DA"].strip() == "0":
        environment["nnUNet_n_proc_DA"] = "1"
    return environment


def _entry_code(command: str) -> str:
    """Return Python code that runs an installed command; works where the scripts' folder is not on the PATH."""
    installed = list(entry_points(group="console_scripts", name=command))
    if not installed:
        raise RetinaError(
            f"{command} is not installed for {sys.executable}. Install it there: python -m pip install "
            + ("nnunetv2" if command.startswith("nnUNetv2") else "nnunetv2-retina")
        )
    module, _, function = installed[0].value.partition(":")
    return f"import sys; from {module} import {function} as run; sys.argv[0] = {command!r}; sys.exit(run())"


def _reason(status: int) -> str:
    if status == -9:
        return "killed, most likely for want of memory"
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _quoted(lines: Sequence[str] | deque[str]) -> str:
    return "\n".join(f"    {line}" for line in lines) or "    (no output)"
