"""The table of addresses and checksums: well-formed, complete, and true of the real files at hand."""

import pytest
from helpers.checks import known
from helpers.environment import SHARED

from dataset_conversion.benchmarks import DATASETS
from dataset_conversion.downloads import catalogue
from dataset_conversion.downloads.catalogue import Collection, Corpus
from dataset_conversion.downloads.checksums import Checksum, compute_file
from dataset_conversion.downloads.status import MISSING, status
from nnunetv2_retina.errors import RetinaError

DATA = SHARED / "data"
FILES = [file for collection in catalogue.COLLECTIONS.values() for file in collection.files]


def test_every_benchmark_has_its_files():
    assert set(catalogue.COLLECTIONS) == {dataset.benchmark for dataset in DATASETS}
    assert [len(collection.files) for collection in catalogue.COLLECTIONS.values()] == [3, 1, 1, 1, 15]


def test_names_and_addresses():
    assert len({file.name for file in FILES}) == len(FILES)
    for file in FILES:
        assert not file.name.startswith("/") and ".." not in file.name
        assert all(url.startswith(("http://", "https://")) and url == url.strip() for url in file.urls)
        assert all(file.name.rsplit("/", 1)[-1] in url for url in file.urls)


def test_only_perez_has_no_checksum():
    assert [file.name for file in FILES if file.checksum is None] == ["chm-supplemental_data.zip"]
    hashes = [file.checksum.digest for file in FILES if file.checksum]
    assert len(set(hashes)) == len(hashes)


def test_urocell_is_pinned():
    """Two commits with the same content; the labels lay one folder higher in the earlier one."""
    file = next(file for file in catalogue.UROCELL.files if file.name == "mito/binary/fib1-0-0-0.nii.gz")
    repository = "https://github.com/MancaZerovnikMekuc/UroCell/raw"
    assert file.urls == (
        f"{repository}/4bab22add57dd00dacb7ecffae2205e6d1422299/mito/binary/fib1-0-0-0.nii.gz",
        f"{repository}/0452374571727fd443a454cb9e0ad9da25ebb0bf/mito/fib1-0-0-0.nii.gz",
    )
    assert {known(file.checksum).algorithm for file in catalogue.UROCELL.files if file.name.startswith("data/")} == {
        "git_blob"
    }


@pytest.mark.skipif(not (DATA / "urocell_labels").is_dir(), reason="needs the real labels")
def test_checksums_of_the_real_urocell_labels():
    labels = DATA / "urocell_labels"
    paths = {path.relative_to(labels).as_posix(): path for path in labels.rglob("*.nii.gz")}
    checked = 0
    for file in catalogue.UROCELL.files:
        path = next((path for name, path in paths.items() if fitting(name, file.name)), None)
        if path is not None:
            assert compute_file(path, known(file.checksum).algorithm) == file.checksum, file.name
            checked += 1
    assert checked == 10


def fitting(name, wanted):
    """Whether a file's name holds the volume and the structure of another."""
    structure, *_, volume = wanted.split("/")
    return structure in name and volume.split(".")[0] in name


@pytest.mark.skipif(not (DATA / "guay").is_dir(), reason="needs the real labels")
def test_checksums_of_the_real_guay_labels():
    contents = catalogue.GUAY.files[0].contents
    checked = 0
    for path in (DATA / "guay").rglob("*-labels.tif"):
        assert compute_file(path, "md5") == contents[path.name]
        checked += 1
    assert checked == 3


def test_corpora():
    assert catalogue.CORPORA["cem500k"].page == "https://www.ebi.ac.uk/empiar/EMPIAR-10592/"
    assert catalogue.CORPORA["cem1.5m"].entry == 11035


def test_status_of_everything(tmp_path):
    entries: list[Collection | Corpus] = [*catalogue.COLLECTIONS.values(), *catalogue.CORPORA.values()]
    for entry in entries:
        assert all((entry.title, entry.page, entry.licence, entry.size))
    for key in catalogue.COLLECTIONS:
        assert {file.state for file in status(key, tmp_path)} == {MISSING}


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("crc", "00"), ("md5", "0" * 31), ("md5", "G" * 32), ("md5", "A" * 32)]
)
def test_checksums_are_checked(algorithm, digest):
    with pytest.raises(RetinaError, match=r"expected sha256, md5, git_blob, in lower-case hexadecimal"):
        Checksum(algorithm, digest)
