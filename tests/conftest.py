"""Shared fixtures: a clean environment, and small data sets that nnU-Net itself has planned and preprocessed."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Read by nnU-Net when it is imported, and inherited by the processes it starts.
os.environ["nnUNet_def_n_proc"] = "1"
os.environ["nnUNet_n_proc_DA"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from helpers.environment import FOLDERS, bare_environment, preprocess_images, preprocess_volumes
from helpers.warm import WarmCommands, WarmSubprocess

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # two workers share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests come first, so that two workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def one_thread():
    """Tiny networks are faster without threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No variable of the user's reaches a test, and none inherits the threads that another's command took."""
    from nnunetv2_retina.registration import external_folder

    threads = torch.get_num_threads()
    for name in (*FOLDERS, "RETINA_WEIGHTS", "RETINA_SEED", "RETINA_TENSORBOARD", "RETINA_REGISTER", "nnUNet_compile"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("nnUNet_extTrainer", external_folder())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of_the_user"))
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker that needs it fills, for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = base / f"{name}.done"
        if not done.exists():
            shutil.rmtree(base / name, ignore_errors=True)  # another worker failed: its error shows here again
            (base / name).mkdir()
            make(base / name)
            done.touch()
    return base / name


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """A root with three preprocessed data sets: 901 plain, 902 with an ignore label, 903 with regions and ignore."""
    return made_once(tmp_path_factory, "nnunet", preprocess_images)


@pytest.fixture
def workspace(datasets, tmp_path, monkeypatch):
    """nnU-Net's folders set to the data sets above, with results (and changes of the settings) of this test alone."""
    root = tmp_path / "workspace"
    root.mkdir()
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(datasets / name, root / name)
    (root / "nnUNet_results").mkdir()
    for name in FOLDERS:
        monkeypatch.setenv(name, str(root / name))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # batches from this process: no workers to start
    return root


@pytest.fixture(scope="session")
def volumes(tmp_path_factory) -> Path:
    """A root with data set 904: six volumes of 10 x 40 x 40 voxels, with the plans of a narrow 3D network."""
    return made_once(tmp_path_factory, "volumes", preprocess_volumes)


@pytest.fixture(scope="session")
def warm():
    """Processes that need not import torch and nnU-Net: 6 s of processor time less each."""
    here = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    with WarmCommands(bare_environment(**here)) as commands:
        yield commands


@pytest.fixture
def warm_processes(warm, monkeypatch):
    """The runs of a study and the commands of the quickstart are such processes."""
    from nnunetv2_retina.nnunet import commands
    from nnunetv2_retina.study import runner

    for module in (commands, runner):
        monkeypatch.setattr(module, "subprocess", WarmSubprocess(warm))
