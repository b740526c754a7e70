"""Weights of other origin as a checkpoint for nnU-Net's ``-pretrained_weights``. Behind ``retina_import_weights``.

What a file is, is read from its content: the published RETINA weights, the ImageNet-21k hybrid in the names of JAX or
of timm, a ResNet-50 of MoCo v2 (CEM500K's) or torchvision, for the UNet-ResNet50, this project's own checkpoints and
nnU-Net's results with its trainers; as a PyTorch, ``.npz`` or
``.safetensors`` file. Every tensor is accounted for: one that is not known is an error.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.files import check_file, file_digest
from nnunetv2_retina.network import NetworkConfig
from nnunetv2_retina.weights import checkpoint, containers
from nnunetv2_retina.weights.adaptation import resample_positions
from nnunetv2_retina.weights.checkpoint import Checkpoint
from nnunetv2_retina.weights.compatibility import (
    HEAD,
    NETWORKS,
    POSITIONS,
    TRANSUNET,
    Config,
    StateDict,
    describe_size,
    network_of,
    shapes_of,
    trainer_for,
)
from nnunetv2_retina.weights.containers import EXPECTED
from nnunetv2_retina.weights.kinds import recognise
from nnunetv2_retina.weights.transfer import trained_prefixes
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
    def config(self) -> Config:
        """Return the sizes of the network."""
        return (network_of(self.weights) or TRANSUNET).config.from_dict(self.retina["network"])

    @property
    def kind(self) -> str:
        """Say what the file was found to be."""
        return str(self.retina["origin"]["kind"])


def import_weights(
    source: str | Path, target: str | Path, overwrite: bool = False, trust: bool = False
) -> ImportedWeights:
    """Read weights of any kind and write them as a checkpoint.

    Args:
        source: see ``read_weights``.
        target: the file to write; it appears when it is complete.
        overwrite: replace ``target`` if it exists.
        trust: see ``read_weights``.

    Raises:
        RetinaError: as ``read_weights``; or if ``target`` exists, is ``source``, or cannot be written.
    """
    target = Path(target)
    _check_target(Path(source), target, overwrite)
    imported = read_weights(source, trust)
    given = ("format_version", "version", *inspect.signature(checkpoint.save).parameters, "network")
    description = {key: value for key, value in imported.retina.items() if isinstance(key, str) and key not in given}
    checkpoint.save(target, imported.weights, imported.config, **description)
    return replace(imported, path=target)


def read_weights(path: str | Path, trust: bool = False) -> ImportedWeights:
    """Read weights of any kind into memory.

    Args:
        path: published RETINA weights, ImageNet-21k ``R50+ViT-B_16`` (JAX or timm), a ResNet-50 (MoCo v2 or
            torchvision), or a checkpoint of this project or of nnU-Net with its trainers; PyTorch, ``.npz`` or
            ``.safetensors``.
        trust: let a PyTorch file run code, if it asks for that; see ``unpickling``.

    Returns:
        A whole network: its position grid is 14 x 14 (others are resampled), what the file lacks of the decoder and
        head has a fresh initialisation, floating-point values are float32. The head has as many outputs as the file's.
        ``retina["trained"]`` has the prefixes of the tensors with trained values if those are not all, and
        ``retina["origin"]`` file name, SHA-256, kind and what was done.

    Raises:
        RetinaError: if the file is missing, damaged, of another network, or holds an unknown or a non-finite tensor;
            for a ResNet-50, if segmentation-models-pytorch is not installed.
    """
    path = check_file(Path(path), "weights file")
    tensors, retina, others = containers.read(path, trust)
    kind = recognise(path, tensors)
    try:
        trained_prefixes(retina)  # refuses nonsense
        translated = kind.translate(tensors, retina)
        missing = _check(translated, kind.trained)
        config, weights, steps = _resample(_plain(translated))
        fresh = _fresh(config, weights, missing)
    except (ValueError, IndexError) as error:  # also of sizes and shapes that are no network's
        raise RetinaError(f"{path} ({kind.name}): {str(error).rstrip('.')}. {EXPECTED}") from error
    steps = [
        *(Step(f"entry {name!r}", None, "not the network's weights") for name in others),
        *steps,
        *(Step(None, name, f"fresh initialisation (seed {FRESH_SEED})") for name in fresh),
    ]
    origin = {"file": path.name, "sha256": file_digest(path), "kind": kind.name, "changes": summarise(steps)}
    if "origin" in retina:
        origin["before"] = retina["origin"]
    retina = {**retina, "network": config.to_dict(), "origin": origin}
    if kind.trained:
        retina["trained"] = list(kind.trained)
    return ImportedWeights(path, weights | fresh, retina, steps=tuple(steps))


def advise(imported: ImportedWeights) -> str:
    """Say in a few lines what the written checkpoint is and how to use it."""
    shapes = shapes_of(imported.weights)
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


def _plain(translated: Translated) -> Translated:
    """Make all tensors contiguous and floating-point values float32; refuse values that are not finite."""
    plain, casts = {}, {}
    for name, tensor in translated.weights.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            casts[name] = f", {str(tensor.dtype).removeprefix('torch.')} to float32"
            tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise RetinaError(f"the tensor that becomes {name} has infinite or missing values")
        plain[name] = tensor.contiguous()
    steps = [replace(step, done=step.done + casts.get(step.target or "", "")) for step in translated.steps]
    return Translated(translated.config, plain, steps)


def _resample(translated: Translated) -> Translated:
    """Put position embeddings, if there are any, on the trainers' grid."""
    config, weights, steps = translated
    if not isinstance(config, NetworkConfig) or config.grid_size == GRID:
        return translated
    grid = config.grid_size
    weights = {**weights, POSITIONS: resample_positions(weights[POSITIONS], GRID)}
    done = f"resampled {grid} x {grid} to {GRID} x {GRID}"
    steps = [replace(step, done=f"{step.done}, {done}") if step.target == POSITIONS else step for step in steps]
    return Translated(replace(config, grid_size=GRID), weights, steps)


def _check(translated: Translated, trained: tuple[str, ...] | None) -> list[str]:
    """Refuse unknown, misshapen and missing tensors.

    Returns:
        The names of those that may be missing: outside the trained parts (None: of the head).
    """
    config, weights, _ = translated
    expected = shapes_of(_network(config, weights, "meta").state_dict())
    for name, shape in shapes_of(weights).items():
        if name not in expected:
            raise RetinaError(f"unknown tensor {name!r}")
        if shape != expected[name]:
            raise RetinaError(
                f"the tensor that becomes {name} has shape {shape}, but {expected[name]} by the sizes of the others"
            )
    missing = [name for name in expected if name not in weights]
    lost = [name for name in missing if (name.startswith(trained) if trained else HEAD not in name)]
    if lost:
        raise RetinaError(f"{len(lost)} of {len(expected)} tensors are missing: {shorten(lost, 3)}")
    return missing


def _fresh(config: Config, weights: StateDict, names: list[str]) -> dict[str, Tensor]:
    """Return these tensors of the network at an initialisation that is always the same."""
    state = _network(config, weights, "cpu").state_dict() if names else {}
    return {name: state[name] for name in names}


def _network(config: Config, weights: StateDict, device: str) -> nn.Module:
    """Build a network with the inputs and outputs of these weights, at its fresh initialisation."""
    network = next(network for network in NETWORKS if isinstance(config, network.config))
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(FRESH_SEED)
        return network.like(weights, config)


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
