"""Read the tensors of a weights file by name, whichever container it is: PyTorch, ``.npz`` or ``.safetensors``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError, one_line, shorten
from nnunetv2_retina.files import check_zip_members
from nnunetv2_retina.weights import checkpoint

EXPECTED = (
    "Expected published RETINA weights, ImageNet-21k R50+ViT-B_16, a ResNet-50 (MoCo v2 as CEM500K's, or "
    "torchvision's), or a checkpoint of this project."
)
WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
"""Entries in which training scripts keep the tensors, beside others such as the optimiser's."""
_LONGEST_HEADER = 100_000_000
"""Of a .safetensors file, in bytes; the limit of its library."""


class Contents(NamedTuple):
    """The contents of a file."""

    tensors: dict[str, Tensor]
    retina: dict[str, Any]
    """What it says of itself; empty for files of other origin."""
    others: list[str]
    """Its entries beside the network's weights."""


def read(path: Path, trust: bool = False) -> Contents:
    """Read a file, whose container its first bytes show.

    Args:
        path: the file. The suffix .safetensors is enough, whatever the bytes.
        trust: let a PyTorch file run code; see ``unpickling``.

    Raises:
        RetinaError: if it cannot be read, or holds no tensors by name.
    """
    if path.suffix == ".safetensors" or _is_safetensors(path):
        return Contents(_read_safetensors(path), {}, [])
    if _is_npz(path):
        return Contents(_read_npz(path), {}, [])
    return _read_torch(path, trust)


def _is_safetensors(path: Path) -> bool:
    """Tell whether a file begins as the format does: the length of its header in 8 bytes, and JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(sorted(safetensors.torch.load(path.read_bytes()).items()))  # the library gives them in any order
    except Exception as error:
        reason = one_line(error).removeprefix("Error while deserializing: ")
        raise RetinaError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a .safetensors file: it is truncated, damaged "
            f"or of another kind ({reason}). Copy or download it again"
        ) from error


def _is_npz(path: Path) -> bool:
    """Tell whether a file is a zip archive of arrays; PyTorch's files are zip archives too."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip_members(archive)
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except Exception as error:  # on a damaged directory zipfile raises whatever it stumbles over
        raise RetinaError(
            f"{path} ({path.stat().st_size:,} bytes) begins as an .npz or PyTorch file, but the directory at its end "
            "is missing or damaged. Copy or download it again"
        ) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: torch.from_numpy(np.ascontiguousarray(content[name])) for name in content.files}
    except Exception as error:  # whatever zipfile and NumPy's parser of headers stumble over
        raise RetinaError(
            f"{path} cannot be read as an .npz file of numbers: {one_line(error)}. Copy or download it again"
        ) from error


def _read_torch(path: Path, trust: bool) -> Contents:
    content = checkpoint.read_file(path, trust)
    if not isinstance(content, Mapping):
        raise RetinaError(f"{path} holds a {type(content).__name__}, no tensors by name. {EXPECTED}")
    if "network_weights" in content:
        stored = checkpoint.parse(path, content)
        others = [name for name in content if name not in ("network_weights", "retina")]
        return Contents(stored.weights, stored.retina, others)
    wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    tensors = content[wrapper] if wrapper else content
    if not tensors or not all(map(checkpoint.is_named_tensor, tensors.items())):
        raise RetinaError(f"{path} holds no tensors by name: its entries are {shorten(content)}. {EXPECTED}")
    return Contents(dict(tensors), {}, [name for name in content if name != wrapper] if wrapper else [])
