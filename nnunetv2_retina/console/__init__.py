"""What all commands share: how they end, ``--version``, and settings that become options.

Beside it: settings in a YAML file, progress, numbers in words, and what the machine offers.
Imports nothing heavy: ``--help``, ``--version`` and wrong options answer without torch or nnU-Net.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from nnunetv2_retina import __version__
from nnunetv2_retina.console import config_file
from nnunetv2_retina.errors import RetinaError

USAGE_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

T = TypeVar("T")


def run(action: Callable[[], int | None]) -> int:
    """Call ``action`` and return the exit status of the command.

    Returns:
        What ``action`` returns (None: 0); 2 after an error that the user can correct, with its text on stderr; 130
        after Ctrl-C; 141 if whatever read the output has gone (``| head``).
    """
    try:
        return action() or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout when it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (RetinaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR


def end_nnunet_in_one_line() -> None:
    """Let an nnU-Net command end as ``run`` does where it would show the traceback of an error of ours, or of Ctrl-C.

    Other errors, and other programs that use nnU-Net, keep their tracebacks.
    """
    earlier = sys.excepthook
    if not Path(sys.argv[0]).name.startswith("nnUNetv2_") or getattr(earlier, "of_retina", False):
        return

    def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        ours = _of_worker(error) or error
        if not isinstance(ours, (RetinaError, KeyboardInterrupt, BrokenPipeError)):
            earlier(kind, error, trace)
            return

        def again() -> None:
            raise ours

        raise SystemExit(run(again))  # the interpreter takes the status from here

    show.of_retina = True  # type: ignore[attr-defined]
    sys.excepthook = show


def _of_worker(error: BaseException) -> RetinaError | None:
    """Return the error of ours that ended a process of a training on several GPUs, from PyTorch's report of it."""
    if type(error).__name__ != "ProcessRaisedException":
        return None
    match = re.search(rf"^{RetinaError.__module__}\.{RetinaError.__name__}: (.+)", str(error), re.MULTILINE | re.DOTALL)
    return RetinaError(match[1].strip()) if match else None


def command(
    parser: Callable[[], argparse.ArgumentParser], action: Callable[[argparse.Namespace], int | None]
) -> Callable[[Sequence[str] | None], int]:
    """Return the function that a command starts with: it parses the arguments, acts, and returns the exit status.

    Args:
        parser: makes the command's parser; see ``config_file.add_option`` for options in a file.
        action: gets the parsed arguments; see ``run``.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        hide_deprecations(argv)
        return run(lambda: action(config_file.parse(parser, argv)))

    return main


def hide_deprecations(argv: Sequence[str] | None) -> None:
    """Keep the deprecations of libraries under this one from the user, here and in the processes that it starts.

    Args:
        argv: of the command's function; None: a user started it, who is shown them if Python was asked for warnings.
    """
    if argv is not None or sys.warnoptions:
        return
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    os.environ["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, to stdout or to ``stream``."""
    print(line, file=stream, flush=True)


def parser(command: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a command, with ``--version``; ``options`` are those of ``argparse.ArgumentParser``."""
    made = argparse.ArgumentParser(prog=command, description=description, allow_abbrev=False, **options)
    made.add_argument("--version", action="version", version=f"{command} {__version__} (RETINA for nnU-Net)")
    return made


Subcommands = Mapping[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None], str]]
"""Name -> what adds its options, what it does, and its line of help, in small letters."""


def add_subcommands(parser: argparse.ArgumentParser, subcommands: Subcommands) -> None:
    """Add them to the parser of a command; the chosen one's name is then ``command`` of the arguments."""
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, help="what to do:")
    for name, (add, _, text) in subcommands.items():
        add(parsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False))


def setting(default: Any, help: str, **option: Any) -> Any:
    """Declare a field of a settings dataclass that is also an option of a command.

    Args:
        default: of the field and of the option.
        help: one line for both; the option's help text adds the default.
        option: more for ``add_argument`` (``choices``, ``metavar``, ``type`` ...), and ``flag``: the option's name or
            names, if it is not the field's with dashes.
    """
    return field(default=default, metadata={"help": help, "option": option})


def add_settings(group: argparse._ActionsContainer, settings: type, only: Iterable[str] | None = None) -> None:
    """Add an option for each field that ``setting`` declared.

    Args:
        group: a parser or a group of options.
        settings: the dataclass. A ``bool`` becomes a switch to the other value.
        only: names of fields; default: all that ``setting`` declared.
    """
    hints = typing.get_type_hints(settings)
    for entry in _declared(settings, only):
        option = dict(entry.metadata["option"])
        flags = option.pop("flag", None) or "--" + entry.name.replace("_", "-")
        flags = (flags,) if isinstance(flags, str) else flags
        kind, text = _plain_type(hints[entry.name]), entry.metadata["help"]
        if kind is bool:
            action = "store_false" if entry.default else "store_true"
            group.add_argument(*flags, dest=entry.name, action=action, help=text, **option)
            continue
        if entry.default is not None and "(default" not in text and "default:" not in text:
            text = f"{text} (default {_show(entry.default)})"
        option.setdefault("type", kind)
        if "choices" not in option:
            option.setdefault("metavar", {int: "N", float: "X", Path: "FILE"}.get(kind, "TEXT"))
        group.add_argument(*flags, dest=entry.name, default=entry.default, help=text, **option)


def read_settings(settings: type[T], arguments: argparse.Namespace, **more: Any) -> T:
    """Build the dataclass from parsed options; ``more`` are fields that no option gives, or that override one."""
    given = {
        entry.name: getattr(arguments, entry.name)
        for entry in _declared(settings, None)
        if hasattr(arguments, entry.name)
    }
    return settings(**{**given, **more})


def part_of(items: Sequence[T], part: str | None) -> list[T]:
    """Return every n-th item, from the i-th, for the option ``--part i/n``; all for None.

    Raises:
        RetinaError: unless i is from 1 to n.
    """
    if part is None:
        return list(items)
    number, _, of = part.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise RetinaError(f"--part {part}: expected i/n with i from 1 to n, such as 1/4 on the first of four machines")
    return list(items[int(number) - 1 :: int(of)])


def _declared(settings: type, only: Iterable[str] | None) -> list[Field[Any]]:
    declared: Mapping[str, Field[Any]] = {
        entry.name: entry for entry in fields(settings) if "option" in entry.metadata and entry.default is not MISSING
    }
    return [declared[name] for name in only] if only is not None else list(declared.values())


def _plain_type(hint: Any) -> Any:
    """``X`` of ``X | None``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
