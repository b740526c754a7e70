"""Packing: stopped anywhere and continued to the same bytes; archives, processes, limits, and everything in the way."""

import csv
import errno
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.checks import known
from helpers.environment import SHARED
from PIL import Image

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import LOCK, locked
from pretraining.store import cache, decode_workers, packing, writer
from pretraining.store.archives import open_source
from pretraining.store.cache import cache_folder, count_images, open_or_pack, open_packed
from pretraining.store.decode_workers import Work, decode_all
from pretraining.store.packing import pack
from pretraining.store.reader import ImageStore

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 224, 224), dtype=np.uint8)
SMOOTH = np.add.outer(np.sin(np.arange(224) / 20) * 60, np.cos(np.arange(224) / 30) * 60).astype(np.int16) + 130
RESULT = ("images.bin", "index.bin", "names.txt", "rejected.csv", "store.json")


def write_tree(folder: Path) -> Path:
    """24 images in three groups, two near duplicates in each, a stack, a large image, and two files of no use."""
    for number, image in enumerate(IMAGES):
        path = folder / "cab"[number % 3] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number > 17:
            image = (SMOOTH + image // 32).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(path, image)
    tifffile.imwrite(folder / "a" / "stack.tif", IMAGES[:3, ::-1], photometric="minisblack")
    Image.fromarray(np.tile(IMAGES[4], (2, 2))[:, ::-1]).save(folder / "b" / "large.png")
    (folder / "b" / "broken.tif").write_bytes(b"II*\0")
    (folder / "b" / "notes.txt").write_text("notes")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("source") / "images")


@pytest.fixture(scope="module", params=[None, 12], ids=["all", "deduplicated"])
def whole(request, source, tmp_path_factory):
    """What an undisturbed packing gives, and its option."""
    return pack(source, tmp_path_factory.mktemp("whole") / "store", deduplicate=request.param), request.param


def assert_same(store: Path, other: Path, files=RESULT) -> None:
    for name in files:
        assert (store / name).read_bytes() == (other / name).read_bytes(), name
    assert sorted(path.name for path in store.iterdir() if path.name != LOCK) == sorted(RESULT)


def rejected(store: Path) -> dict[str, str]:
    with open(store / "rejected.csv", newline="") as file:
        return dict(list(csv.reader(file))[1:])


