"""Python processes that do not import torch and nnU-Net each anew.

A server imports them once and forks for each process that is wanted: the child gets the arguments, environment and
folder of a fresh interpreter and ends like one. What is not tested this way is the start of the interpreter, for which
some tests start real processes. Run as a program, this file is the server: one JSON line in for each process, one out.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn


class WarmCommands:
    """A client of one server process; a context manager."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=environment | {"OMP_NUM_THREADS": "1"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "WarmCommands":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()  # the end of its input ends it

    def run(self, command: str, arguments: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
        """Run an installed command; return its exit status and what it printed."""
        with tempfile.NamedTemporaryFile("w+", suffix=".txt") as output:
            status = self.python(["-c", entry_code(command), *arguments], environment, folder, output.name)
            return status, Path(output.name).read_text(encoding="utf-8", errors="replace")

    def python(self, arguments: list[str], environment: dict[str, str], folder: Path, output: str) -> int:
        """Run ``python -c CODE ...`` or ``python -m MODULE ...``, which appends to a file; return the exit status."""
        request = {"arguments": arguments, "environment": environment, "folder": str(folder), "output": output}
        assert self._server.stdin is not None and self._server.stdout is not None, "they are pipes"
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


class WarmSubprocess:
    """Stands in for the module ``subprocess`` in modules that start this interpreter: the processes are warm ones."""

    DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT

    def __init__(self, commands: WarmCommands) -> None:
        self._commands = commands

    def Popen(  # noqa: N802 - the module's name
        self,
        command: Sequence[str],
        *,
        env: dict[str, str],
        stdin: int,
        stdout: int | IO[str],
        stderr: int,
        **_: Any,
    ) -> "_Ended":
        assert command[0] == sys.executable and (stdin, stderr) == (self.DEVNULL, self.STDOUT)
        arguments, folder = list(command[1:]), Path.cwd()
        if not isinstance(stdout, int):
            return _Ended(self._commands.python(arguments, env, folder, str(stdout.name)))
        with tempfile.NamedTemporaryFile(suffix=".txt") as output:
            status = self._commands.python(arguments, env, folder, output.name)
            return _Ended(status, io.StringIO(Path(output.name).read_text(encoding="utf-8", errors="replace")))


class _Ended:
    """A process that has ended before ``Popen`` returns."""

    def __init__(self, status: int, output: IO[str] | None = None) -> None:
        self._status = status
        self.stdout = output

    def __enter__(self) -> "_Ended":
        return self

    def __exit__(self, *_: object) -> None:
        """Have nothing to close."""

    def wait(self) -> int:
        return self._status

    def kill(self) -> None:
        """Do nothing: it has ended."""


def entry_code(command: str) -> str:
    """Return the code that the script of an installed command has."""
    return (
        "import sys; from importlib.metadata import entry_points; "
        f"(entry,) = entry_points(group='console_scripts', name={command!r}); "
        f"sys.argv[0] = {command!r}; sys.exit(entry.load()())"
    )


def serve() -> None:
    import nnunetv2.inference.predict_from_raw_data
    import nnunetv2.run.run_training  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def become(request: dict[str, Any]) -> NoReturn:
    """Turn this forked process into the one that is wanted."""
    import multiprocessing
    import runpy

    import torch

    from nnunetv2_retina.registration import register

    status = 1
    try:
        output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        register()  # as at the start of an interpreter
        os.chdir(request["folder"])
        # nnU-Net's workers fork too, from a process that never had threads.
        fork = multiprocessing.get_context("fork")
        vars(multiprocessing)["get_context"] = lambda method=None: fork
        torch.set_num_threads(1)
        vars(torch)["set_num_threads"] = lambda threads: None
        option, what, *arguments = request["arguments"]
        sys.argv = [option, *arguments]
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = exit_status(ended)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())  # as the interpreter ends; some commands have set one
        except SystemExit as ended:
            status = exit_status(ended)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def exit_status(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


if __name__ == "__main__":
    serve()
