"""nnU-Net finds the trainers with nothing set, beside what the user has set, and not when switched off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.environment import bare_environment, installed

from nnunetv2_retina import registration
from nnunetv2_retina.training import baselines, trainers

EXTERNAL = registration.external_folder()


def find(name: str):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name(name)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in (trainers, baselines) for name in module.__all__]
)
def test_the_class_found_is_the_one_of_the_module(module, name):
    assert find(name) is getattr(module, name)


def test_the_trainers_import_no_library_of_the_baselines():
    code = (
        "import sys, nnunetv2_retina.training.trainers, nnunetv2_retina.training.baselines\n"
        "print([name for name in ('segmentation_models_pytorch', 'timm', 'torchvision') if name in sys.modules])"
    )
    assert run_python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("before", [None, "", "/some/folder", f"/one{os.pathsep}/two"])
def test_appends_to_what_is_set(monkeypatch, before):
    monkeypatch.delenv(registration.VARIABLE)
    if before is not None:
        monkeypatch.setenv(registration.VARIABLE, before)
    registration.register()
    registration.register()
    assert os.environ[registration.VARIABLE] == (f"{before}{os.pathsep}{EXTERNAL}" if before else EXTERNAL)


@pytest.mark.parametrize("value", ["0", "off", "False"])
def test_can_be_switched_off(monkeypatch, value):
    monkeypatch.delenv(registration.VARIABLE)
    monkeypatch.setenv(registration.SWITCH, value)
    registration.register()
    assert registration.VARIABLE not in os.environ


def test_a_users_own_trainers_keep_working(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerOwn(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv(registration.VARIABLE, str(tmp_path))
    registration.register()
    assert find("nnUNetTrainerOwn").__module__ == "own"
    assert find("nnUNetTrainerRETINA") is trainers.nnUNetTrainerRETINA


def test_folder_holds_nothing_but_the_re_export():
    assert [path.name for path in Path(EXTERNAL).glob("*.py")] == ["retina_trainers.py"]


needs_installation = pytest.mark.skipif(not installed(), reason="the package is not installed here (pip install .)")


@needs_installation
def test_a_fresh_shell_in_any_folder(tmp_path):
    code = (
        "import sys; from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "found = find('nnUNetTrainerRETINA')\n"
        "import nnunetv2_retina.training.trainers\n"
        "assert found is nnunetv2_retina.training.trainers.nnUNetTrainerRETINA\n"
        "import subprocess; subprocess.run([sys.executable, '-c', "
        '\'import os; print("CHILD", os.environ["nnUNet_extTrainer"])\'], check=True)\n'
        "print('ROOT', [n for n in sys.modules if n.split('.')[0] in "
        "('tests', 'benchmarks', 'conftest', 'dataset_conversion', 'pretraining')])\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=bare_environment(), capture_output=True, text=True, check=True
    )
    assert f"CHILD {EXTERNAL}" in shown.stdout
    assert "ROOT []" in shown.stdout


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=bare_environment(**environment), capture_output=True, text=True, check=True
    ).stdout.strip()


@needs_installation
def test_a_fresh_shell_with_it_switched_off():
    code = "import os, sys; print(os.environ.get('nnUNet_extTrainer'), 'torch' in sys.modules)"
    assert run_python(code, RETINA_REGISTER="0") == "None False"
    assert run_python(code, RETINA_REGISTER="1") == f"{EXTERNAL} False"


@needs_installation
def test_the_hook_imports_next_to_nothing():
    code = "import sys; print(sorted(n for n in sys.modules if 'retina' in n or n in ('numpy', 'torch', 'nnunetv2')))"
    assert run_python(code) == "['nnunetv2_retina', 'nnunetv2_retina.registration']"


def test_a_foreign_environment_is_not_broken(tmp_path):
    """The variable is inherited by environments that have nnU-Net but not this package."""
    code = (
        f"import sys; sys.path.insert(0, {EXTERNAL!r}); sys.modules['nnunetv2_retina'] = None\n"
        "import retina_trainers; print('fine')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.strip() == "fine", shown.stderr