def plain(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        tifffile.imwrite(folder / f"{number}.tif", IMAGES[number])
    return folder


# ------------------------------------------------------------------------------------------------------------ result


def test_what_is_packed(source, whole):
    store, deduplicate = whole
    assert store.groups == ("a", "b", "c")
    names = list(store.names())
    first = ["a/01.tif", "a/04.tif", "a/07.tif", "a/10.tif", "a/13.tif", "a/16.tif", "a/19.tif"]
    stack = [f"a/stack.tif [page={page}]" for page in range(3)]
    assert names[: 8 + (not deduplicate)] == [*first, *([] if deduplicate else ["a/22.tif"]), stack[0]]
    np.testing.assert_array_equal(store.read(np.array([1])), IMAGES[4:5])
    np.testing.assert_array_equal(store.read(np.array([names.index(stack[2])])), IMAGES[2:3, ::-1])
    assert len(store) == (24 + 3 + 4 if deduplicate is None else 21 + 3 + 1)
    assert sum(store.manifest["rejected"].values()) == 1
    reasons = rejected(store.path)
    assert reasons.pop("b/notes.txt") == "not an image: .txt"
    assert reasons.pop("b/broken.tif").startswith("unreadable: ")
    corner = "b/large.png [y=0, x=0]"
    duplicates = {"a/22.tif": "a/19.tif", "b/23.tif": "b/20.tif", "c/21.tif": "c/18.tif"}
    duplicates |= {f"b/large.png [y={y}, x={x}]": corner for y, x in ((0, 224), (224, 0), (224, 224))}
    expected = {twin: f"near duplicate of {first}" for twin, first in duplicates.items()}
    assert reasons == ({} if deduplicate is None else expected)


def test_processes_change_nothing(source, whole, tmp_path):
    store, deduplicate = whole
    calls = []
    pack(source, tmp_path / "s", deduplicate=deduplicate, workers=2, progress=lambda *numbers: calls.append(numbers))
    assert_same(tmp_path / "s", store.path)
    assert calls == [(number, 28) for number in range(1, 29)]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_give_the_same(source, whole, tmp_path, kind):
    store, deduplicate = whole
    path = tmp_path / f"x.{kind}"
    files = [(known(file.path), file.name) for file in open_source(source)]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(*file)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w:") as packed_files:
            for file in files:
                packed_files.add(*file)
    packed = pack(path, tmp_path / "s", deduplicate=deduplicate)
    assert_same(packed.path, store.path, RESULT[:-1])
    assert packed.fingerprint == store.fingerprint
    assert len(pack(path, tmp_path / "s", deduplicate=deduplicate)) == len(store)
    os.utime(path, ns=(0, 0))
    with pytest.raises(RetinaError, match=r"it has 0 instead of .* as date of the newest file. To use the store as it"):
        pack(path, tmp_path / "s", deduplicate=deduplicate)


def test_crops_of_real_tissue(tmp_path):
    folder = SHARED / "data" / "em_crops"
    if not folder.is_dir():
        pytest.skip("the shared images are not here")
    small = tmp_path / "crops"
    for group in sorted(folder.iterdir())[:5]:
        (small / group.name).mkdir(parents=True)
        for file in sorted(group.iterdir())[:30]:
            shutil.copy(file, small / group.name)
    store = pack(small, tmp_path / "store")
    assert len(store.groups) == 5
    assert len(store) == sum(1 for _ in small.rglob("*.tif*")) > 100
    assert rejected(store.path) == {}
    index = len(store) // 2
    np.testing.assert_array_equal(store.read(np.array([index]))[0], tifffile.imread(small / store.name(index)))


# ------------------------------------------------------------------------------------------------------------ stopping


def in_child(action) -> int:
    """Run in a fork of this process; its wait status."""
    child = os.fork()
    if not child:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_killed_at_every_step_to_the_disk(source, whole, tmp_path, monkeypatch):
    """``kill -9`` before a write, an fsync, a rename or a removal, over and over, a few files further each time."""
    store, deduplicate = whole
    monkeypatch.setattr(writer, "FILES_PER_COMMIT", 3)
    kills = 0
    for survived in (2, 17):
        target = tmp_path / str(survived)
        for _ in itertools.count():
            status = in_child(lambda s=survived, t=target: pack_and_die(source, t, deduplicate, s))
            if not os.WIFSIGNALED(status):
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            kills += 1
            survived += 1  # a step further each time, so that it comes to an end
            if not (target / "store.json").exists():
                with pytest.raises(RetinaError):
                    ImageStore(target)
        assert_same(pack(source, target, deduplicate=deduplicate).path, store.path)
    assert kills > 15


def pack_and_die(source, target, deduplicate, survived):
    steps = itertools.count()

    def deadly(function):
        def wrapped(*args, **kwargs):
            if next(steps) == survived:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (writer.StoreWriter, "_append")):
        setattr(owner, name, deadly(getattr(owner, name)))
    pack(source, target, deduplicate=deduplicate)


