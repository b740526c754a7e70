"""The README stays short, and every command in it is one that the installation has."""

import json
import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from helpers.commands import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_is_short():
    assert len(README.splitlines()) <= 180


def test_commands_exist():
    typed = set(re.findall(r"\b(?:retina|nnUNetv2)_\w+", README))
    nnunet = {script.name for script in entry_points(group="console_scripts") if "nnunetv2" in script.value}
    assert typed <= SCRIPTS.keys() | nnunet
    assert typed & SCRIPTS.keys() and typed & nnunet


def test_settings_exist():
    from nnunetv2_retina.protocol import Protocol

    (block,) = re.findall(r'"retina": (\{.*?\}\})', README, re.DOTALL)
    Protocol.from_dataset_json({"retina": json.loads(block)})


def test_trainers_exist():
    from nnunetv2_retina.training import baselines, trainers

    named = set(re.findall(r"\bnnUNetTrainer\w+", README))
    assert named <= {*trainers.__all__, *baselines.__all__}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, capsys):
    module, _, function = SCRIPTS[script].partition(":")
    with pytest.raises(SystemExit) as ended:
        getattr(import_module(module), function)(["--help"])
    assert ended.value.code == 0
    assert script in capsys.readouterr().out
