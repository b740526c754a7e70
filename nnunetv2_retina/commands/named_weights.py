"""Weights by name, for ``retina_import_weights``: listed; fetched, verified and made a checkpoint, once."""

from __future__ import annotations

import sys
from pathlib import Path

from nnunetv2_retina.console.wording import format_rows
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder
from nnunetv2_retina.weights.catalogue import VARIABLE, WEIGHTS, NamedWeights


def table() -> list[str]:
    """Return the lines of the list of all weights with a name."""
    rows = [("name", "here", "licence", "what")]
    rows += [(w.name, "yes" if w.is_here else "no", w.licence, w.about) for w in WEIGHTS.values()]
    where = [f"{entry.name}: {entry.page}" for entry in WEIGHTS.values() if not entry.shipped]
    return [*format_rows(rows), *where]


def published_file(entry: NamedWeights) -> Path:
    """Return the published file: fetched where its address and hash are known, else the one put there by hand.

    Raises:
        RetinaError: if it cannot be had, saying how to fetch it by hand; if its hash is not the published one, or the
            one it had when it was first used.
    """
    make_folder(entry.folder, f"Choose another folder with {VARIABLE}")
    if entry.urls and entry.sha256 and entry.file:
        return _fetched(entry, entry.file)
    return _brought(entry)


def _fetched(entry: NamedWeights, name: str) -> Path:
    from dataset_conversion.downloads.catalogue import Collection, RemoteFile
    from dataset_conversion.downloads.checksums import Checksum
    from dataset_conversion.downloads.fetch import Arrivals, fetch_collection

    assert entry.sha256 is not None
    file = RemoteFile(name, entry.urls, Checksum("sha256", entry.sha256))
    offline = f"Without a network: put {name} into {entry.folder} and run this again."
    collection = Collection(
        key=entry.name, title=entry.about, page=entry.page, licence=entry.licence, files=(file,), if_unreachable=offline
    )
    progress = Arrivals() if sys.stderr.isatty() else None
    fetch_collection(collection, entry.folder, progress)
    return entry.folder / name


def _brought(entry: NamedWeights) -> Path:
    from dataset_conversion.downloads import checksums

    others = (entry.path.name, checksums.RECORD)
    files = sorted(path for path in entry.folder.iterdir() if path.is_file() and path.name not in others)
    named = [path for path in files if path.name == entry.file] or files
    what = entry.file or "the file"
    if len(named) != 1:
        got = f"there are {len(named)} files" if named else "it is empty"
        raise RetinaError(
            f"no address and hash of the weights {entry.name} are known here, so they are not downloaded: get {what} "
            f"from {entry.page}, put it alone into {entry.folder} ({got} now), and run this again"
        )
    (path,) = named
    expected = checksums.recorded(entry.folder, path.name)
    got_now = checksums.compute_file(path, "sha256")
    if expected not in (None, got_now):
        raise RetinaError(
            f"{path}: got {got_now}, expected {expected}, as when it was first used. Fetch it again, or delete "
            f"{entry.folder / checksums.RECORD} if it is a new version"
        )
    if expected is None:
        checksums.record(entry.folder, path.name, got_now, "brought by hand")
    return path
