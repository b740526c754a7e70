"""Finding files as downloaded: unpacked at any depth or in archives, in the right order; and what is missing."""

import zipfile

import pytest

from dataset_conversion.readers.archives import find, find_all, natural_key
from nnunetv2_retina.errors import RetinaError
from pretraining.store.archives import open_source


def put(folder, *names, content=b"data"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def pack(path, *names, content=b"packed", method=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def test_at_any_depth(tmp_path):
    put(
        tmp_path,
        "a.tif",
        "deep/er/b.tif",
        "UroCell-master/mito/binary/c.nii.gz",
        "UroCell-master/mito/instance/c.nii.gz",
    )
    found = find(tmp_path, ["a.tif", "b.tif", "mito/binary/c.nii.gz"])
    assert [file.path.relative_to(tmp_path).as_posix() for file in found.values()] == [
        "a.tif",
        "deep/er/b.tif",
        "UroCell-master/mito/binary/c.nii.gz",
    ]
    assert found["a.tif"].read() == b"data"
    assert (found["a.tif"].size, found["a.tif"].name, str(found["a.tif"])) == (4, "a.tif", str(tmp_path / "a.tif"))
    with found["a.tif"].on_disk() as path:
        assert path == tmp_path / "a.tif"


def test_in_archives(tmp_path):
    pack(tmp_path / "sub" / "all.zip", "top/x/a.tif", "top/b.tif")
    for source in (tmp_path, tmp_path / "sub" / "all.zip"):
        found = find(source, ["a.tif", "x/a.tif", "b.tif"])
        file = found["a.tif"]
        assert (file.member, file.read(), file.size, file.name) == ("top/x/a.tif", b"packed", 6, "a.tif")
        assert str(file) == f"{tmp_path / 'sub' / 'all.zip'}: top/x/a.tif"
        with file.open() as stream:
            assert stream.read(3) == b"pac"
        with file.on_disk() as path:
            assert (path.name, path.read_bytes()) == ("a.tif", b"packed")
        assert not path.exists()


def test_archive_without_its_ending(tmp_path):
    path = pack(tmp_path / "all.zip", "a.tif")
    path.rename(tmp_path / "download")
    assert find(tmp_path / "download", ["a.tif"])["a.tif"].read() == b"packed"


def test_plain_before_packed_and_the_nearest_first(tmp_path):
    pack(tmp_path / "all.zip", "a.tif", "b.tif", "in/c.tif", "c.tif")
    put(tmp_path, "deep/er/a.tif", "deep/a.tif")
    found = find(tmp_path, ["a.tif", "b.tif", "c.tif"])
    assert found["a.tif"].path == tmp_path / "deep" / "a.tif"
    assert [found[name].member for name in ("b.tif", "c.tif")] == ["b.tif", "c.tif"]


def test_alternatives(tmp_path):
    put(tmp_path, "lyso/a.gz", "mito/a.gz", "mito/binary/a.gz")
    found = find(tmp_path, {"lyso": ("lyso/binary/a.gz", "lyso/a.gz"), "mito": ("mito/binary/a.gz", "mito/a.gz")})
    assert [file.path.parent.name for file in found.values()] == ["lyso", "binary"]


def test_whole_components_only(tmp_path):
    put(tmp_path, "xa.tif", "not-mito/binary/b.tif")
    assert find(tmp_path, ["a.tif", "mito/binary/b.tif"], lenient=True) == {}


def test_hidden_files_and_other_systems(tmp_path):
    """Resource forks of macOS archives are no images; archives made on Windows may have backslashes."""
    pack(tmp_path / "all.zip", "__MACOSX/In/._1.png", "In/._1.png", "In\\1.png", "In/.DS_Store")
    put(tmp_path, ".trash/In/1.png", "__MACOSX/In/1.png")
    files = find_all(tmp_path, ["In/*"])["In/*"]
    assert [file.name for file in files] == ["1.png"]
    assert files[0].read() == b"packed"


def test_links_are_followed_once(tmp_path):
    put(tmp_path, "real/a.tif")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "source")
    assert find(tmp_path / "source", ["a.tif"])["a.tif"].read() == b"data"


def test_folders_in_natural_order(tmp_path):
    put(tmp_path, *(f"top/In/z{i}.png" for i in (10, 9, 100)), "top/In/notes.txt", "top/In/deeper/z1.png")
    pack(tmp_path / "all.zip", "In/z1.png")
    pack(tmp_path / "other.zip", "Out/z2.png", "Out/z1.png")
    found = find_all(tmp_path, ["In/*.png", "Out/*.png"])
    assert [file.name for file in found["In/*.png"]] == ["z9.png", "z10.png", "z100.png"]
    assert [file.name for file in found["Out/*.png"]] == ["z1.png", "z2.png"]
    assert sorted(["b2", "a10", "a9", "a"], key=natural_key) == ["a", "a9", "a10", "b2"]


def test_alternative_folders(tmp_path):
    put(tmp_path, "Lucchi++/In/1.png", "deep/Kasthuri++/In/2.png", "Out/3.png")
    wanted = {name: (f"Kasthuri++/{name}/*.png", f"{name}/*.png") for name in ("In", "Out")}
    assert [files[0].name for files in find_all(tmp_path, wanted).values()] == ["2.png", "3.png"]


def test_one_file_twice(tmp_path):
    put(tmp_path, "one/a.tif", "two/a.tif", "one/In/1.png", "two/In/1.png")
    with pytest.raises(
        RetinaError, match=r"the same file twice: \S+one/a.tif and \S+two/a.tif; expected one. Move one"
    ):
        find(tmp_path, ["a.tif"])
    assert find(tmp_path, ["a.tif"], lenient=True)["a.tif"].path == tmp_path / "one" / "a.tif"
    with pytest.raises(RetinaError, match=r"the same file twice: \S+one/In/1.png and \S+two/In/1.png"):
        find_all(tmp_path, ["In/*.png"])


# ------------------------------------------------------------------------------------------------------------- errors


def test_all_missing_names_at_once(tmp_path):
    put(tmp_path, "sample_B.hdf", "sample_a.hdf", "notes.txt")
    message = r"missing sample_A.hdf, sample_C.hdf; found sample_\w.hdf, sample_\w.hdf, notes.txt. Give the folder"
    with pytest.raises(RetinaError, match=message):
        find(tmp_path, ["sample_A.hdf", "sample_B.hdf", "sample_C.hdf"])
    with pytest.raises(RetinaError, match=r"missing In/\*.png; found .*or fetch them with --download"):
        find_all(tmp_path, ["In/*.png"])
    assert list(find(tmp_path, ["sample_A.hdf", "sample_B.hdf"], lenient=True)) == ["sample_B.hdf"]


def test_nothing_there(tmp_path):
    with pytest.raises(RetinaError, match=r"missing a.tif; the folder is empty"):
        find(tmp_path, ["a.tif"])
    with pytest.raises(RetinaError, match=r"missing a.tif; the archive is empty"):
        find(pack(tmp_path / "all.zip"), ["a.tif"])


def test_other_archives(tmp_path):
    put(tmp_path, "all.tar.gz", "labels.nii.gz")
    with pytest.raises(RetinaError, match=r"Unpack all.tar.gz first: of archives only .zip is read"):
        find(tmp_path, ["a.tif"])
    with pytest.raises(
        RetinaError, match=r"all.tar.gz is a file, and no zip archive. Expected a folder .* Unpack it first"
    ):
        find(tmp_path / "all.tar.gz", ["a.tif"])


def test_no_source(tmp_path):
    with pytest.raises(
        RetinaError, match=r"nowhere: no such file or folder. Expected a folder with the files as downl"
    ):
        find(tmp_path / "nowhere", ["a.tif"])


def test_cut_archive(tmp_path):
    path = pack(tmp_path / "all.zip", "a.tif", "b.tif")
    path.write_bytes(path.read_bytes()[:-10])
    message = (
        r"all.zip cannot be read as a zip archive \(.*\); expected a complete archive. .* delete it and download it a"
    )
    with pytest.raises(RetinaError, match=message + ".*Missing without it: a.tif"):
        find(tmp_path, ["a.tif"])
    with pytest.raises(RetinaError, match=message):
        find(path, ["a.tif"])
    put(tmp_path, "a.tif")
    assert find(tmp_path, ["a.tif"])["a.tif"].read() == b"data"  # not needed, so not complained of


@pytest.mark.parametrize("way", ["read", "on_disk"])
def test_damaged_member(tmp_path, way):
    path = pack(tmp_path / "all.zip", "a.tif", content=b"x" * 50, method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"x" * 50, b"x" * 49 + b"y"))
    file = find(tmp_path, ["a.tif"])["a.tif"]
    with pytest.raises(RetinaError, match=r"all.zip: a.tif cannot be read \(Bad CRC-32.*download it again"):
        if way == "read":
            file.read()
        else:
            with file.on_disk():
                pass


