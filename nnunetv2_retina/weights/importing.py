"""Weights of other origin as a checkpoint for nnU-Net's ``-pretrained_weights``. Behind ``retina_import_weights``.

What a file is, is read from its content: the published RETINA weights, the ImageNet-21k hybrid in the names of JAX or
of timm, a ResNet-50 of MoCo v2 (CEM500K's) or torchvision, for the UNet-ResNet50, this project's own checkpoints and
nnU-Net's results with its trainers; as a PyTorch, ``.npz`` or
``.safetensors`` file. Every tensor is accounted for: one that is not known is an error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.unet_resnet50 import HEAD as UNET_HEAD
from nnunetv2_retina.network.unet_resnet50 import STEM as UNET_STEM
from nnunetv2_retina.network.unet_resnet50 import UNetConfig, UNetResNet50
from nnunetv2_retina.weights import checkpoint, containers
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.containers import EXPECTED
from nnunetv2_retina.weights.kinds import recognise
from nnunetv2_retina.weights.transfer import HEAD, POSITIONS, describe_size, trained_prefixes, trainer_for
from nnunetv2_retina.weights.translation import Step, Translated, summarise

GRID = NetworkConfig().grid_size
"""Side of the position grid that every trainer's network has."""
FRESH_SEED = 0
"""Of the parts that a file lacks."""


@dataclass(frozen=True)
class ImportedWeights(Checkpoint):
    """Weights of a whole network by this project's names, on the CPU, with what became of the file's tensors."""

    steps: tuple[Step, ...] = ()

    @property
    def config(self) -> NetworkConfig | UNetConfig:
        """Sizes of the network."""
        network = self.retina["network"]
        return UNetConfig.from_dict(network) if UNET_STEM in self.weights else NetworkConfig.from_dict(network)

    @property
    def kind(self) -> str:
        """What the file was found to be, in words."""
        return self.retina["origin"]["kind"]


def import_weights(source: str | Path, target: str | Path, overwrite: bool = False) -> ImportedWeights:
    """Read weights of any kind and write them as a checkpoint.

    Args:
        source: see ``read_weights``.
        target: the file to write; it appears when it is complete.
        overwrite: replace ``target`` if it exists.

    Raises:
        RetinaError: as ``read_weights``; or if ``target`` exists, is ``source``, or cannot be written.
    """
    target = Path(target)
    _check_target(Path(source), target, overwrite)
    imported = read_weights(source)
    given = ("format_version", "version", "network")
    description = {key: value for key, value in imported.retina.items() if key not in given}
    checkpoint.save(target, imported.weights, imported.config, **description)
    return replace(imported, path=target)


