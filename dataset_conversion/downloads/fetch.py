"""Fetch a benchmark's files into SOURCE; each is verified before it gets its name."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from dataset_conversion.downloads import catalogue, checksums
from dataset_conversion.downloads.catalogue import Collection, RemoteFile
from dataset_conversion.downloads.checksums import Checksum
from dataset_conversion.downloads.http_transfer import (
    TransferError,
    discard,
    part_path,
    put_in_place,
    transfer,
)
from dataset_conversion.readers.archives import ZIP, ZIP_ERRORS, SourceFile, find, find_all
from nnunetv2_retina.console.progress import BYTES, ProgressBar
from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder

FileProgress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes so far and the bytes in all (None if the server does not say)."""


def fetch(key: str, folder: str | Path, progress: FileProgress | None = None) -> list[Path]:
    """Fetch what is missing of a benchmark's files.

    Files already present (also unpacked, deeper in the folder or inside an archive) are verified and not fetched again.
    The sha256 of a file without a published checksum is recorded in ``checksums.json``, and compared from then on.

    Args:
        key: ``cremi``, ``guay``, ``kasthuri``, ``perez`` or ``urocell``.
        folder: SOURCE; made if it does not exist.
        progress: called often while bytes arrive.

    Returns:
        The files fetched now.

    Raises:
        RetinaError: for a present file that is not the right one, naming it with the hash got and expected; if no
            address gives a file, or what it gives is wrong; for a full disk. An interrupted file is continued the next
            time.
    """
    return fetch_collection(catalogue.collection(key), Path(folder), progress)


def fetch_collection(collection: Collection, folder: Path, progress: FileProgress | None = None) -> list[Path]:
    """Fetch what is missing of a collection that need not be a benchmark; see ``fetch``."""
    if not folder.is_dir():  # one that is read-only may hold all files already
        make_folder(folder, "Choose another folder.")
    present = find_present(collection.files, folder)
    wrong = [problem for file in collection.files for problem in _problems(file, folder, present[file.name])]
    if wrong:
        raise RetinaError(
            f"{'; '.join(wrong)}. A file was cut off or is another version: delete it (or move it away) and run this "
            "again."
        )
    return [_fetch_file(collection, file, folder, progress) for file in collection.files if not present[file.name]]


def find_present(files: Sequence[RemoteFile], folder: Path) -> dict[str, dict[str, SourceFile]]:
    """Find each file itself, or all members of the archive it is; the entry is empty if any is missing."""
    by_name = find(folder, [file.name for file in files], lenient=True)
    absent = [pattern for file in files if file.name not in by_name for pattern in file.contents]
    members = find_all(folder, absent, lenient=True) if absent else {}
    present: dict[str, dict[str, SourceFile]] = {}
    for file in files:
        if file.name in by_name:
            present[file.name] = {file.name: by_name[file.name]}
        else:
            whole = bool(file.contents) and all(name in members for name in file.contents)
            present[file.name] = {name: members[name][0] for name in file.contents} if whole else {}
    return present


def _problems(file: RemoteFile, folder: Path, present: dict[str, SourceFile]) -> list[str]:
    """Return what is wrong with the files present; record a first sha256 where nothing else is known."""
    problems = []
    for name, source in present.items():
        if name != file.name:
            expected = file.contents[name]
        else:
            expected = file.checksum or checksums.recorded(folder, name)
            if expected is None:
                problems += _record(source, file.name, folder, "found in the folder")
        if expected is not None:
            got = _compute(source, expected.algorithm)
            if got != expected:
                problems.append(f"{source}: got {got}, expected {expected.digest}")
    return problems


def _compute(file: SourceFile, algorithm: str) -> Checksum:
    with file.open() as stream:
        try:
            return checksums.compute(stream, file.size, algorithm)
        except ZIP_ERRORS as error:
            raise RetinaError(f"{file} cannot be read ({error}). Delete it and run this again.") from error


