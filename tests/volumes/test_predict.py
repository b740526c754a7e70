"""``retina_volume predict``: the labels of the volume in memory, whatever the blocks, engine and interruptions."""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_folders import REGIONS, make_model
from helpers.ome_volumes import SMALL, cells, files, labels, needs_zarr, write

from nnunetv2_retina.commands import volume as command
from nnunetv2_retina.console.engines import Serial, Workers
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings

pytestmark = needs_zarr
SHAPE = (18, 66, 50)
TIF: dict[str, Any] = {"ending": ".tif", "reader": "Tiff3DIO"}
AS_IN_MEMORY = ("--moments", "nnunet")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A model, a volume with a black border, and its labels in memory."""
    folder = tmp_path_factory.mktemp("volumes")
    model = make_model(folder / "model", **TIF)
    image = cells(SHAPE, border=2)
    write(folder / "in.zarr", image, origin=(1000, 2000, 3000))
    expected = Predictor.from_model_folder(model, device="cpu").predict(image[None].astype(np.float32), (1, 1, 1))
    assert len(np.unique(expected)) > 1
    return folder, model, image, expected


def predict(*arguments: object) -> int:
    return command.main(["predict", *(str(value) for value in arguments)])


def run(setting, output: Path, *more: object) -> int:
    folder, model = setting[:2]
    return predict(folder / "in.zarr", output, "-m", model, *SMALL, *more)


@pytest.mark.parametrize("block", ["8,32,64", "24,32,32"])
def test_labels_are_those_of_the_volume_in_memory(setting, tmp_path, block):
    assert run(setting, tmp_path / "out.zarr", "--block", block, *AS_IN_MEMORY) == 0
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr"), setting[3])


@pytest.mark.parametrize("case", ["orthoplane", "folds and mirroring", "regions", "0.4, uint16, one channel"])
def test_modes_folds_regions_and_versions(tmp_path, case):
    image = cells((10, 36, 40)).astype(np.uint16) * 200
    options: dict[str, Any] = {"folds": (0, 1)} if case == "folds and mirroring" else {}
    if case == "regions":
        options["labels"] = REGIONS
    model = make_model(tmp_path / "model", **TIF, **options)
    if case.startswith("0.4"):
        write(tmp_path / "in.zarr", image[None], "0.4", axes="czyx")
    else:
        write(tmp_path / "in.zarr", image)
    mode = "orthoplane" if case == "orthoplane" else None
    settings = PredictionSettings(mode=mode, mirroring=case == "folds and mirroring")
    expected = Predictor.from_model_folder(model, device="cpu", settings=settings).predict(
        image[None].astype(np.float32), (1, 1, 1)
    )
    arguments = [] if settings.mirroring else ["--disable_tta"]
    if mode:
        arguments.append("--orthoplane")
    arguments += [*AS_IN_MEMORY, "--block", "8,64,32"]
    assert predict(tmp_path / "in.zarr", tmp_path / "out.zarr", "-m", model, *SMALL, *arguments) == 0
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr"), expected)


def test_a_box_is_a_volume_of_its_own(setting, tmp_path):
    _, model, image, _ = setting
    part = image[4:16, 10:60, 5:45]
    expected = Predictor.from_model_folder(model, device="cpu").predict(part[None].astype(np.float32), (1, 1, 1))
    assert run(setting, tmp_path / "out.zarr", "--box", "4:16,10:60,5:45", *AS_IN_MEMORY, "--block", "8,64,32") == 0
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr"), expected)
    about = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    (level,) = about["multiscales"][0]["datasets"]
    assert level["coordinateTransformations"][1] == {"type": "translation", "translation": [1004.0, 2010.0, 3005.0]}
    colours, properties = about["image-label"]["colors"], about["image-label"]["properties"]
    assert [entry["label-value"] for entry in colours] == [entry["label-value"] for entry in properties] == [0, 1, 2, 3]
    assert properties[1] == {"label-value": 1, "class": "one"}


def test_exact_moments_are_the_default(setting, tmp_path, capsys):
    folder, model, image, expected = setting
    assert predict(folder / "in.zarr", tmp_path / "out.zarr", "-m", model, *SMALL) == 0
    assert (labels(tmp_path / "out.zarr") == expected).mean() > 0.999
    inner = image[2:-2, 2:-2, 2:-2].astype(np.float64)
    stored = json.loads((tmp_path / "out.zarr/.retina/moments.json").read_text())
    assert stored["mean"] == pytest.approx(inner.mean(), rel=1e-14) and stored["sd"] == pytest.approx(
        inner.std(), rel=1e-12
    )
    assert stored["box"] == [[2, 16], [2, 64], [2, 48]]
    assert "exact, from" in capsys.readouterr().out


@pytest.fixture
def first(setting, tmp_path: Path, monkeypatch) -> Path:
    """An output whose run ended after some blocks."""
    from nnunetv2_retina.volumes import tasks

    work, calls = tasks.Predicting._work, []

    def stopped(self, block):
        calls.append(block)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return work(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.Predicting, "_work", stopped)
        assert run(setting, tmp_path / "out.zarr", "--block", "8,64,64") == 130
    return tmp_path / "out.zarr"


def test_the_same_command_goes_on(setting, first, capsys):
    (torn,) = list((first / "0/c/0/0").glob("0"))
    torn.write_bytes(torn.read_bytes()[:-5])
    untouched = first / "0/c/1/0/0"
    before = untouched.stat().st_mtime_ns
    assert command.main(["status", str(first)]) == 0
    assert "predicted: 3 of 6 blocks of 8 x 64 x 64" in capsys.readouterr().out
    assert run(setting, first, "--memory", "20GB") == 0
    shown = capsys.readouterr().out
    assert "2 of 6 blocks are done already" in shown
    assert "blocks stay 8 x 64 x 64, shards 8 x 32 x 32, chunks 8, as this output was begun" in shown
    assert untouched.stat().st_mtime_ns == before
    assert (labels(first) == setting[3]).mean() > 0.999
    assert command.main(["status", str(first)]) == 0
    assert "predicted: 6 of 6 blocks" in capsys.readouterr().out
    assert command.main(["instances", str(first)]) == 0, "the keys of all blocks fit"
    assert run(setting, first, "--block", "8,64,64") == 0
    shown = capsys.readouterr().out
    assert "6 of 6 blocks are done already" in shown and "blocks stay" not in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--disable_tta",), "was begun with mirroring true; this run has false"),
        (("-step_size", "0.3"), "was begun with -step_size 0.5; this run has 0.3"),
        (("--box", "0:10,:,:"), "was begun with --box"),
        (AS_IN_MEMORY, "was begun with --moments exact; this run has nnunet"),
    ],
)
def test_other_settings_are_refused(setting, first, capsys, more, message):
    before = files(first)
    assert run(setting, first, *more) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert files(first) == before


def test_parts_make_one_output(setting, tmp_path, capsys):
    assert run(setting, tmp_path / "one.zarr", "--block", "8,64,32") == 0
    for part in ("2/2", "1/2"):
        assert run(setting, tmp_path / "parts.zarr", "--block", "8,64,32", "--part", part) == 0
        assert ("left to the other parts" in capsys.readouterr().out) is (part != "1/2")
    assert files(tmp_path / "parts.zarr") == files(tmp_path / "one.zarr")


def test_parts_that_begin_together_write_the_metadata_one_after_the_other(setting, tmp_path, monkeypatch):
    from nnunetv2_retina.errors import RetinaError
    from nnunetv2_retina.files import locked
    from nnunetv2_retina.volumes import store

    create, alone = store.create, []

    def watched(*arguments, **options):
        with pytest.raises(RetinaError, match="held"), locked(tmp_path / "out.zarr/.retina", "held", ".lock-begin"):
            pass
        alone.append(True)
        create(*arguments, **options)

    monkeypatch.setattr(store, "create", watched)
    assert run(setting, tmp_path / "out.zarr", "--part", "2/2") == 0 and alone


def test_a_second_run_is_refused(setting, first, capsys):
    from nnunetv2_retina.files import locked

    with locked(first / ".retina", "", ".lock"):
        assert run(setting, first) == 2
    assert "another run is writing to" in capsys.readouterr().err


def test_a_failed_block_is_told_and_done_later(setting, tmp_path, capsys, monkeypatch):
    from nnunetv2_retina.volumes import store

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.LevelWriter, "_flushed", full)
        assert run(setting, tmp_path / "out.zarr", *AS_IN_MEMORY, "--block", "8,128,128") == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    command.main(["status", str(tmp_path / "out.zarr")])
    assert "failed: predict of the block at 0-0-0" in capsys.readouterr().out
    assert run(setting, tmp_path / "out.zarr", *AS_IN_MEMORY) == 0
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr"), setting[3])
    command.main(["status", str(tmp_path / "out.zarr")])
    assert "failed:" not in capsys.readouterr().out


def test_dry_run_and_info_write_nothing(setting, tmp_path, capsys):
    assert run(setting, tmp_path / "out.zarr", "--dry-run", "--memory", "2GiB") == 0
    shown = capsys.readouterr().out
    assert "blocks of 8 x" in shown and "memory of a worker:" in shown and "tiles at" in shown
    assert not (tmp_path / "out.zarr").exists()
    assert run(setting, tmp_path / "out.zarr", "--memory", "100MB") == 2
    assert "--memory 100.0 MB a worker is too little: the smallest block" in capsys.readouterr().err
    assert command.main(["info", str(setting[0] / "in.zarr")]) == 0
    assert "18 x 66 x 50" in capsys.readouterr().out


def killed_once(ready, seconds: float, action) -> bool:
    """Fork, let the child act, and kill it with SIGKILL that long after ``ready()``; whether it was still at it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(action())
        finally:
            os._exit(99)
    end = None
    while end is None or time.monotonic() < end:
        gone, status = os.waitpid(child, os.WNOHANG)
        if gone:
            assert status == 0
            return False
        if end is None and ready():
            end = time.monotonic() + seconds
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def test_killed_at_any_moment_and_started_again_ends_equal(setting, tmp_path):
    many = ("--block", "8,32,16", "--shard", "8,32,16")  # so that a fast machine is killed several times, too
    assert run(setting, tmp_path / "one.zarr", *many) == 0
    output, rng = tmp_path / "two.zarr", np.random.default_rng(0)

    def done() -> int:
        return len(list((output / ".retina/done").rglob("*.json")))

    kills, more = 0, True
    while more:
        enough = done() + int(rng.integers(1, 4))
        more = killed_once(
            lambda enough=enough: done() >= enough,
            rng.uniform(0, 0.1),
            lambda: run(setting, output, *many),
        )
        kills += more
    assert kills >= 3, "else the test would show little"
    assert files(output) == files(tmp_path / "one.zarr")


