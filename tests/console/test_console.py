"""How commands end, and how a settings dataclass becomes options."""

import argparse
import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunetv2_retina import __version__, console
from nnunetv2_retina.console import add_settings, read_settings, setting
from nnunetv2_retina.errors import RetinaError


@dataclass(frozen=True)
class Settings:
    steps: int = setting(4, "how many steps")
    rate: float = setting(0.5, "how fast", flag=("-rate", "--speed"))
    file: Path | None = setting(None, "what to read (default: nothing)")
    kind: str = setting("a", "which kind", choices=("a", "b"))
    quick: bool = setting(False, "hurry up")
    mirrored: bool = setting(True, "do not mirror", flag="--not-mirrored")
    hidden: int = 7


def parse(*words: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_settings(parser, Settings)
    return read_settings(Settings, parser.parse_args(words))


def test_defaults_and_options():
    assert parse() == Settings()
    options = "--steps 2 --speed 0.1 --file x --kind b --quick --not-mirrored"
    assert parse(*options.split()) == Settings(2, 0.1, Path("x"), "b", True, False)
    assert parse("-rate", "2") == Settings(rate=2.0)


def test_help_says_the_default_once(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--steps N how many steps (default 4)" in text and "-rate X, --speed X how fast (default 0.5)" in text
    assert "--file FILE what to read (default: nothing) --kind {a,b}" in text and "hidden" not in text


def test_only_some_settings():
    parser = argparse.ArgumentParser()
    add_settings(parser, Settings, only=("kind",))
    arguments = parser.parse_args(["--kind", "b"])
    assert vars(arguments) == {"kind": "b"}
    assert read_settings(Settings, arguments, hidden=1) == Settings(kind="b", hidden=1)


def raising(error: BaseException):
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (RetinaError("got a; expected b"), 2, "error: got a; expected b\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_ends_without_a_traceback(error, status, shown, capsys):
    assert console.run(raising(error)) == status
    assert capsys.readouterr().err == shown


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        console.run(raising(ZeroDivisionError()))


def test_statuses():
    assert console.run(lambda: None) == 0 and console.run(lambda: 1) == 1


TALKATIVE = """
from nnunetv2_retina import console

def lines():
    for number in range(100_000):
        console.say(str(number))

raise SystemExit(console.run(lines))
"""


def test_a_reader_that_has_gone():
    command = f"{sys.executable} -c '{TALKATIVE}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.split() == ["0", str(console.BROKEN_PIPE)] and done.stderr == ""


def test_version_and_no_abbreviations(capsys):
    parser = console.parser("retina_test", "Test.")
    parser.add_argument("--overwrite", action="store_true")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"retina_test {__version__} (RETINA for nnU-Net)\n"
    with pytest.raises(SystemExit):
        parser.parse_args(["--over"])


NNUNET = """
import builtins, sys, nnunetv2_retina.errors as errors
from nnunetv2_retina.console import end_nnunet_in_one_line
sys.argv[0] = sys.argv[1]
end_nnunet_in_one_line()
end_nnunet_in_one_line()
raise (getattr(errors, sys.argv[2], None) or getattr(builtins, sys.argv[2]))("no")
"""


@pytest.mark.parametrize(
    ("command", "error", "status", "said"),
    [
        ("/bin/nnUNetv2_train", "RetinaError", 2, "error: no\n"),
        ("/bin/nnUNetv2_train", "KeyboardInterrupt", 130, "interrupted\n"),
        ("/bin/nnUNetv2_train", "KeyError", 1, None),
        ("notebook", "RetinaError", 1, None),
    ],
)
def test_an_error_of_ours_ends_a_command_of_nnunet_in_one_line(command, error, status, said):
    ended = subprocess.run([sys.executable, "-c", NNUNET, command, error], capture_output=True, text=True)
    assert ended.returncode == status
    assert ended.stderr == said if said else "Traceback" in ended.stderr


def test_an_error_of_ours_in_a_process_of_several_gpus(monkeypatch, capsys):
    """As PyTorch hands on what ended a process that it spawned."""
    import traceback

    from torch.multiprocessing.spawn import ProcessRaisedException

    shown = []
    monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train"])
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error[1]))
    console.end_nnunet_in_one_line()
    for error in (RetinaError("two lines\nof a text"), KeyError("no")):
        try:
            raise error
        except Exception:
            text = "\n\n-- Process 1 terminated with the following error:\n" + traceback.format_exc()
        raised = ProcessRaisedException(text, 1, 2)
        with contextlib.suppress(SystemExit):
            sys.excepthook(type(raised), raised, None)
    assert capsys.readouterr().err == "error: two lines\nof a text\n"
    assert shown == [raised]