def test_killed_with_its_processes(source, tmp_path):
    """The whole program, killed at some moment; nothing is left running."""
    whole = pack(source, tmp_path / "whole", deduplicate=12)
    code = f"""
import time
from pretraining.store import decode_workers, packing, writer as store_writer
store_writer.FILES_PER_COMMIT = decode_workers.FILES_PER_JOB = 2
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.02)
packing.pack({str(source)!r}, {str(tmp_path / "s")!r}, deduplicate=12, workers=2, progress=slowly)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        while int(known(process.stdout).readline()) < 11:
            pass
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = [Path("/proc", child) for child in children.read_text().split()] if children.exists() else []
        process.kill()
    done = json.loads((tmp_path / "s" / "packing.json").read_text())["census"]["files"]
    assert 8 <= done < 28
    assert_same(pack(source, tmp_path / "s", deduplicate=12).path, whole.path)
    until = time.monotonic() + 10
    while any(worker.exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(worker.exists() for worker in workers)


def test_ctrl_c_loses_nothing_that_was_committed(source, whole, tmp_path, monkeypatch):
    store, deduplicate = whole
    monkeypatch.setattr(writer, "FILES_PER_COMMIT", 4)

    def stop(done, _):
        seen.append(done)
        if done == 10:
            raise KeyboardInterrupt

    seen: list[int] = []
    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            pack(source, tmp_path / "s", deduplicate=deduplicate, workers=workers, progress=stop)
        assert json.loads((tmp_path / "s" / "packing.json").read_text())["census"]["files"] == 8
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            pack(source, tmp_path / "s", deduplicate=deduplicate, progress=stop)
        assert seen == [9, 10]
        assert_same(pack(source, tmp_path / "s", deduplicate=deduplicate).path, store.path)
        shutil.rmtree(tmp_path / "s")


def stopped(source, store, monkeypatch, after=8):
    """An unfinished store with ``after`` files done."""
    monkeypatch.setattr(writer, "FILES_PER_COMMIT", 1)

    def stop(done, _):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, store, workers=1, progress=stop)


def test_source_changed_while_stopped(tmp_path, monkeypatch):
    folder, store = plain(tmp_path / "i", 6), tmp_path / "s"
    stopped(folder, store, monkeypatch, 3)
    (folder / "0.tif").rename(folder / "00.tif")
    with pytest.raises(RetinaError, match=r"the first 3 files .* other file names.*delete the folder .*s and give the"):
        pack(folder, store)
    (folder / "00.tif").rename(folder / "0.tif")
    os.utime(folder / "1.tif", ns=(0, 2**62))
    with pytest.raises(RetinaError, match=r"as date of the newest file; the last one was 2.tif and now is 2.tif"):
        pack(folder, store)
    for file in folder.iterdir():
        file.unlink()
    (folder / "0.tif").touch()
    with pytest.raises(RetinaError, match="1 instead of 3 files"):
        pack(folder, store)


def test_other_options_while_stopped(source, tmp_path, monkeypatch):
    stopped(source, tmp_path / "s", monkeypatch)
    with pytest.raises(RetinaError, match="was packed without near-duplicate removal, not with --deduplicate 5"):
        pack(source, tmp_path / "s", deduplicate=5)


def test_unfinished_store_that_was_damaged(source, tmp_path, monkeypatch):
    stopped(source, tmp_path / "s", monkeypatch)
    journal = tmp_path / "s" / "packing.json"
    good = journal.read_text()
    journal.write_text(good.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(RetinaError, match="of format version 9; this installation writes version 1"):
        pack(source, tmp_path / "s")
    journal.write_text(good[:-9])
    with pytest.raises(RetinaError, match=r"packing.json cannot be read as JSON \(.*To pack from the start, delete"):
        pack(source, tmp_path / "s")
    journal.write_text(good)
    (tmp_path / "s" / "images.bin").write_bytes(b"")
    with pytest.raises(RetinaError, match=r"images.bin has 0 bytes; its journal expects"):
        pack(source, tmp_path / "s")


def test_two_at_once(source, tmp_path):
    (tmp_path / "s").mkdir()
    with (
        locked(tmp_path / "s", ""),
        pytest.raises(RetinaError, match=r"another process is packing into .* Wait until it has ended"),
    ):
        pack(source, tmp_path / "s")
    pack(source, tmp_path / "s")


# ------------------------------------------------------------------------------------------------------------ limits


def test_too_many_rejected(tmp_path, monkeypatch):
    folder, store = plain(tmp_path / "i", 8), tmp_path / "s"
    (folder / "x.tif").touch()
    (folder / "y.mrc").touch()
    for name in ("readme.txt", "a.csv", "LICENSE"):
        (folder / name).touch()
    text = (
        r"2 of 10 files in .* cannot be used \(20.0%; allowed are 5.0%\): 1 empty file, 1 not an image. "
        r"They are listed in .*s/rejected.csv.* raise the limit: --max-rejected 21;"
    )
    for _ in range(2):
        with pytest.raises(RetinaError, match=text):
            pack(folder, store)
    assert len(rejected(store)) == 5
    monkeypatch.setattr(packing, "content_of", None)  # nothing is read again
    assert len(pack(folder, store, max_rejected=0.21)) == 8
    shutil.rmtree(store)


def test_nothing_to_pack(tmp_path):
    (tmp_path / "i").mkdir()
    with pytest.raises(RetinaError, match=r"i is empty: expected images \(.tif, .tiff, .png"):
        pack(tmp_path / "i", tmp_path / "s")
    (tmp_path / "i" / "a.txt").touch()
    with pytest.raises(RetinaError, match=r"no images in .*i: none of its files ends in .tif"):
        pack(tmp_path / "i", tmp_path / "s")
    assert not (tmp_path / "s").exists()
    for number in range(3):
        (tmp_path / "i" / f"{number}.png").touch()
    with pytest.raises(RetinaError, match=r"no image of .* can be used: of 3 files 3 empty file\. What is wrong"):
        pack(tmp_path / "i", tmp_path / "s", max_rejected=1)
    plain(tmp_path / "i" / "j", 1)
    assert len(pack(tmp_path / "i", tmp_path / "s", max_rejected=1)) == 1  # it starts again


def test_damaged_file_in_a_zip_is_one_rejected_file(tmp_path):
    folder = plain(tmp_path / "i", 3)
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    data = (tmp_path / "i.zip").read_bytes()
    (tmp_path / "i.zip").write_bytes(data.replace(IMAGES[1].tobytes(), IMAGES[2].tobytes()))
    store = pack(tmp_path / "i.zip", tmp_path / "s", max_rejected=0.5)
    assert rejected(store.path) == {"1.tif": "unreadable: Bad CRC-32 for file '1.tif'"}
    assert store.groups == ("i",)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"deduplicate": 65}, "deduplicate is 65; expected a number of bits from 0 to 64"),
        ({"max_rejected": 5}, "expected 0 to 100 %"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_wrong_options(source, tmp_path, options, text):
    with pytest.raises(RetinaError, match=text):
        pack(source, tmp_path / "s", **options)


def test_packing_needs_no_torch():
    code = "import sys, pretraining.store.cache; assert not {'torch', 'scipy', 'matplotlib', 'PIL'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_image_that_claims_too_much_is_left_out_and_the_others_are_packed(tmp_path):
    folder = plain(tmp_path / "i", 3)
    header = struct.pack("<2s8xIIIIHH24x", b"BM", 54, 40, 200_000, 200_000, 1, 8)
    (folder / "bomb.bmp").write_bytes(header)
    store = pack(folder, tmp_path / "s", max_rejected=0.5)
    assert len(store) == 3
    assert rejected(store.path)["bomb.bmp"].startswith("too large: its header says 200000 x 200000 pixels, 40.0 GB")


# ------------------------------------------------------------------------------------------------------------ disks


def test_store_that_cannot_be_written(source, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "s", Path("/proc/s")):
        with pytest.raises(RetinaError, match=r"cannot write to .* \(.*Change the permissions"):
            pack(source, place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    with pytest.raises(RetinaError, match=r"holds other files \(thesis.doc\) and is no image store"):
        pack(source, tmp_path / "mine")
    with pytest.raises(RetinaError, match="lies in the source"):
        pack(source, source / "store")


@pytest.mark.parametrize("where", ["append", "fsync"])
def test_full_disk(source, whole, tmp_path, monkeypatch, where):
    store, deduplicate = whole
    calls = itertools.count()

    def fill(function):
        def wrapped(*args):
            if next(calls) == 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(writer, "FILES_PER_COMMIT", 2)
        target, name = {"append": (writer.StoreWriter, "_append"), "fsync": (os, "fsync")}[where]
        patch.setattr(target, name, fill(getattr(target, name)))
        text = r"no space is left for .*s \(No space.*bytes are written and [\d,]+ are free, but about [\d,]+ more are"
        with pytest.raises(RetinaError, match=text):
            pack(source, tmp_path / "s", deduplicate=deduplicate)
    assert_same(pack(source, tmp_path / "s", deduplicate=deduplicate).path, store.path)


def test_file_that_vanishes(tmp_path):
    folder = plain(tmp_path / "i", 2)
    (folder / "broken.tif").symlink_to("nowhere")
    (tiles,) = decode_all([Work("b", str(folder / "broken.tif"), 1)], False, 1)
    assert tiles.rejected[0][1] == "unreadable: No such file or directory"
    for workers in (1, 2):
        with pytest.raises(RetinaError, match=r"gone.tif was listed and is gone.*start the same command again"):
            list(decode_all([Work("g", str(folder / "gone.tif"), 1)], False, workers))
    with pytest.raises(RetinaError, match=r"cannot be read \(Is a directory\)"):
        list(decode_all([Work("g", str(folder), 1)], False, 1))


def test_process_that_dies(monkeypatch):
    monkeypatch.setattr(decode_workers, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGKILL) # {path}")
    with pytest.raises(RetinaError, match=r"a decoding process ended with status -9 while it read one of a.tif"):
        list(decode_all([Work("a.tif", b"", 1)], False, 2))


def test_few_files_are_under_way():
    taken = []

    def work():
        for number in range(100):
            taken.append(number)
            yield Work("w", b"", 100 << 20)

    for done, _ in enumerate(decode_all(work(), False, 2)):
        assert len(taken) <= done + 4


# ------------------------------------------------------------------------------------------------------------ cache


def test_store_as_source(whole, tmp_path):
    store, _ = whole
    assert open_or_pack(store.path, None, tmp_path / "f").path == store.path
    opened = open_packed(store.path, None, tmp_path / "f")
    assert opened is not None and opened.path == store.path


def test_cache_beside_the_source(tmp_path, monkeypatch):
    folder, fallback = plain(tmp_path / "i", 3), tmp_path / "f"
    assert open_packed(folder, None, fallback) is None and count_images(folder) == 3
    store = open_or_pack(folder, None, fallback)
    assert store.path == tmp_path / "i.retina_store"
    opened = open_packed(folder, None, fallback)
    assert opened is not None and opened.path == store.path
    monkeypatch.setattr(packing, "_write", None)  # nothing is packed again
    monkeypatch.setattr(cache, "_writable", lambda _: False)
    monkeypatch.chdir(folder)
    assert open_or_pack(Path("."), None, fallback).path == store.path
    tifffile.imwrite(folder / "new.tif", IMAGES[5])
    with pytest.raises(
        RetinaError, match=r"is not what .*i.retina_store was packed from: it has 4 instead of 3 files, "
    ):
        open_or_pack(folder, None, fallback)
    (folder / "new.tif").unlink()
    with pytest.raises(RetinaError, match="was packed without near-duplicate removal, not with --deduplicate 3"):
        open_or_pack(folder, None, fallback, deduplicate=3)


def test_cache_elsewhere(tmp_path, monkeypatch):
    folder, fallback = plain(tmp_path / "i", 3), tmp_path / "f"
    assert open_or_pack(folder, tmp_path / "given", fallback).path == tmp_path / "given"
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_writable", lambda _: False)
        assert open_or_pack(folder, None, fallback).path == fallback
    assert cache_folder(folder, fallback) == fallback


def test_moved_with_its_source(tmp_path):
    store = open_or_pack(plain(tmp_path / "a" / "i", 3), None, tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_or_pack(tmp_path / "b" / "i", None, tmp_path).fingerprint == store.fingerprint
