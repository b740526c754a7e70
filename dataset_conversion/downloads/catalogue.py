"""Where the data sets come from: addresses, checksums, sizes, and what to do when a host is gone.

The addresses are those of the data sets' own sites, as used by CEM500K's benchmark scripts (volume-em/cem-dataset) and
torch-em; checksums are torch-em's (sha256), leapmanlab/examples' (md5, Guay) and git's own (UroCell's images).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dataset_conversion.benchmarks import datasets
from dataset_conversion.downloads.checksums import Checksum
from nnunetv2_retina.errors import RetinaError


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch."""

    name: str
    """Path below SOURCE, with ``/``."""
    urls: tuple[str, ...]
    """Tried in this order."""
    checksum: Checksum | None = None
    """None: not published; the sha256 of the first download is recorded then."""
    size: int | None = None
    """Bytes, where published."""
    contents: Mapping[str, Checksum | None] = field(default_factory=dict)
    """An archive's members (or patterns such as ``Train_In/*.png``): where all are there, it was unpacked by hand."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The files of one benchmark."""

    key: str
    title: str
    page: str
    """For people."""
    licence: str
    files: tuple[RemoteFile, ...]
    size: str = "not published"
    """Of the download, for people."""
    if_unreachable: str
    """What to do when no address answers."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Unlabelled images for pre-training: an entry of EMPIAR, too large and too often moved to be fetched by us."""

    key: str
    title: str
    entry: int
    """EMPIAR's number of it."""
    images: int
    """About; the publications give round numbers for CEM500K."""
    size: str
    reference: str
    licence: str = "CC0, as every entry of EMPIAR"
    image_size: int = 224
    """Height and width of most images, in pixels; remainders at an image's edge are smaller."""
    least_image_size: int = 112
    """The smaller side of the smallest remainders kept (eLife 65894, Methods)."""

    @property
    def page(self) -> str:
        """Return the entry's page, where the archive's own download buttons are."""
        return f"https://www.ebi.ac.uk/empiar/EMPIAR-{self.entry}/"


def _sha256(digest: str) -> Checksum:
    return Checksum("sha256", digest)


def _md5(digest: str) -> Checksum:
    return Checksum("md5", digest)


_CREMI_SITE = "https://cremi.org/static/data"
CREMI = Collection(
    key="cremi",
    title="CREMI synaptic clefts",
    page="https://cremi.org",
    licence=datasets("cremi")[0].licence,
    files=tuple(
        RemoteFile(name, (f"{_CREMI_SITE}/{name}",), _sha256(digest))
        for name, digest in {
            "sample_A_20160501.hdf": "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d",
            "sample_B_20160501.hdf": "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8",
            "sample_C_20160501.hdf": "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052",
        }.items()
    ),
    if_unreachable="The certificate of cremi.org has expired before: a browser offers to go on. Copies that other "
    "projects offer (cremi.zip) were re-aligned and are different data.",
)

GUAY = Collection(
    key="guay",
    title="Guay, human platelets",
    page="https://github.com/leapmanlab/examples",
    licence=datasets("guay")[0].licence,
    files=(
        RemoteFile(
            "platelet_data_1219.zip",
            ("https://www.dropbox.com/s/68yclbraqq1diza/platelet_data_1219.zip?dl=1",),
            _md5("253310093ee2c00304fbabdb0c7e3a4a"),
            contents={
                "train-images.tif": _md5("940ffa25038e9e9ca0ae86bc7e75553c"),
                "train-labels.tif": _md5("dc72be0033f8ce409cac0202928873ba"),
                "eval-images.tif": _md5("0fd6642cd7cf0a1e758d7d48b3ac5b57"),
                "eval-labels.tif": _md5("abec7b896c2b57ebfc6bccac77cdcd2f"),
                "test-images.tif": _md5("d3f296cbedb7c3240e6be0e9e7217f3a"),
                "test-labels.tif": _md5("dd21ca5031d74b6f8be9f954e8fe7eac"),
            },
        ),
    ),
    size="180 MB",
    if_unreachable="The authors' second page is https://bio3d-vision.github.io. Their RGBA bundle "
    "(images_and_labels_rgba.zip) lacks the test volume and will not do.",
)

KASTHURI = Collection(
    key="kasthuri",
    title="Kasthuri++",
    page="https://casser.io/connectomics",
    licence=datasets("kasthuri")[0].licence,
    files=(
        RemoteFile(
            "kasthuri_pp.zip",
            ("http://www.casser.io/files/kasthuri_pp.zip",),
            _sha256("bbb78fd205ec9b57feb8f93ebbdf1666261cbc3e0305e7f11583ab5157a3d792"),
            contents={
                f"Kasthuri++/{folder}/*.png": None for folder in ("Train_In", "Train_Out", "Test_In", "Test_Out")
            },
        ),
    ),
    if_unreachable="The authors' second page is https://sites.google.com/view/connectomics/.",
)

