"""Commands in processes of their own that do not import torch and nnU-Net each anew.

A server imports them once and forks for each command: the child gets the arguments, environment and folder of a fresh
process and ends like one. What is not tested this way is the start of the interpreter, for which some tests start real
processes. Run as a program, this file is the server: one JSON line in for each command, one out.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


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
            request = {
                "command": command,
                "arguments": arguments,
                "environment": environment,
                "folder": str(folder),
                "output": output.name,
            }
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            return status, Path(output.name).read_text(encoding="utf-8", errors="replace")


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


def become(request: dict) -> None:
    """Turn this forked process into the command; never returns."""
    import multiprocessing
    from importlib.metadata import entry_points

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
        multiprocessing.get_context = lambda method=None: fork
        torch.set_num_threads(1)
        torch.set_num_threads = lambda threads: None
        (entry,) = entry_points(group="console_scripts", name=request["command"])
        sys.argv = [request["command"], *request["arguments"]]
        status = entry.load()() or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())  # as the interpreter ends; some commands have set one
        except SystemExit as ended:
            status = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
