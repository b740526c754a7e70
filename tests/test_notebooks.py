"""The notebooks of the documentation: their cells run in order, at the least size, and hold no outputs."""

import json
import multiprocessing
import re
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest
from helpers.environment import FOLDERS
from nnunetv2.training.logging.nnunet_logger import MetaLogger

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return contents


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, one_thread):
    """An empty working folder, and the notebooks' least size; pictures are drawn and not shown.

    Where nnU-Net starts processes, whose start takes longer than their work, threads do it.
    """
    threads = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: threads)
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.get_allowed_n_proc_DA", lambda: 0)
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINA_NOTEBOOK_SMALL", "1")
    for name in FOLDERS:
        monkeypatch.setenv(name, "set again by the notebook")
    matplotlib.use("agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def results(namespace: dict[str, Any], name: str) -> None:
    if name == "first_steps":
        assert namespace["found"].shape == namespace["truth"].shape
        assert {"class", "volume", "neighbour_distance"} <= set(
            namespace["table"].read_text().splitlines()[0].split(",")
        )
    else:
        assert list(namespace["known"]) == ["random", "open", "own images"]
        assert all(0 <= value <= 1 for measured in namespace["known"].values() for value in measured.values())
        assert namespace["known"]["own images"] != namespace["known"]["random"]


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_the_cells_run(path, elsewhere):
    namespace = {"__name__": "notebook"}
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
    results(namespace, path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_they_hold_no_outputs(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not re.search(r"^[!%]", "\n".join("".join(cell["source"]) for cell in code), re.MULTILINE)