def _record(file: SourceFile, name: str, folder: Path, origin: str) -> list[str]:
    """Remember the sha256 of a file without a published one; return what is wrong with it if it is damaged."""
    if file.member is None and name.endswith(ZIP) and (reason := _zip_damage(file.path)):
        return [f"{file}: {reason}"]
    checksums.record(folder, name, _compute(file, "sha256"), origin)
    return []


def _zip_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except ZIP_ERRORS as error:
        return f"not a complete zip archive ({error})"
    return None if broken is None else f"a damaged zip archive (member {broken})"


def _fetch_file(collection: Collection, file: RemoteFile, folder: Path, progress: FileProgress | None) -> Path:
    """Fetch one file, from the first address that gives the right one."""
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    expected = file.checksum or checksums.recorded(folder, file.name)
    failures: list[tuple[str, str, bool]] = []
    for url in file.urls:
        try:
            problem = _transfer_verified(url, target, file, expected, progress)
        except TransferError as error:
            failures.append((url, str(error), error.certificate))
            continue
        if problem is None:
            if expected is None:
                checksums.record(folder, file.name, checksums.compute_file(part_path(target), "sha256"), url)
            put_in_place(target)
            return target
        discard(target)
        failures.append((url, problem, False))
    raise _unreachable(collection, target, failures, verified=expected is not None, by_record=file.checksum is None)


def _transfer_verified(
    url: str, target: Path, file: RemoteFile, expected: Checksum | None, progress: FileProgress | None
) -> str | None:
    """Transfer a file and return what is wrong with it. One that was pieced together wrongly is fetched again."""
    report = None if progress is None else lambda done, total: progress(file.name, done, total)
    continued = transfer(url, target, report)
    problem = _mismatch(target, file, expected)
    if problem is not None and continued:
        discard(target)
        transfer(url, target, report)
        problem = _mismatch(target, file, expected)
    return problem


def _mismatch(target: Path, file: RemoteFile, expected: Checksum | None) -> str | None:
    part = part_path(target)
    if expected is not None:
        got = checksums.compute_file(part, expected.algorithm)
        size = format_bytes(part.stat().st_size)
        return None if got == expected else f"wrong content of {size}: got {got}, expected {expected.digest}"
    return _zip_damage(part) if file.name.endswith(ZIP) else None


def _unreachable(
    collection: Collection, target: Path, failures: list[tuple[str, str, bool]], verified: bool, by_record: bool
) -> RetinaError:
    """Return the error for a file that no address gave, with what can be done by hand."""
    reasons = "; ".join(f"{url}: {reason}" for url, reason, _ in failures)
    url = failures[0][0]
    hint = ""
    if any(certificate for _, _, certificate in failures):
        hint = f" The certificate of {urlsplit(url).hostname} is not skipped silently: open the address in a browser"
        if verified:
            command = shlex.join(["curl", "--insecure", "--location", "--output", str(target), url])
            hint += f", or run: {command} (what arrives is verified)"
        hint += "."
    if verified and by_record:
        hint += f" If the authors released a new version, delete the file's entry in {checksums.RECORD}."
    return RetinaError(
        f"{target.name} could not be downloaded: {reasons}.{hint} Run this again later (it goes on where it stopped), "
        f"or bring the file by other means and put it at {target}. {collection.if_unreachable} Page: {collection.page}"
    )


class Arrivals:
    """A ``FileProgress`` that shows each file as it arrives, and a line when it is there."""

    def __init__(self, out: TextIO | None = None) -> None:
        """Args: ``out``: where to; None: stderr."""
        self._out = out
        self._bar = ProgressBar("")

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show how much of a file there is."""
        if name != self._bar.what:
            self._bar.close()
            self._bar = ProgressBar(name, total, BYTES, out=self._out)
        self._bar.update(done, total)
        if done == total:
            self._bar.close()
            self._bar.message(f"  {name}  {format_bytes(done)}")
