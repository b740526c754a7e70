"""The only place that calls ``torch.load``: no file runs code, unless the user says that it is to be trusted.

PyTorch's files are pickles, which can name any function and have it called. They are read with ``weights_only=True``:
tensors, builtins and, for nnU-Net's checkpoints, NumPy's numbers. A file that asks for more is refused.

``$RETINA_TRUST=1`` (and ``retina_import_weights --trust``) opens every file without this restriction.
"""

from __future__ import annotations

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import check_zip_members

VARIABLE = "RETINA_TRUST"
_ZIP = b"PK\x03\x04"
_BEFORE_GPUS = 15
"""Among PyTorch's readers by place, the CPU's is 10, those of GPUs from 20."""
_FOLDER = 0x10
"""Attribute of a member of a zip archive."""

_Named = TypeVar("_Named", bound=Callable[..., Any])


def read_file(path: Path, trust: bool = False) -> Any:
    """Read a file with ``torch.load``, onto the CPU.

    Args:
        path: the file.
        trust: let it run code, as ``$RETINA_TRUST=1`` does.

    Raises:
        RetinaError: if it is truncated, damaged or of another kind, or if it could run code and is not trusted.
    """
    trust = trust or os.environ.get(VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")
    try:
        if not trust:
            _check_sums(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([*_SAFE]):
            warnings.simplefilter("ignore")  # of other protocols: the unpickler refuses what it does not know
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:  # on bytes that are no checkpoint the unpicklers raise whatever they stumble over
        if not trust and (wanted := _what_it_wants(str(error), path)):
            raise RetinaError(
                f"{path} is not opened: it asks for {wanted}, which weights do not need and which could run code. If "
                f"you trust whoever made it, set {VARIABLE}=1 (or, to import it: retina_import_weights --trust)"
            ) from error
        raise RetinaError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a PyTorch checkpoint: it is truncated, damaged "
            "or of another kind. Copy or download it again"
        ) from error


def take_absent_gpus_for_the_cpu() -> None:
    """Let ``torch.load`` put on the CPU what a file says lay on a GPU that is not here, instead of refusing the file.

    nnU-Net's loader of ``-pretrained_weights`` names no device, and what was trained on a GPU is fine-tuned elsewhere.
    """
    torch.serialization.register_package(_BEFORE_GPUS, lambda _: None, _on_cpu_if_absent)


def _on_cpu_if_absent(storage: Any, location: str) -> Any:
    kind, _, index = location.partition(":")
    if kind == "cuda":
        there = torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()
    else:
        there = kind != "mps" or torch.backends.mps.is_available()
    return None if there else storage


def _check_sums(path: Path) -> None:
    """Check the checksums of a zip file, which PyTorch's reader passes over: a changed byte would be a changed weight.

    Raises:
        zipfile.BadZipFile: if one does not fit.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(_ZIP):
            return
    with zipfile.ZipFile(path) as archive:
        check_zip_members(archive)
        if folders := [info.filename for info in archive.infolist() if info.is_dir() or info.external_attr & _FOLDER]:
            raise zipfile.BadZipFile(f"{folders[0]} is marked as a folder")  # PyTorch would take whatever is in memory
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} does not fit")


_REFUSALS = (
    (r"GLOBAL (\S+)", r"\1"),
    (r"unrecognized function (.+)", r"a call of \1"),
    (r"allowlisted.* but got (.+)", r"an object of \1"),
    (r"legacy \.tar format", "the unpickler of PyTorch's old tar files"),
    (r"TorchScript archives", "PyTorch's reader of programs (TorchScript)"),
)
"""Texts with which PyTorch refuses a file, and what the file wanted."""


def _what_it_wants(message: str, path: Path) -> str | None:
    """Return what a refused file wanted to load or call; None if it is damaged or no pickle at all."""
    for pattern, wanted in _REFUSALS:
        if match := re.search(pattern, message):
            return match.expand(wanted)
    if match := re.search(r"Unsupported operand (\d+)", message):
        with path.open("rb") as file:
            if file.read(4).startswith((_ZIP, b"\x80\x03", b"\x80\x04", b"\x80\x05")):  # else: no pickle
                return f"pickle instruction {match[1]}"
    return None


# ---- what the unpickler gets where a file names NumPy's constructors: a dtype's own state could hold anything


def _named(made: _Named, name: str) -> _Named:
    """Name a function or class as files do; PyTorch compares these names."""
    module, _, short = name.rpartition(".")
    made.__module__, made.__name__, made.__qualname__ = module, short, short
    return made


class _Dtype:
    """Type of numbers and texts: what files name ``numpy.dtype``."""

    def __init__(self, name: str, *_: object) -> None:
        self.numpy = np.dtype(name)
        if self.numpy.kind not in "biufcSU":
            raise ValueError(f"GLOBAL numpy.dtype({name})")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *_ = state
        self.numpy = self.numpy.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """Array of numbers: what files name ``numpy.ndarray``."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, is_fortran, values = state
        super().__setstate__((version, shape, dtype.numpy, is_fortran, bytes(values)))


def _numpy_functions(module: str) -> list[Callable[..., Any]]:
    def scalar(dtype: _Dtype, value: bytes) -> Any:
        return np.frombuffer(value, dtype.numpy, 1)[0]

    def reconstruct(*_: object) -> _Array:
        return _Array(0)

    return [_named(scalar, f"{module}.scalar"), _named(reconstruct, f"{module}._reconstruct")]


def _no_bytes() -> bytes:
    return b""  # of an empty array


_SAFE: tuple[Callable[..., Any], ...] = (
    _named(_Dtype, "numpy.dtype"),
    _named(_Array, "numpy.ndarray"),
    *_numpy_functions("numpy._core.multiarray"),
    *_numpy_functions("numpy.core.multiarray"),  # before NumPy 2
    _named(_no_bytes, "builtins.bytes"),
    argparse.Namespace,  # options of training scripts
)
"""What files may name beyond PyTorch's own list."""
