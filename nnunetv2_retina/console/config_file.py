"""Options of a command in a YAML file: read for ``--config``, written by every run beside its results.

A parser that ``add_option`` was called for takes them; ``console.command`` does the rest. Keys are the names of
options, without their dashes; ``-`` and ``_`` are the same, and SOURCE is ``source``. The command line wins over the
file, also where it names one of options that exclude each other and the file another; the file wins over the parser's
defaults.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import write_text

RUN_YAML = "run.yaml"
"""The file that a run writes into its output folder."""
_FLAG = "--config"
_NOT_SETTINGS = (argparse._HelpAction, argparse._VersionAction)

_NOT_GIVEN = ("", "null", "~")
"""What YAML calls nothing."""

ParserFactory = Callable[[], argparse.ArgumentParser]


def add_option(parser: argparse._ActionsContainer) -> None:
    """Let a command take ``--config``."""
    parser.add_argument(
        _FLAG, type=Path, metavar="FILE",
        help=f"YAML file of options by their names, such as the {RUN_YAML} of an earlier run; the command line wins",
    )  # fmt: skip


def parse(make: ParserFactory, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and the file that ``--config`` names, if the parser takes that.

    Raises:
        RetinaError: for a file that cannot be read, or that names an unknown option or value.
    """
    parser = make()
    if values := given(make, argv):
        excluded = _excluded(make(), argv)
        apply(parser, {name: value for name, value in values.items() if name not in excluded})
    return parser.parse_args(argv)


def given(make: ParserFactory, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the values in the file that ``--config`` names, by attribute of the parsed options; {} without one.

    Raises:
        RetinaError: see ``parse``.
    """
    path = _path(make(), argv)
    return {} if path is None else _values(path, make)


def apply(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> None:
    """Make the values that ``given`` returned the parser's defaults; options that they set are no longer required."""
    parser.set_defaults(**values)
    for action in parser._actions:
        if action.dest in values:
            action.required = False


def write(
    folder: Path, parser: argparse.ArgumentParser, arguments: Mapping[str, Any], leave_out: Collection[str] = ()
) -> Path:
    """Write the settings of a run so that ``--config`` repeats it; paths of files that exist are written in full.

    Args:
        folder: of the run; it exists.
        parser: of the command.
        arguments: as parsed: attribute -> value.
        leave_out: attributes that do not belong to it, such as the output folder.

    Returns:
        The file.

    Raises:
        RetinaError: if it cannot be written.
    """
    import yaml

    from nnunetv2_retina import __version__

    settings = {}
    for action in _settings(parser):
        value = arguments.get(action.dest)
        if action.dest in leave_out or value is None or value == []:
            continue
        if isinstance(action, argparse._StoreConstAction):  # the switches, too
            if isinstance(action.const, bool):
                settings[_name(action)] = value == action.const
            elif value == action.const:
                settings[_name(action)] = True
        else:
            settings[_name(action)] = _plain(value)
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000)
    repeat = f"{parser.prog} {_FLAG} {RUN_YAML}"
    head = f"# Settings of a run of {parser.prog} {__version__}. To repeat it: {repeat}, and another output folder.\n"
    return write_text(folder / RUN_YAML, head + text, "Choose another output folder")


def _path(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Path | None:
    if _FLAG not in parser._option_string_actions:
        return None
    probe = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    probe.add_argument(_FLAG, type=Path)
    path: Path | None = probe.parse_known_args(argv)[0].config
    return path


def _without_defaults(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser changed so that what is not given does not appear."""
    for action in parser._actions:
        action.required, action.default = False, argparse.SUPPRESS
        if not action.option_strings and action.nargs is None:
            action.nargs = "?"
    parser._defaults.clear()
    return parser


def _excluded(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """Return the attributes of options that one on the command line excludes."""
    exclusive = [{action.dest for action in group._group_actions} for group in parser._mutually_exclusive_groups]
    typed = vars(_without_defaults(parser).parse_known_args(argv)[0]).keys()
    return {name for dests in exclusive if dests & typed for name in dests - typed}


def _settings(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, _NOT_SETTINGS) and _FLAG not in a.option_strings]


def _name(action: argparse.Action) -> str:
    """Return the key of an option: its first long name without dashes, else its name, or a positional's."""
    names = sorted(action.option_strings, key=lambda name: not name.startswith("--"))
    return names[0].lstrip("-") if names else action.dest


def _keys(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return every spelling of every option, with ``-`` for ``_``; of nnU-Net's ``--c`` and ``-c``, the latter."""
    actions = _settings(parser)
    names = [(name.lstrip("-"), action) for action in actions for name in action.option_strings]
    names += [(_name(action), action) for action in actions]  # these last, for they are what ``write`` uses
    return {name.replace("_", "-"): action for name, action in names}


def _values(path: Path, make: ParserFactory) -> dict[str, Any]:
    probe = make()
    keys = _keys(probe)
    _without_defaults(probe)
    positional: list[str] = []
    options: list[str] = []
    switches: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = str(key).replace("_", "-")
        if name not in keys:
            (near,) = difflib.get_close_matches(name, keys, n=1, cutoff=0)
            raise RetinaError(f"{path}: {probe.prog} has no option {key!r}; did you mean {_name(keys[near])}?")
        action = keys[name]
        if isinstance(action, argparse._StoreConstAction):
            chosen = _switch(path, key, action, value)
            if twice := [name for name in chosen if switches.get(name, chosen[name]) != chosen[name]]:
                raise RetinaError(f"{path}: {key} contradicts another switch for {twice[0]}. Leave one out")
            switches.update(chosen)
        elif value not in _NOT_GIVEN:
            (options if action.option_strings else positional).extend(_words(path, key, action, value))
    probe.error = partial(_refuse, path)  # type: ignore[method-assign]
    return vars(probe.parse_args([*positional, *options])) | switches


def _refuse(path: Path, message: str) -> NoReturn:
    raise RetinaError(f"{path}: {message}")


def _switch(path: Path, key: object, action: argparse._StoreConstAction, value: object) -> dict[str, Any]:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise RetinaError(f"{path}: {key} is {value}; expected true or false, for it is a switch")
    if text == "true":
        return {action.dest: action.const}
    return {action.dest: not action.const} if isinstance(action.const, bool) else {}


def _words(path: Path, key: object, action: argparse.Action, value: object) -> list[str]:
    """Return a value as on the command line."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, (dict, list)) for item in values):
        raise RetinaError(f"{path}: {key} is {value!r}; expected a number, a text, or a list of them")
    words = [str(item) for item in values]
    flag = action.option_strings[:1]
    if len(words) == 1 and flag:
        return [f"{flag[0]}={words[0]}"]  # also where the value begins with a dash
    return [*flag, *words]


def _read(path: Path) -> Mapping[Any, Any]:
    import yaml

    advice = f"Give a YAML file of options, such as batch-size: 16, or the {RUN_YAML} of a run"
    try:
        # every value a text, as on the command line: 010 is a data set's number there, and off a precision
        contents = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise RetinaError(f"{_FLAG} {path} cannot be read ({error.strerror or error}). {advice}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RetinaError(f"{_FLAG} {path} is no YAML file ({reason}). {advice}") from error
    if not isinstance(contents, Mapping):
        raise RetinaError(f"{_FLAG} {path} holds a {type(contents).__name__}; expected option: value. {advice}")
    return contents


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        file = Path(str(value).partition("::")[0])  # of HDF5, FILE::DATASET
        return str(value.absolute() if file.exists() else value)
    return value
