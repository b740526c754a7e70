"""What needs no torch does not wait for it: help, versions, wrong options, and folders and files that are not there."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers.commands import SCRIPTS

HEAVY = ("torch", "nnunetv2", "batchgenerators", "matplotlib", "scipy", "skimage", "SimpleITK")
ASK = f"""
import contextlib, importlib, io, json, sys
answers = []
for script, target, arguments in json.load(sys.stdin):
    module, _, function = target.partition(":")
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = getattr(importlib.import_module(module), function)(arguments)
        except SystemExit as end:
            status = end.code
    heavy = [name for name in {HEAVY} if name in sys.modules]
    answers.append((status, heavy, out.getvalue()))
print(json.dumps(answers))
"""


def ask(*commands: tuple[str, list[str]], folder: Path) -> list[tuple[int, list[str], str]]:
    """Status, heavy modules loaded so far, and text of commands that are run one after the other in one process."""
    given = json.dumps([(script, SCRIPTS[script], arguments) for script, arguments in commands])
    done = subprocess.run([sys.executable, "-c", ASK], input=given, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads(done.stdout)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_version_and_wrong_options_import_nothing_heavy(script, tmp_path):
    expected = {"--help": 0, "--version": 0, "--no-such-option": 2}
    answers = ask(*((script, [option]) for option in expected), folder=tmp_path)
    for (option, expected_status), (status, heavy, text) in zip(expected.items(), answers, strict=True):
        assert (status, heavy) == (expected_status, []), option
        assert script in text


def test_cheap_checks_come_before_torch(tmp_path):
    model = tmp_path / "model"
    (model / "fold_0").mkdir(parents=True)
    (model / "fold_0" / "checkpoint_final.pth").touch()
    (model / "plans.json").write_text("{}")
    (model / "dataset.json").write_text('{"file_ending": ".png", "channel_names": {"0": "EM"}, "labels": {"a": 1}}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.yaml").write_text("folder: model")
    commands = {
        "no images in empty: it is empty": ("retina_predict", "-i empty -o out -m model"),
        "no input folder absent": ("retina_predict", "-i absent -o out -m model"),
        "no model folder absent": ("retina_predict", "-i empty -o out -m absent"),
        "has no checkpoint_best.pth in any fold": (
            "retina_predict",
            "-i empty -o out -m model -chk checkpoint_best.pth",
        ),
        "Give either -m MODEL_FOLDER": ("retina_predict", "-i empty -o out"),
        "expected a number of at least 0": ("retina_predict", "-i empty -o o -m model --instances --instance-size -1"),
        "either -m MODEL_FOLDER": ("retina_report", ""),
        "no Zarr volume absent.zarr: no such folder": ("retina_volume", "predict absent.zarr out.zarr -m model"),
        "--part 3/2: expected i/n": ("retina_volume", "predict absent.zarr out.zarr -m model --part 3/2"),
        "absent is no output of retina_volume": ("retina_volume", "status absent"),
        "no model folder nowhere": ("retina_report", "-m nowhere"),
        "--predictions was given without --labels": ("retina_report", "-m model --predictions empty"),
        "no package at absent.zip": ("retina_share", "import absent.zip"),
        "model has no best.pth in any fold": (
            "retina_share",
            "hub out -m model --licence MIT --author A -chk best.pth",
        ),
        "has no option 'folder'; did you mean": ("retina_predict", "-i empty -o out --config other.yaml"),
        "Did you mean imagenet21k?": ("retina_import_weights", "imagenet21"),
        "no weights file at absent.pth": ("retina_import_weights", "absent.pth out.pth"),
        "absent.yaml": ("retina_benchmark", "absent.yaml -o out"),
        "no folder of images and masks absent": ("retina_quickstart", "--data absent"),
        "iterations is 0; expected at least 1": ("retina_quickstart", "--iterations 0"),
        "is not a folder; expected the folder of prediction files": (
            "retina_evaluate",
            "-p absent -g labels -d model/dataset.json -o out",
        ),
    }
    given = [(script, arguments.split()) for script, arguments in commands.values()]
    for expected, (status, heavy, text) in zip(commands, ask(*given, folder=tmp_path), strict=True):
        assert status == 2 and expected in text
        assert not {"torch", "nnunetv2", "matplotlib"} & set(heavy), expected


def test_predictions_are_refused_before_a_model_is_loaded(tmp_path):
    """By the data set, in nnU-Net's results folder, as by the model's folder."""
    (status, heavy, text), *_ = ask(("retina_predict", ["-i", "absent", "-o", "out", "-d", "801"]), folder=tmp_path)
    assert status == 2 and "torch" not in heavy and "$nnUNet_results is not set" in text


def test_completion(tmp_path):
    """As docs/api.md has it: shtab takes the function that returns the parser."""
    pytest.importorskip("shtab")
    command = [sys.executable, "-m", "shtab", "--shell", "bash", "nnunetv2_retina.commands.predict.parser"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "--orthoplane" in done.stdout and re.search(r"^complete .* retina_predict$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("script", [script for script, target in SCRIPTS.items() if "commands" in target])
def test_every_command_has_a_parser(script):
    parser = import_module(SCRIPTS[script].removesuffix(":main")).parser()
    assert parser.prog == script
    assert all(action.help for action in parser._actions), "every option has a line of help"