PEREZ_PARTS = ("training_images", "training_labels", "test_images", "ground_truth")
PEREZ_STRUCTURES = ("lysosomes", "mitochondria", "nuclei", "nucleoli")
PEREZ = Collection(
    key="perez",
    title="Perez (four structures)",
    page="https://www.sci.utah.edu/releases/chm_v2.1.367/",
    licence=datasets("perez")[0].licence,
    files=(
        RemoteFile(
            "chm-supplemental_data.zip",
            ("https://www.sci.utah.edu/releases/chm_v2.1.367/chm-supplemental_data.zip",),
            contents={f"{part}/{structure}/*.png": None for part in PEREZ_PARTS for structure in PEREZ_STRUCTURES},
        ),
    ),
    if_unreachable="It is the supplementary data of CHM 2.1.367 (Cascaded Hierarchical Model); the paper, Perez et "
    "al., Front. Neuroanat. 8:126 (2014), names whom to ask.",
)

_UROCELL_REPOSITORY = "https://github.com/MancaZerovnikMekuc/UroCell/raw"
_UROCELL_COMMIT, _UROCELL_EARLIER = (
    "4bab22add57dd00dacb7ecffae2205e6d1422299",
    "0452374571727fd443a454cb9e0ad9da25ebb0bf",
)
# volume: git blob id of the image, sha256 of mito/binary, sha256 of lyso/binary
_UROCELL_HASHES = {
    "fib1-0-0-0": (
        "da1f3a5356f5702b26582251707bd2e48973217c",
        "ad8880384847865c254b853dde6c8bb13fbef6c9b04a950486a2fe28418fffc2",
        "5a375f187f550c05026d9af7391ebbfc9c5ce61352e2bc5c725ed30c51a2303b",
    ),
    "fib1-1-0-3": (
        "9564da587ed61560bca698d1392bc5b6bede6af1",
        "d9bfe96c42a5033c96f24b41e6067cd4efb0a2b2443614c86a8649c86f7b0351",
        "b897addd02816e44fe8b852ba4c569732528cbe24ba497e4273a874f67d61e8c",
    ),
    "fib1-3-2-1": (
        "fd908e8826db038d442b29b77bdd5ddc8e46ef78",
        "87b1fdf0e1c8f684f875317dc73de007977333855cd9465f53f6f798fb2b88c7",
        "4c30c787f5d0253c3527bc0c0c9bd4844ddd6dba01d9133940630da723319b4c",
    ),
    "fib1-3-3-0": (
        "2964cb95271eaa370d3f91cadff31e5ac97d97b5",
        "ad4800dad560789f09295eacd9cc5461d11deefbbe72208fdaff3cd575ba79d6",
        "5a20f4f3b2add96ff0b3514b46dbfa94868eea51ce7c4ce59c59f8dc65976b3e",
    ),
    "fib1-4-3-0": (
        "634937f516666d616dfd4d0683b2b7b59d530ab8",
        "4a6c6b43dbd442af93567b5ed3583199e161e407ebf69fbdc87b85ba2e54099a",
        "d2e86d591a516b97cb8af97faf2e389a97627e8248b8adc90b1655038351fdc7",
    ),
}


def _urocell_files() -> tuple[RemoteFile, ...]:
    """List three files per volume. The earlier commit holds the same content; its labels lie one folder higher."""
    files = []
    for volume, (image, *labels) in _UROCELL_HASHES.items():
        checksums = (Checksum("git_blob", image), *map(_sha256, labels))
        for folder, checksum in zip(("data", "mito/binary", "lyso/binary"), checksums, strict=True):
            earlier = folder.removesuffix("/binary")
            urls = (
                f"{_UROCELL_REPOSITORY}/{_UROCELL_COMMIT}/{folder}/{volume}.nii.gz",
                f"{_UROCELL_REPOSITORY}/{_UROCELL_EARLIER}/{earlier}/{volume}.nii.gz",
            )
            files.append(RemoteFile(f"{folder}/{volume}.nii.gz", urls, checksum))
    return tuple(files)


UROCELL = Collection(
    key="urocell",
    title="UroCell, mouse urothelium",
    page="https://github.com/MancaZerovnikMekuc/UroCell",
    licence=datasets("urocell")[0].licence,
    files=_urocell_files(),
    if_unreachable="The repository's own zip archive (Code > Download ZIP) holds the same files; put it into SOURCE.",
)

CEM500K = Corpus(
    key="cem500k",
    title="CEM500K",
    entry=10592,
    images=500_000,
    size="25 GB",
    reference="Conrad, Narayan, eLife 10:e65894 (2021)",
)
CEM15M = Corpus(
    key="cem1.5m",
    title="CEM1.5M",
    entry=11035,
    images=1_500_000,
    size="size not published",
    reference="Conrad, Narayan, Cell Syst. 14:58 (2023)",
)

COLLECTIONS = {collection.key: collection for collection in (CREMI, GUAY, KASTHURI, PEREZ, UROCELL)}
CORPORA = {corpus.key: corpus for corpus in (CEM500K, CEM15M)}


def collection(key: str) -> Collection:
    """Return the files of one benchmark.

    Raises:
        RetinaError: for an unknown key.
    """
    if key not in COLLECTIONS:
        raise RetinaError(f"no benchmark is called {key!r}; expected one of {', '.join(COLLECTIONS)}")
    return COLLECTIONS[key]