def test_damaged_compression(tmp_path):
    path = pack(tmp_path / "all.zip", "a.tif", content=bytes(range(256)) * 9)
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\xff" * 30 + content[70:])
    with pytest.raises(RetinaError, match=r"all.zip: a.tif cannot be read \(.*download it again"):
        find(tmp_path, ["a.tif"])["a.tif"].read()


def test_method_that_is_not_known(tmp_path):
    path = pack(tmp_path / "all.zip", "a.tif", method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\1\2") + 10] = 9  # deflate64
    path.write_bytes(content)
    with pytest.raises(RetinaError, match=r"all.zip: a.tif cannot be read \(.*\). Unpack it with another program and"):
        find(tmp_path, ["a.tif"])["a.tif"].read()


def test_archive_that_changed_meanwhile(tmp_path):
    file = find(pack(tmp_path / "all.zip", "a.tif"), ["a.tif"])["a.tif"]
    pack(tmp_path / "all.zip", "b.tif")
    for use in (file.read, lambda: file.size):
        with pytest.raises(RetinaError, match=r"all.zip: a.tif cannot be read"):
            use()


def test_file_that_vanished(tmp_path):
    put(tmp_path, "a.tif")
    file = find(tmp_path, ["a.tif"])["a.tif"]
    (tmp_path / "a.tif").unlink()
    with pytest.raises(RetinaError, match=r"a.tif cannot be read: No such file"):
        file.read()


def test_members_that_a_damaged_directory_hides_are_missed(tmp_path):
    pack(tmp_path / "a.zip", "a.tif", "b.tif", "c.tif")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.rindex(b"PK\x05\x06") + 10] = 4
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(RetinaError, match=r"a\.zip cannot be read as a zip archive \(it says that it holds 4 files; 3"):
        find(tmp_path / "a.zip", ["a.tif"])
    with pytest.raises(RetinaError, match="it says that it holds 4 files; 3 are listed"):
        list(open_source(tmp_path / "a.zip"))
