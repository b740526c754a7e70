"""Checkpoints: whole files under final names, with a description of themselves.

A weights file is ``{"network_weights": {name: tensor}, "retina": {...}}``, with a third entry ``"training"`` while its
run can be continued: plain tensors and builtins, so it loads with ``weights_only=True``, and nnU-Net's
``-pretrained_weights`` takes it as it is. Needs torch alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_retina import __version__
from nnunetv2_retina.console.machine import memory_bytes
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import check_file, replacing
from nnunetv2_retina.network import NetworkConfig
from nnunetv2_retina.network.unet_resnet50 import UNetConfig
from nnunetv2_retina.weights.unpickling import read_file as read_file

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a weights file, on the CPU."""

    path: Path
    weights: dict[str, Tensor]
    retina: dict[str, Any] = field(default_factory=dict)
    """What the file says of itself; empty for files of other origin."""
    training: dict[str, Any] = field(default_factory=dict)
    """What continuing the run needs beyond the weights (optimiser, position, ...); empty in finished files."""

    @property
    def fingerprint(self) -> str:
        """Return ``fingerprint`` of the weights."""
        return fingerprint(self.weights)


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and values of tensors, in the order of the names: equal for equal weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(
    path: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    config: NetworkConfig | UNetConfig,
    training: Mapping[str, Any] | None = None,
    **description: Any,
) -> None:
    """Write a weights file.

    Args:
        path: its final name; it never holds a half-written file.
        weights: the network's ``state_dict()``, on any device.
        config: the network's sizes.
        training: what continuing the run needs, as tensors and builtins; a third entry of the file, "training".
        description: what made the weights: plain numbers, texts, lists and dicts (recipe, step, epoch, ...).

    Raises:
        RetinaError: if it cannot be written; an earlier file of that name is then as it was.
    """
    retina = {"format_version": FORMAT_VERSION, "version": __version__, "network": config.to_dict(), **description}
    plain = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
    content: dict[str, Any] = {"network_weights": plain, "retina": retina}
    if training is not None:
        content["training"] = dict(training)
    size = sum(value.nbytes for value in plain.values()) * (3 if training else 1)
    with explained(path, size), replacing(path) as temporary:
        torch.save(content, temporary)


def is_finite(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether no weight is infinite or not a number."""
    return all(bool(tensor.isfinite().all()) for tensor in weights.values() if tensor.is_floating_point())


@contextmanager
def explained(path: str | os.PathLike[str], size: int) -> Iterator[None]:
    """Turn what prevents writing a checkpoint of about ``size`` bytes into a ``RetinaError`` that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        earlier = "The file of that name is still the earlier one. " if os.path.exists(path) else ""
        raise RetinaError(
            f"{path} cannot be written ({_reason(error)}). {earlier}See that the folder exists, is writable and has "
            f"{size / 2**20:,.0f} MiB free"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).splitlines()[0]
    return "No space left, or a limit of the file's size" if "inline_container" in text else text  # torch's writer


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weights file, or the weights of an nnU-Net checkpoint.

    Raises:
        RetinaError: if there is no such file, it cannot be read or could run code (see ``read_file``), it holds no
            ``network_weights``, or what it says of itself is no description.
    """
    path = check_file(Path(path), "checkpoint")
    return parse(path, read_file(path))


def parse(path: Path, content: Any) -> Checkpoint:
    """Return the weights among the contents of a file, and what it says of itself; see ``load``."""
    weights = content.get("network_weights") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(map(is_named_tensor, weights.items())):
        names = content if isinstance(content, Mapping) else ()
        raise RetinaError(f"{path} holds no network_weights ({_what_it_holds(content)}). {advice(names)}")
    retina = entry(path, content, "retina") or entry(path, entry(path, content, "init_args"), "retina")
    version = retina.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RetinaError(
            f"{path} has format version {version}; this is nnunetv2-retina {__version__}, which reads up to "
            f"{FORMAT_VERSION}: install a newer one"
        )
    return Checkpoint(path, dict(weights), retina, entry(path, content, "training"))


def is_named_tensor(item: tuple[object, object]) -> bool:
    """Tell whether an entry is a tensor of plain numbers, no more than fit into memory, under a text."""
    name, value = item
    if not (isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu):
        return False
    plain = not (value.is_complex() or value.is_quantized)
    return plain and value.nbytes <= memory_bytes()  # a view of one number can claim any size


def entry(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an entry that holds further entries; an empty one if there is none.

    Raises:
        RetinaError: if it holds something else.
    """
    value = content.get(name)
    if not isinstance(value, (Mapping, type(None))):
        raise RetinaError(f"{path} is damaged: its entry {name} is a {type(value).__name__}; expected a dictionary")
    return dict(value or {})


def _what_it_holds(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    return f"its entries are {shorten(content, 3)}"


def advice(names: Iterable[object]) -> str:
    """Say what to do with a file whose tensors or entries have these names, which are not the expected ones."""
    texts = [str(name) for name in names]
    if any("hybrid_model" in text for text in texts):
        return "These are the names of the authors' release. Run: retina_import_weights IN OUT, and give OUT."
    if any(text.startswith(("cnn.stem.", "transformer.blocks.")) for text in texts):
        return "Expected every tensor of one network, as RETINA's pre-training and trainers write it."
    if any(text.endswith("layer1.0.conv1.weight") for text in texts):
        return "These are the names of a ResNet. Run: retina_import_weights IN OUT, and give OUT."
    return (
        'Expected {"network_weights": {name: tensor}}, as RETINA\'s pre-training and trainers write it. For published '
        "RETINA, CEM500K or ImageNet weights run: retina_import_weights IN OUT, and give OUT."
    )
