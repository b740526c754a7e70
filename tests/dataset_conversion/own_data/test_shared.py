"""Conversion by an engine's workers: the same data set, whoever is done first."""

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import thread_workers
from helpers.checks import noting
from helpers.raw_datasets import coordinates

from dataset_conversion.own_data.folder import convert_folder
from dataset_conversion.own_data.new_images import convert_images
from nnunetv2_retina.console.engines import Serial, Workers
from nnunetv2_retina.errors import RetinaError


class Backwards:
    """An engine of another process: whatever it is given is sent, and the last is done first."""

    workers = 2

    def run(self, task: Callable[[Any], Any], todo: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        yield from ((item, pickle.loads(pickle.dumps(task))(pickle.loads(pickle.dumps(item)))) for item in todo[::-1])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for part, names in (("train", "abcd"), ("test", "ef")):
        for kind in ("images", "masks"):
            (tmp_path / "source" / part / kind).mkdir(parents=True)
        for number, name in enumerate(names):
            image = coordinates((2, 9 + number, 7), np.uint8)
            tifffile.imwrite(tmp_path / "source" / part / "images" / f"{name}.tif", image)
            tifffile.imwrite(tmp_path / "source" / part / "masks" / f"{name}.tif", (image % 3).astype(np.uint8))
    return tmp_path / "source"


def contents(folder: Path) -> dict[str, bytes | dict[str, Any]]:
    """Every file of a data set; of the report all but its date."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = json.loads(files.pop("conversion_report.json"))
    return {**files, "report": {key: value for key, value in report.items() if key != "date"}}


def test_a_data_set_does_not_depend_on_who_is_done_first(source, tmp_path, monkeypatch):
    """Values are as found, so that the masks are surveyed by the workers, too."""
    made = {}
    for name, engine in (("one", Serial()), ("two", Backwards())):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(Workers, "engine", thread_workers.giving(engine))
        notes: list[tuple[str, int | None]] = []
        progress = noting(notes, lambda record, number: (record.name, number), lambda *_: None)
        folder = convert_folder(source, 501, "Mine", root=tmp_path / name, progress=progress)
        assert sorted(notes) == [(letter, 6) for letter in "abcdef"]
        made[name] = contents(folder)
    assert made["one"] == made["two"]


def test_workers_of_dask_convert_and_leave_nothing_of_a_failure(source, tmp_path, monkeypatch):
    thread_workers.use(monkeypatch)
    (tmp_path / "raw").mkdir()
    folder = convert_folder(source, 501, "Mine", root=tmp_path / "raw", workers=Workers(workers=2))
    assert len(list((folder / "imagesTr").iterdir())) == 4
    images = source / "test" / "images"
    convert_images(images, tmp_path / "new", folder, workers=Workers(workers=2))
    for name in "ef":
        assert (tmp_path / "new" / f"{name}_0000.nii.gz").read_bytes() == (
            folder / "imagesTs" / f"{name}_0000.nii.gz"
        ).read_bytes()
    (images / "e.tif").write_bytes((images / "e.tif").read_bytes()[:300])
    with pytest.raises(RetinaError, match=r"e\.tif.*cut off"):
        convert_folder(source, 502, "Other", root=tmp_path / "raw", workers=Workers(workers=2))
    assert [path.name for path in (tmp_path / "raw").iterdir() if path.is_dir()] == [folder.name]
