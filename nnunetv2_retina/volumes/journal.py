"""What is done of an output, on disk: one marker a block, so that any run goes on where another was stopped or killed.

``OUT.zarr/.retina/run.json`` holds the settings; ``done/STAGE/BLOCK.json`` says that a block is written, with the
digest of the settings and the sizes of the files. The order is: delete the block's files, write them, flush them to the
disk, then the marker. Files without a marker are never trusted: a torn shard cannot be repaired by writing over it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import locked, make_folder, read_json, replacing
from nnunetv2_retina.volumes.blocks import Block

FOLDER = ".retina"
ADVICE = "Give another output, or remove this one"
_RUN = "run.json"
_WAIT = 0.2


def digest(contents: Mapping[str, Any]) -> str:
    """Return the digest of settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The journal of one output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / FOLDER

    def begin(self, settings: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
        """Write the settings of a new output, or compare them with those of the one that is there.

        Args:
            settings: what the labels depend on.
            plan: what they do not: it stays as it was when the output was begun.

        Returns:
            Settings and plan as they are stored, of which every later run makes its keys.

        Raises:
            RetinaError: if the folder holds something else, was begun with another setting, or cannot be written to.
        """
        path = self.folder / _RUN
        # looked at first: another process that begins the same output writes the journal before anything else
        held = self.output.exists() and (not self.output.is_dir() or {*os.listdir(self.output)} - {FOLDER})
        if held and not path.exists():
            raise RetinaError(f"{self.output} is there and was not begun by this command. {ADVICE}")
        make_folder(self.folder, "Give another output")
        with self.alone("begin"):
            if not path.exists():
                # a group of its own, so that readers of the output do not stumble over the folder
                _write(self.folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
                _write(path, {"settings": settings, "plan": plan})
        stored = self.run()
        for name in {**settings, **stored["settings"]}:  # one that is left out differs, too
            begun, value = stored["settings"].get(name), settings.get(name)
            if begun != value:
                raise RetinaError(
                    f"{self.output} was begun with {name} {_short(begun)}; this run has {_short(value)}. Give another "
                    "output, or the setting that this one has"
                )
        return stored

    def run(self) -> dict[str, Any]:
        """Return settings and plan.

        Raises:
            RetinaError: if there is no such output, or its journal is damaged.
        """
        if not self.folder.is_dir():
            raise RetinaError(f"{self.output} is no output of retina_volume. Give the folder that predict wrote")
        contents = read_json(self.folder / _RUN, ADVICE)
        if not isinstance(contents.get("settings"), dict) or not isinstance(contents.get("plan"), dict):
            raise RetinaError(f"{self.folder / _RUN} lacks settings or plan. {ADVICE}")
        return contents

    def mark(self, stage: str, block: Block, key: str, seconds: float, contents: Mapping[str, Any]) -> None:
        """Say that a block is done, once what it wrote is on the disk."""
        about = {"settings": key, "seconds": round(seconds, 3), "host": socket.gethostname(), "ended": time.time()}
        _write(self._marker(stage, block.name), {**about, **contents})
        with suppress(OSError):
            self._failure(stage, block.name).unlink()

    def marker(self, stage: str, block: Block, key: str) -> dict[str, Any] | None:
        """Return the marker of a block that is done with these settings and whose files are there in their sizes."""
        path = self._marker(stage, block.name)
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(contents, dict) or contents.get("settings") != key:
            return None
        for name, size in contents.get("files", {}).items():
            try:
                if (self.output / name).stat().st_size != size:
                    return None
            except OSError:
                return None
        return contents

    def left(self, stage: str, blocks: Iterable[Block], key: str) -> list[Block]:
        """Return those blocks of a stage that are not done with these settings, in their order."""
        return [block for block in blocks if self.marker(stage, block, key) is None]

    def markers(self, stage: str) -> list[dict[str, Any]]:
        """Return the markers of a stage, in no order, unchecked."""
        contents = []
        for path in (self.folder / "done" / stage).glob("*.json"):
            with suppress(OSError, ValueError):
                contents.append(json.loads(path.read_text(encoding="utf-8")))
        return contents

    def forget(self, stage: str, block: Block) -> None:
        """Remove a marker before what it vouches for is written anew."""
        self._marker(stage, block.name).unlink(missing_ok=True)

    def fail(self, stage: str, block: Block, error: BaseException) -> None:
        """Note why a block failed, for ``status``; a disk that is full cannot even take that."""
        with suppress(OSError):
            text = str(error).strip() or type(error).__name__
            _write(self._failure(stage, block.name), {"stage": stage, "block": block.name, "error": text})

    def failures(self) -> list[dict[str, Any]]:
        """Return what failed and was not done since."""
        contents = []
        for path in sorted((self.folder / "failed").glob("*.json")):
            with suppress(OSError, ValueError):
                contents.append(json.loads(path.read_text(encoding="utf-8")))
        return contents

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a file of the journal; None: it is not there."""
        path = self.folder / name
        return read_json(path, ADVICE) if path.exists() else None

    def write(self, name: str, contents: Mapping[str, Any]) -> None:
        """Write a file of the journal, whole or not at all."""
        _write(self.folder / name, contents)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Wait until no other process does the same, such as a worker that outlived its killed run."""
        while True:
            holding = locked(self.folder, "", f".lock-{name}")
            try:
                holding.__enter__()
            except RetinaError:
                time.sleep(_WAIT)
                continue
            break
        try:
            yield
        finally:
            holding.__exit__(None, None, None)

    def _marker(self, stage: str, name: str) -> Path:
        return self.folder / "done" / stage / f"{name}.json"

    def _failure(self, stage: str, name: str) -> Path:
        return self.folder / "failed" / f"{stage}-{name}.json"


def _write(path: Path, contents: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Path(temporary).write_text(json.dumps(contents) + "\n", encoding="utf-8")
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of files to the disk, where the system lets it."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _short(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
