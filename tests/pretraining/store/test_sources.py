"""What is listed, in which order, in which group; archives like folders; sources that are none."""

import io
import os
import socket
import tarfile
import zipfile

import pytest
from helpers.checks import TarMode, known

from nnunetv2_retina.errors import RetinaError
from pretraining.store import archives
from pretraining.store.archives import open_source
from pretraining.store.decoding import RejectionError
from pretraining.store.sources import Census, printable

LISTED = ["b.tif", "c-LOC-0_1.tif", "a/y.tif", "a/z/2.png", "k/1.TIF"]
GROUPS = ["images", "c", "a", "a", "k"]
TAR_MODES: dict[str, TarMode] = {".tar": "w:", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
PASSED_OVER = [".hidden.tif", "__MACOSX/x.tif", ".git/y.tif", "a/Thumbs.db", "old.retina_store/images.bin"]


@pytest.fixture
def tree(tmp_path):
    for name in (*LISTED, *PASSED_OVER):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "images"


def archive(tree, kind, below=""):
    """An archive of all files, in the order in which a walk gives them."""
    path = tree.parent / f"images{kind}"
    files = [*LISTED, *PASSED_OVER]
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in reversed(files):
                file.write(tree / name, below + name)
    else:
        with tarfile.open(path, TAR_MODES[kind]) as packed:
            for name in files:
                packed.add(tree / name, f"./{below}{name}")
    return path


def test_order_and_groups(tree):
    files = list(open_source(tree))
    assert [file.name for file in files] == LISTED
    assert [file.group for file in files] == GROUPS
    assert [file.size for file in files] == [len(name) for name in LISTED]
    assert open_source(tree).count() == len(LISTED)


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("below", ["", "images/"])
def test_archives_are_read_in_place(tree, kind, below):
    source = open_source(archive(tree, kind, below))
    files = [(file.name, file.group, file.size, known(file.read)()) for file in source]
    assert files == [
        (below + name, group, len(name), name.encode()) for name, group in zip(LISTED, GROUPS, strict=True)
    ]
    assert source.count() == (len(LISTED) if kind == ".zip" else None)


def test_a_tar_keeps_no_members(tree):
    path = tree.parent / "images.tar"
    with tarfile.open(path, "w") as packed:
        for number in range(50):
            info = tarfile.TarInfo(f"{number:02d}.tif")
            info.size = 1
            packed.addfile(info, io.BytesIO(b"x"))
    for file in open_source(path):
        assert len(getattr(file.read, "archive").members) <= 1  # noqa: B009


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "linked").symlink_to(tree / "k")
    (tree / "a" / "up").symlink_to(tree)
    (tree / "broken.tif").symlink_to(tree / "gone.tif")
    names = [file.name for file in open_source(tree)]
    assert names == ["b.tif", "broken.tif", *LISTED[1:], "linked/1.TIF"]


def test_sockets_and_pipes_are_passed_over(tree):
    os.mkfifo(tree / "pipe.tif")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "s.tif"))
        assert [file.name for file in open_source(tree)] == LISTED


def test_names_that_are_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff\nb.tif")).touch()
    (file,) = open_source(tmp_path)
    assert file.name == "a\\udcff\\nb.tif"
    assert file.ending == ".tif"
    assert printable("ü/β.tif") == "ü/β.tif"


def test_census_tells_what_differs(tree):
    old = open_source(tree).census()
    assert not old.differences(open_source(tree).census())
    (tree / "b.tif").rename(tree / "bb.tif")
    assert old.differences(open_source(tree).census()) == "other file names"
    os.utime(tree / "bb.tif", ns=(0, 2**62))
    (tree / "new.tif").write_bytes(b"123")
    different = Census(6, old.bytes + 3, 2**62).differences(old)
    assert f"5 instead of 6 files, {old.bytes} instead of {old.bytes + 3} bytes in all, {old.newest} inst" in different


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_archives_cut_short(tree, kind, share):
    path = archive(tree, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data)) // 512 * 512 if kind == ".tar" else int(share * len(data))])
    with pytest.raises(RetinaError, match=r"cannot be read as an archive .*incomplete, damaged.*Copy or download"):
        for file in open_source(path):
            known(file.read)()


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".zip"])
def test_archives_damaged_in_the_middle(tree, kind):
    content = os.urandom(300_000)
    (tree / "b.tif").write_bytes(content)
    path = archive(tree, kind)
    data = bytearray(path.read_bytes())
    if kind == ".zip":
        data[data.index(content) + 1000] ^= 1
        expected: tuple[type[Exception], str] = (RejectionError, "unreadable: Bad CRC-32 for file 'b.tif'")
    else:
        del data[150_000:]
        expected = (RetinaError, "cannot be read as an archive")
    path.write_bytes(data)
    with pytest.raises(expected[0], match=expected[1]):
        for file in open_source(path):
            known(file.read)()


def test_encrypted_zip(tree):
    path = archive(tree, ".zip")
    entry = b"PK\x01\x02\x14\x03\x14\x00"  # of the directory; flags follow
    assert path.read_bytes().count(entry) == len(LISTED + PASSED_OVER)
    path.write_bytes(path.read_bytes().replace(entry + b"\0", entry + b"\1"))
    with pytest.raises(RetinaError, match="is encrypted; expected a zip without"):
        list(open_source(path))


def test_no_source(tmp_path):
    with pytest.raises(RetinaError, match=r"no images at .*gone: no such folder or file"):
        open_source(tmp_path / "gone")
    (tmp_path / "one.tif").touch()
    with pytest.raises(RetinaError, match="a single file; expected a folder of images or an archive"):
        open_source(tmp_path / "one.tif")


def test_folder_that_cannot_be_listed(tree, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("z"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RetinaError, match=r"a/z cannot be listed \(Permission denied\)"):
        list(open_source(tree))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_far_larger_than_what_is_packed_is_not_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "most_bytes", lambda packed: 100 * packed)
    path, content = tmp_path / f"bomb.{kind}", bytes(1 << 20)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.tif", content)
    else:
        with tarfile.open(path, "w:gz") as file:
            member = tarfile.TarInfo("a.tif")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    for unpacked in open_source(path):
        with pytest.raises(
            RejectionError, match=r"too large: 1.0 MB unpacked from 1\.\d kB; expected at most 1\d\d\.\d kB"
        ):
            known(unpacked.read)()
