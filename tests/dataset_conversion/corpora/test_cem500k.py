"""The commands for the pre-training images, and the check of what they brought."""

import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_conversion import convert
from dataset_conversion.corpora import cem500k as module
from dataset_conversion.corpora.cem500k import instructions
from dataset_conversion.corpora.check import check, describe, problems
from dataset_conversion.downloads.catalogue import CEM15M, CEM500K, CORPORA
from nnunetv2_retina.errors import RetinaError

SMALL = replace(CEM500K, images=5)


@pytest.fixture
def download(tmp_path):
    """Four images of 224 x 224 in two folders, and a remainder."""
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(224, 224)] * 4 + [(224, 130)]):
        path = tmp_path / "10592" / f"part {i % 2}" / f"{i}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, rng.integers(0, 256, shape, np.uint8))
    return tmp_path


@pytest.fixture
def arguments(monkeypatch):
    """``retina_convert cem500k``'s own parser."""
    import argparse

    monkeypatch.setitem(CORPORA, "cem500k", SMALL)
    parser = argparse.ArgumentParser()
    module.COMMAND.add_arguments(parser)
    return parser.parse_args


# ----------------------------------------------------------------------------------------------------------- commands


def commands(text):
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if line.startswith("  ")]


def test_commands():
    given = commands(instructions(CEM500K, "my data/cem"))
    assert given[0][0] == "wget"
    assert given[0][-2:] == ["my data/cem", "https://ftp.ebi.ac.uk/empiar/world_availability/10592/"]
    assert given[2] == shlex.split("ascp -QT -k1 -l 200m -P33001 -i KEY emp_ext2@fasp.ebi.ac.uk:/10592 'my data/cem'")
    assert given[4][:4] == ["globus", "transfer", "--recursive", "--sync-level"]
    assert given[4][5].endswith(":/empiar/world_availability/10592/")
    assert given[-2] == ["retina_convert", "cem500k", "--check", "my data/cem"]
    assert given[-1] == ["retina_pretrain", "my data/cem", "-o", "runs/cem500k"]


def test_other_corpus():
    text = instructions(CEM15M, "cem1.5m")
    assert text.count("11035") == 6
    assert "10592" not in text
    assert "retina_convert cem500k --corpus cem1.5m --check cem1.5m" in text


def test_no_secrets_or_local_paths(arguments):
    text = module.COMMAND.run(arguments([]), None)
    assert "25 GB; CC0" in text
    assert "/home" not in text


# -------------------------------------------------------------------------------------------------------------- check


def test_whole_download(download, arguments):
    text = module.COMMAND.run(arguments(["--check", str(download)]), lambda *_: None)
    assert "5 images, " in text
    assert "4 of 224 x 224 pixels, 1 smaller remainders (both sides at least 112), 0 smaller still, 0 larger" in text
    assert "0 unreadable" in text
    assert "complete" in text


def test_counts_everything(download):
    (download / "README.md").write_text("words")
    (download / "index").touch()
    (download / "data.zip").touch()
    (download / "9.tiff.aspx").touch()
    tifffile.imwrite(download / "wide.tif", np.zeros((300, 224), np.uint8))
    tifffile.imwrite(download / "tiny.tif", np.zeros((20, 224), np.uint8))
    Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(download / "colour.png")
    seen: list[Any] = []
    found = check(download, seen.append)
    assert seen == [8]
    assert (found.images, found.shapes[224, 224], found.others) == (8, 5, {".md": 1, "index": 1})
    assert found.size == sum(p.stat().st_size for p in download.rglob("*") if p.suffix in (".tif", ".tiff", ".png"))
    text = describe(found, SMALL, download)
    assert "1 smaller still, 1 larger" in text
    assert "1 not 8-bit grey: " in text and "colour.png (mode RGB)" in text
    assert "not unpacked: " in text and "other files: 1 .md, 1 index" in text
    assert problems(found, SMALL) == [f"1 files are unfinished: {download / '9.tiff.aspx'}"]


def test_unreadable(download, arguments):
    """Empty, cut off, and no image at all."""
    paths = sorted(download.rglob("*.tiff"))
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-2000])
    paths[2].write_text("<html>")
    message = (
        r"3 images cannot be read: .*0.tiff \(empty\), .*2.tiff \(.*truncated.*4.tiff \(cannot identify .*\nDelete"
    )
    with pytest.raises(RetinaError, match=message):
        module.COMMAND.run(arguments(["--check", str(download)]), None)


def test_too_few(download, monkeypatch):
    (download / "data.zip").touch()
    found = problems(check(download), CEM500K)
    assert found == [f"5 images; CEM500K has about 500,000; unpack {download / 'data.zip'}"]


def test_no_folder(tmp_path):
    with pytest.raises(RetinaError, match=r"nowhere is not a folder; expected the folder of the downloaded images"):
        check(tmp_path / "nowhere")


def test_command(capsys, monkeypatch, download):
    assert convert.main(["cem500k", "--to", "here"]) == 0
    assert "ascp -QT" in capsys.readouterr().out
    assert convert.main(["cem500k", "--check", str(download)]) == 2
    assert "5 images; CEM500K has about 500,000" in capsys.readouterr().err