def read_weights(path: str | Path) -> ImportedWeights:
    """Read weights of any kind in memory.

    Args:
        path: published RETINA weights, ImageNet-21k ``R50+ViT-B_16`` (JAX or timm), a ResNet-50 (MoCo v2 or
            torchvision), or a checkpoint of this project or of nnU-Net with its trainers; PyTorch, ``.npz`` or
            ``.safetensors``.

    Returns:
        A whole network: its position grid is 14 x 14 (others are resampled), what the file lacks of the decoder and
        head has a fresh initialisation, floating-point values are float32. The head has as many outputs as the file's.
        ``retina["trained"]`` has the prefixes of the tensors with trained values if those are not all, and
        ``retina["origin"]`` file name, SHA-256, kind and what was done.

    Raises:
        RetinaError: if the file is missing, damaged, of another network, or holds an unknown or a non-finite tensor;
            for a ResNet-50, if segmentation-models-pytorch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise RetinaError(f"no weights file at {path}: {'that is a folder' if path.is_dir() else 'no such file'}")
    tensors, retina, others = containers.read(path)
    kind = recognise(path, tensors)
    try:
        config, weights, steps = _resample(_plain(kind.translate(tensors, retina)))
        fresh = _fresh(config, weights, kind.trained)
        weights |= fresh
        _check(config, weights)
    except RetinaError as error:
        raise RetinaError(f"{path} ({kind.name}): {str(error).rstrip('.')}. {EXPECTED}") from error
    steps = [
        *(Step(f"entry {name!r}", None, "not the network's weights") for name in others),
        *steps,
        *(Step(None, name, f"fresh initialisation (seed {FRESH_SEED})") for name in fresh),
    ]
    origin = {"file": path.name, "sha256": _sha256(path), "kind": kind.name, "changes": summarise(steps)}
    if "origin" in retina:
        origin["before"] = retina["origin"]
    retina = {**retina, "network": config.to_dict(), "origin": origin}
    if kind.trained:
        retina["trained"] = list(kind.trained)
    return ImportedWeights(path, weights, retina, steps=tuple(steps))


def advise(imported: ImportedWeights) -> str:
    """What the written checkpoint is and how to use it, in a few lines."""
    shapes = {name: tuple(tensor.shape) for name, tensor in imported.weights.items()}
    lines = [f"{imported.path}: {describe_size(shapes)}"]
    trained = ", ".join(trained_prefixes(imported.retina))
    if trained:
        lines.append(f"Trained values: {trained}; the rest is freshly initialised.")
    if imported.config.name is None:
        lines.append("No trainer has this size: use it from Python, with TransUNet.load_state_dict.")
    else:
        trainer = trainer_for(shapes)
        lines.append(f"Use it: nnUNetv2_train DATASET 2d 0 -tr {trainer} -pretrained_weights {imported.path}")
    return "\n".join(lines)


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """(1, N, D) on a square grid -> (1, grid * grid, D), bicubically: what the network does for another token grid."""
    side = round(positions.shape[1] ** 0.5)
    square = positions.transpose(1, 2).unflatten(2, (side, side))
    return F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def _plain(translated: Translated) -> Translated:
    """Finite, contiguous, floating-point values as float32."""
    plain, casts = {}, {}
    for name, tensor in translated.weights.items():
        if not torch.isfinite(tensor).all():
            raise RetinaError(f"the tensor that becomes {name} has infinite or missing values")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            casts[name] = f", {str(tensor.dtype).removeprefix('torch.')} to float32"
            tensor = tensor.float()
        plain[name] = tensor.contiguous()
    steps = [replace(step, done=step.done + casts.get(step.target or "", "")) for step in translated.steps]
    return Translated(translated.config, plain, steps)


def _resample(translated: Translated) -> Translated:
    """Position embeddings on the trainers' grid."""
    config, weights, steps = translated
    if isinstance(config, UNetConfig):
        return translated
    grid = config.grid_size
    if grid == GRID or POSITIONS not in weights or weights[POSITIONS].shape[1] != grid**2:
        return translated
    weights = {**weights, POSITIONS: resample_positions(weights[POSITIONS], GRID)}
    done = f"resampled {grid} x {grid} to {GRID} x {GRID}"
    steps = [replace(step, done=f"{step.done}, {done}") if step.target == POSITIONS else step for step in steps]
    return Translated(replace(config, grid_size=GRID), weights, steps)


def _fresh(
    config: NetworkConfig | UNetConfig, weights: Mapping[str, Tensor], trained: tuple[str, ...] | None
) -> dict[str, Tensor]:
    """What is missing outside the trained parts (None: of the head), at an initialisation that is always the same."""
    missing = [name for name in _network(config, weights, "meta").state_dict() if name not in weights]
    names = [name for name in missing if (not name.startswith(trained) if trained else HEAD in name)]
    state = _network(config, weights, "cpu").state_dict() if names else {}
    return {name: state[name] for name in names}


def _network(
    config: NetworkConfig | UNetConfig, weights: Mapping[str, Tensor], device: str
) -> TransUNet | UNetResNet50:
    """A network with the inputs and outputs of these weights, at its fresh initialisation."""
    stem = weights.get("cnn.stem.0.weight", weights.get(UNET_STEM))
    head = weights.get("decoder.seg_layers.0.weight", weights.get(UNET_HEAD))
    channels = 3 if stem is None else stem.shape[1]
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(FRESH_SEED)
        if isinstance(config, UNetConfig):
            return UNetResNet50(channels, 1 if head is None else len(head))
        return TransUNet(1 if channels == 3 else channels, 1 if head is None else len(head), config)


def _check(config: NetworkConfig | UNetConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse unknown, missing and misshapen tensors."""
    expected = _network(config, weights, "meta").state_dict()
    for name in weights:
        if name not in expected:
            raise RetinaError(f"unknown tensor {name!r}")
    missing = [name for name in expected if name not in weights]
    if missing:
        raise RetinaError(f"{len(missing)} of {len(expected)} tensors are missing: {shorten(missing, 3)}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            got, fits = tuple(tensor.shape), tuple(expected[name].shape)
            raise RetinaError(f"the tensor that becomes {name} has shape {got}, but {fits} by the sizes of the others")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Refuse what would fail after the work, or would lose a file."""
    if target.exists() and source.exists() and os.path.samefile(source, target):
        raise RetinaError(f"IN and OUT are the same file, {target}. Give OUT another name")
    if target.is_dir():
        raise RetinaError(f"{target} is a folder. Give the name of the file to write, for example {target}/weights.pth")
    if target.exists() and not overwrite:
        raise RetinaError(f"{target} exists. Give another name, or --overwrite to replace it")
    if not target.parent.is_dir():
        raise RetinaError(f"{target} cannot be written: {target.parent} is no folder. Make it, or choose another")
