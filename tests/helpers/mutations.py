"""Files that are cut or changed at random, and what becomes of them when they are read. Behind ``tests/fuzz.py``."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.checks import TarMode
from helpers.format_files import FORMATS, PLANE, write_format
from helpers.image_bytes import pillow
from helpers.untrusted import WRITERS

from dataset_conversion.readers.archives import find
from dataset_conversion.readers.images import SUPPORTED, file_suffix, read_image
from dataset_conversion.readers.slices import read_png
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.picture import ImageError
from nnunetv2_retina.nnunet.inputs import read_channel
from nnunetv2_retina.weights import containers
from pretraining.store.archives import open_source
from pretraining.store.decoding import RejectionError, decode

CHECKED = (".png", ".nii.gz", ".zip", ".pth", ".npz")
"""Endings of formats in which checksums cover the content: a changed byte cannot pass as data."""
ERRORS = (RetinaError, ImageError, RejectionError)


@dataclass(frozen=True)
class Subject:
    """A file and the readers that it goes through."""

    name: str
    content: bytes
    readers: dict[str, Callable[[Path], Any]]

    @property
    def is_checked(self) -> bool:
        return self.name.endswith(CHECKED)

    def read_original(self, folder: Path) -> dict[str, Any]:
        """What each reader makes of the whole file."""
        path = folder / self.name
        path.write_bytes(self.content)
        return {name: read(path) for name, read in self.readers.items()}


@dataclass
class Outcome:
    """What became of one changed file."""

    kind: str
    """equal, refused, data (the same picture but for values: no checksum covers them), other; else a fault."""
    text: str = ""
    mutation: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def is_fault(self) -> bool:
        return self.kind not in ("equal", "refused", "metadata", "data", "other")


def mutate(content: bytes, seed: str) -> tuple[bytes, str]:
    """Return a changed file, and what was changed. Half of the changes fall into the first 400 bytes, the header."""
    draw = random.Random(seed)
    changed, size = bytearray(content), len(content)
    kind = draw.choice(("cut", "cut", "byte", "byte", "byte", "bytes", "number", "zeros", "inserted", "doubled"))
    at = draw.randrange(min(size, 400)) if draw.random() < 0.5 else draw.randrange(size)
    length = draw.choice((1, 2, 4, 8, 64, size // 10 + 1))
    if kind == "cut":
        at = draw.randrange(size)
        del changed[at:]
    elif kind == "byte":
        changed[at] ^= draw.randrange(1, 256)
    elif kind == "bytes":
        for _ in range(draw.randrange(2, 12)):
            changed[draw.randrange(size)] = draw.randrange(256)
    elif kind == "number":
        number = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**16, 10**9, 2**63 - 1, 2**64 - 1, 0x7FC00000))
        width = draw.choice((2, 4, 8))
        order = draw.choice(("little", "big"))
        changed[at : at + width] = (number % 256**width).to_bytes(width, order)
    elif kind == "zeros":
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    elif kind == "inserted":
        changed[at:at] = draw.randbytes(length)
    else:
        changed[at:at] = changed[at : at + length]
    return bytes(changed), f"seed {seed}: {kind} at {at} of {size}"


def judge(subject: Subject, content: bytes, mutation: str, original: dict[str, Any], folder: Path) -> Outcome:
    """Read a changed file with each of its readers; the worst outcome counts."""
    path = folder / subject.name
    path.write_bytes(content)
    outcomes = [_judge(subject, name, path, mutation, original[name]) for name in subject.readers]
    order = ("equal", "refused", "metadata", "data", "other")
    return max(outcomes, key=lambda outcome: order.index(outcome.kind) if outcome.kind in order else 9)


def _judge(subject: Subject, name: str, path: Path, mutation: str, original: Any) -> Outcome:
    try:
        got = subject.readers[name](path)
    except ERRORS as error:
        sentence = str(error)
        plain = sentence and "\n" not in sentence.strip() and len(sentence) < 2000
        return Outcome("refused" if plain else "sentence", f"{name}: {sentence}", mutation)
    except BaseException as error:
        return Outcome("traceback", f"{name}: {type(error).__module__}.{type(error).__name__}: {error}", mutation)
    if _equal(got, original):
        return Outcome("equal", "", mutation)
    kind = "data" if _like(got, original) else "other"
    if isinstance(original, tuple) and _equal(got[0], original[0]):
        kind = "metadata"
    if subject.is_checked or ": cut at" in mutation:
        kind = f"read as {kind}"
    return Outcome(kind, f"{name}: {_words(got)} instead of {_words(original)}", mutation)


def _equal(got: Any, original: Any) -> bool:
    if isinstance(original, np.ndarray):
        return isinstance(got, np.ndarray) and got.shape == original.shape and np.array_equal(got, original)
    if isinstance(original, torch.Tensor):
        return isinstance(got, torch.Tensor) and got.dtype == original.dtype and torch.equal(got, original)
    if isinstance(original, (list, tuple)):
        return isinstance(got, type(original)) and len(got) == len(original) and all(map(_equal, got, original))
    if isinstance(original, dict):
        return (
            isinstance(got, dict)
            and list(got) == list(original)
            and all(_equal(got[key], original[key]) for key in original)
        )
    return bool(got == original)


def _like(got: Any, original: Any) -> bool:
    """Whether shapes and types are the same."""
    if isinstance(original, (np.ndarray, torch.Tensor)):
        return type(got) is type(original) and got.shape == original.shape and got.dtype == original.dtype
    if isinstance(original, (list, tuple)):
        return isinstance(got, type(original)) and len(got) == len(original) and all(map(_like, got, original))
    if isinstance(original, dict):
        return (
            isinstance(got, dict)
            and list(got) == list(original)
            and all(_like(got[key], original[key]) for key in original)
        )
    return type(got) is type(original)


def _words(value: Any) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_words, value[:4])) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_words(item)}" for key, item in list(value.items())[:4]) + "}"
    return repr(value)[:80]


# ---- readers


def _conversion(mask: bool) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        image = read_image(path, mask=mask)
        return image.array, tuple(image.spacing) if image.spacing else None, image.place and image.place.direction

    return read


def _pretraining(path: Path) -> list[np.ndarray]:
    return decode(path.read_bytes())


def _nnunet(path: Path) -> np.ndarray:
    return read_channel(path, {"file_ending": file_suffix(path)})


def _archive(path: Path) -> list[Any]:
    read = []
    for file in open_source(path):
        content = file.read() if file.read else b""
        read.append((file.name, decode(content)))
    return read


def _conversion_archive(path: Path) -> list[np.ndarray]:
    return [read_png(file) for file in find(path, [f"{number}.png" for number in range(3)]).values()]


def _weights(path: Path) -> dict[str, Any]:
    return containers.read(path)._asdict()


_NNUNET = (".png", ".bmp", ".tif", ".nii.gz", ".nii", ".nrrd")
_PRETRAINING = (".png", ".bmp", ".jpg", ".tif")


def _image_subject(name: str, content: bytes, mask: bool = True) -> Subject:
    readers = {"conversion": _conversion(False)}
    if mask and not name.endswith(".jpg"):
        readers["mask"] = _conversion(True)
    if name.endswith(_NNUNET):
        readers["nnU-Net"] = _nnunet
    if name.endswith(_PRETRAINING):
        readers["pre-training"] = _pretraining
    return Subject(name, content, readers)


def _made() -> dict[str, Subject]:
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            path = write_format(name, Path(folder))
            made[name] = _image_subject(name, path.read_bytes())
        weights = {
            "network_weights": {"a.weight": torch.arange(60.0).view(6, 10), "b": torch.ones(3)},
            "retina": {"k": 1},
        }
        for name, kind in (("new.pth", "zip"), ("old.pt", "old format")):
            WRITERS[kind](weights, Path(folder) / name)
            made[name] = Subject(name, (Path(folder) / name).read_bytes(), {"weights": _weights})
        arrays: dict[str, Any] = {"a": PLANE, "b": np.arange(9.0, dtype=np.float32)}
        np.savez(Path(folder) / "w.npz", **arrays)
        made["w.npz"] = Subject("w.npz", (Path(folder) / "w.npz").read_bytes(), {"weights": _weights})
        import safetensors.torch

        content = safetensors.torch.save({name: torch.from_numpy(value) for name, value in arrays.items()})
        made["w.safetensors"] = Subject("w.safetensors", content, {"weights": _weights})
    return made | _archives()


def _archives() -> dict[str, Subject]:
    members = {f"images/{number}.png": pillow(np.roll(PLANE, number), "PNG") for number in range(3)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    subjects = {
        "a.zip": Subject("a.zip", packed.getvalue(), {"pre-training": _archive, "conversion": _conversion_archive})
    }
    modes: dict[str, TarMode] = {".tar": "w:", ".tar.gz": "w:gz", ".tar.xz": "w:xz"}
    for ending, mode in modes.items():
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        subjects[f"a{ending}"] = Subject(f"a{ending}", packed.getvalue(), {"pre-training": _archive})
    return subjects


SUBJECTS: dict[str, Subject] = _made()
"""One small file of each kind."""


def real_subjects(folder: Path, most: int = 30, largest: int = 1_000_000) -> list[Subject]:
    """Up to ``most`` files below a folder that can be read, spread evenly over all of up to ``largest`` bytes."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and file_suffix(path) in SUPPORTED]
    paths = [path for path in paths if path.stat().st_size <= largest]
    subjects = []
    for path in paths[:: -(-len(paths) // most) or 1]:
        with contextlib.suppress(RetinaError):
            read_image(path)
            subjects.append(_image_subject(path.name, path.read_bytes()))
    return subjects