class Elsewhere(Serial):
    """A worker that was started in another folder."""

    def run(self, task, todo):
        for item in todo:
            here = os.getcwd()
            os.chdir("/")
            try:
                done = task(item)
            finally:
                os.chdir(here)
            yield item, done


def test_workers_of_another_folder_find_the_same_files(setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Workers, "engine", lambda *_: nullcontext(Elsewhere()))
    source = os.path.relpath(setting[0] / "in.zarr")
    assert predict(source, "out.zarr", "-m", setting[1], *SMALL, *AS_IN_MEMORY) == 0
    np.testing.assert_array_equal(labels(tmp_path / "out.zarr"), setting[3])
    assert command.main(["instances", "out.zarr"]) == 0
    assert command.main(["rescale", source, "fine.zarr", "--spacing", "0.5,0.5"]) == 0
    assert labels(tmp_path / "fine.zarr").shape == (18, 132, 100)


def test_workers_of_dask_write_the_same(setting, tmp_path, monkeypatch):
    """Two processes, started like any user's; the plain loop goes on with what they leave."""
    pytest.importorskip("distributed")
    assert run(setting, tmp_path / "one.zarr", "--block", "8,64,32") == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    assert run(setting, tmp_path / "two.zarr", "--block", "8,64,32", "--workers", "2") == 0
    assert files(tmp_path / "two.zarr") == files(tmp_path / "one.zarr")
