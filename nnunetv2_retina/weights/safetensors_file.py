"""Reads ``.safetensors`` files, whose format is short enough not to need their library.

Format (huggingface/safetensors, README, "Format"): the length N of the header as 8 bytes, little-endian; N bytes of
JSON, ``{name: {"dtype", "shape", "data_offsets": [begin, end]}}``, and ``__metadata__`` with texts; then the data,
which the offsets count from. Nothing in it is ever executed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as the format does, complete or not."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def read(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, on the CPU.

    Raises:
        RetinaError: if the file is truncated or damaged, or holds a data type that is not read.
    """
    data = memoryview(path.read_bytes())
    if len(data) > 8 and not is_safetensors(path):
        raise RetinaError(f"{path} does not begin as a .safetensors file does. Copy or download it again")
    begin = 8 + int.from_bytes(data[:8], "little")
    if begin > len(data):
        raise _truncated(path, begin, len(data))
    try:
        header = json.loads(bytes(data[8:begin]))
        header.pop("__metadata__", None)
        needed = begin + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if needed > len(data):
            raise _truncated(path, needed, len(data))
        return {name: _tensor(f"{path}: tensor {name!r}", data[begin:], entry) for name, entry in header.items()}
    except RetinaError:
        raise
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise RetinaError(f"{path} has a damaged header for a .safetensors file. Copy or download it again") from error


def _tensor(subject: str, data: memoryview, entry: dict[str, Any]) -> Tensor:
    shape, (begin, end) = [int(length) for length in entry["shape"]], entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise RetinaError(f"{subject} is of type {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
    if begin < 0 or min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise RetinaError(
            f"{subject} has {end - begin} bytes, which does not fit {entry['dtype']} of shape {tuple(shape)}: the file "
            "is damaged. Copy or download it again"
        )
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)


def _truncated(path: Path, needed: int, got: int) -> RetinaError:
    return RetinaError(
        f"{path} is a truncated .safetensors file: {got:,} bytes of at least {needed:,}. Copy or download it again"
    )
