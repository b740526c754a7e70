"""A 2d model as a package of the BioImage Model Zoo: it gives for a tile what ``retina_predict`` computes there.

The input is one tile of the size the network was trained with, at the plan's pixel size. A halo of a quarter on each
side stands for nnU-Net's tiles of larger images, which overlap by half; its weighting of tiles and its mirroring have
no counterpart in a package. The test input is a generated image, so that it may be published.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import file_digest, make_folder, write_text
from nnunetv2_retina.network import TransUNet
from nnunetv2_retina.network.ensemble import Ensemble
from nnunetv2_retina.prediction.label_grid import classes, probabilities
from nnunetv2_retina.prediction.predictor import Predictor
from nnunetv2_retina.prediction.settings import PredictionSettings
from nnunetv2_retina.quickstart.synthetic import generate_volume
from nnunetv2_retina.sharing import architecture, card
from nnunetv2_retina.sharing.bundle import Bundle
from nnunetv2_retina.sharing.cover import write_cover
from nnunetv2_retina.sharing.description import Tensors, describe
from nnunetv2_retina.sharing.settings import About
from nnunetv2_retina.volumes.model import plan_spacing

RDF = "rdf.yaml"
STATE_DICT, TORCHSCRIPT, ARCHITECTURE = "weights.pt", "weights_torchscript.pt", "architecture.py"
README, COVER = "README.md", "cover.png"
INPUT, OUTPUT = "test_input.npy", "test_output.npy"
_LEAST = 64
"""Side of the smallest image that is generated, in pixels."""
_OWN_AXES = [0, 1, 2]
_USE = (
    "In any software that runs models of the BioImage Model Zoo, on slices brought to the pixel size below: the",
    "package normalises, but does not resample. Or with RETINA for nnU-Net (nnunetv2-retina), which does, and also",
    "averages mirrored tiles:",
    "",
    "    retina_share import PACKAGE.zip -o model",
    "    retina_predict -i images -o predictions -m model",
)


@dataclass(frozen=True)
class Written:
    """A package, and whether the zoo's own test has looked at it."""

    path: Path
    tested: bool
    formats: tuple[str, ...]
    """Of the weights, as the zoo calls them."""


def write_zoo_package(bundle: Bundle, about: About, target: Path) -> Written:
    """Write the package, and test it with bioimageio.core where that is installed.

    Args:
        bundle: the model.
        about: what its author says about it.
        target: the .zip file to write.

    Raises:
        RetinaError: for a model that the zoo cannot describe, a target that is there, or a package that its test
            refuses; nothing is then written.
    """
    _check_target(target)
    make_folder(target.parent, "Choose another folder")
    predictor = _load(bundle)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as scratch:
        folder = Path(scratch) / "package"
        folder.mkdir()
        formats = _fill(folder, bundle, about, predictor)
        tested = _test(folder / RDF)
        archive = Path(scratch) / target.name
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(folder.iterdir()):
                file.write(path, path.name)
        shutil.move(archive, target)
    return Written(target, tested, formats)


def _check_target(target: Path) -> None:
    if target.suffix != ".zip":
        raise RetinaError(f"{target} is no name of a package; expected one that ends in .zip, such as model.zip")
    if target.exists():
        raise RetinaError(f"{target} is there already. Give another name, or remove it")


def _load(bundle: Bundle) -> Predictor:
    settings = PredictionSettings(mirroring=False, mode="stack")
    folds = [fold.name for fold in bundle.folds]
    predictor = Predictor.from_model_folder(bundle.folder, folds, bundle.checkpoint, "cpu", settings)
    if list(predictor.nnunet.plans_manager.transpose_forward) != _OWN_AXES:
        raise RetinaError(
            "the model was planned with its axes turned (transpose_forward of plans.json); the zoo's axes are y and x. "
            "Share it with retina_share hub"
        )
    return predictor


def _fill(folder: Path, bundle: Bundle, about: About, predictor: Predictor) -> tuple[str, ...]:
    tile = _generated(predictor)
    torch.save(bundle.tensors, folder / STATE_DICT)
    _write_test(folder, predictor, tile)
    write_text(folder / README, card.body(bundle, about, _USE), "Choose another folder")
    attachments = bundle.write(folder, STATE_DICT)
    weights = _weights(folder, predictor, len(bundle.folds))
    if "pytorch_state_dict" not in weights:
        attachments.append(folder / STATE_DICT)
    tensors = Tensors(
        patch=tuple(predictor.nnunet.configuration_manager.patch_size),
        spacing=plan_spacing(predictor),
        channels=tuple(map(str, bundle.dataset_json["channel_names"].values())),
        heads=_head_names(predictor),
        regions=predictor.nnunet.label_manager.has_regions,
        levels=(float(tile.min()), float(tile.max())),
    )
    contents = describe(bundle, about, tensors, weights, {path.name: file_digest(path) for path in folder.iterdir()},
                        [path.name for path in attachments])  # fmt: skip
    import yaml

    text = yaml.safe_dump(contents, sort_keys=False, allow_unicode=True, width=1000)
    write_text(folder / RDF, text, "Choose another folder")
    return tuple(weights)


def _write_test(folder: Path, predictor: Predictor, tile: np.ndarray) -> None:
    """Write the network as TorchScript, the test input, what the network makes of it, and the picture of both."""
    network = _network(predictor)
    data = _preprocessed(predictor, tile)
    manager = predictor.nnunet.label_manager
    with torch.no_grad():
        heads = probabilities(manager, network(data).squeeze(0)[:, None])
    np.save(folder / INPUT, tile[None].astype(np.float32))
    np.save(folder / OUTPUT, heads[:, 0][None].float().numpy())
    _trace(network, data).save(str(folder / TORCHSCRIPT))
    write_cover(folder / COVER, tile[0], classes(manager, heads, are_logits=False)[0])


def _network(predictor: Predictor) -> nn.Module:
    """Return the network with the weights of the folds: their mean, if there are several."""
    members = []
    for weights in predictor.nnunet.list_of_parameters:
        member = copy.deepcopy(predictor.nnunet.network)
        member.load_state_dict(weights)
        members.append(member)
    network = members[0] if len(members) == 1 else Ensemble(members)
    return network.eval()


def _generated(predictor: Predictor) -> np.ndarray:
    """Return a tile (channels, y, x) of generated images that look like electron microscopy, uint8."""
    height, width = predictor.nnunet.configuration_manager.patch_size
    shape = (1, max(height, _LEAST), max(width, _LEAST))
    images = [generate_volume(shape, seed=channel)[0][0, :height, :width] for channel in range(predictor.channels)]
    return np.stack(images)


def _preprocessed(predictor: Predictor, tile: np.ndarray) -> Tensor:
    """Return (1, channels, y, x) float32 as nnU-Net's preprocessor makes it of a tile at the plan's pixel size."""
    y, x = (float(step) for step in predictor.nnunet.configuration_manager.spacing)
    data, _ = predictor.preprocess_array(tile[:, None].astype(np.float32), {"spacing": [999 * max(y, x), y, x]})
    return data[:, 0][None]


def _trace(network: nn.Module, data: Tensor) -> Any:
    """Return the TorchScript of the network for tiles of this size.

    Raises:
        RetinaError: for a network that cannot be traced, or that then gives other numbers.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that become constants: the tile's is fixed; and that PyTorch has others
        try:
            traced = torch.jit.trace(network, data, check_trace=False)
        except (RuntimeError, TypeError, ValueError) as error:
            raise RetinaError(f"the network cannot be made TorchScript ({error}). Use retina_share hub") from error
        pair = torch.cat([data, data.flip(-1)])  # another batch, another image
        if not torch.allclose(traced(pair), network(pair), atol=1e-4, rtol=1e-4):
            raise RetinaError("the network's TorchScript gives other numbers than the network. Use retina_share hub")
    return traced


def _weights(folder: Path, predictor: Predictor, members: int) -> dict[str, dict[str, Any]]:
    """Return the zoo's entries of the weights: TorchScript, and the state dict of a network whose source we have."""
    network, version = predictor.nnunet.network, torch.__version__.partition("+")[0]
    entries: dict[str, dict[str, Any]] = {}
    if isinstance(network, TransUNet):
        write_text(folder / ARCHITECTURE, architecture.source(), "Choose another folder")
        kwargs = {
            "in_channels": network.in_channels,
            "num_classes": predictor.nnunet.label_manager.num_segmentation_heads,
            "config": network.config.to_dict(),
            "members": members,
        }
        built = {"callable": architecture.CALLABLE, "source": ARCHITECTURE, "kwargs": kwargs}
        entries["pytorch_state_dict"] = {"source": STATE_DICT, "architecture": built, "pytorch_version": version}
    entries["torchscript"] = {"source": TORCHSCRIPT, "pytorch_version": version}
    if len(entries) > 1:
        entries["torchscript"]["parent"] = "pytorch_state_dict"
    return entries


def _head_names(predictor: Predictor) -> tuple[str, ...]:
    """Return the names of the output channels, in their order."""
    labels: Mapping[str, Any] = predictor.nnunet.dataset_json["labels"]
    manager = predictor.nnunet.label_manager
    wanted = manager.foreground_regions if manager.has_regions else manager.all_labels
    names = {_key(value): name for name, value in labels.items()}
    return tuple(names[_key(value)] for value in wanted)


def _key(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in value) if isinstance(value, (list, tuple)) else (int(value),)


def _test(rdf: Path) -> bool:
    """Let bioimageio.core test the package, if it is installed.

    Raises:
        RetinaError: if it does not pass.
    """
    if find_spec("bioimageio") is None or find_spec("bioimageio.core") is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bioimageio.core import test_model
        from loguru import logger

        logger.disable("bioimageio")  # it logs each step; what went wrong is in the summary
        summary = test_model(rdf)
    if summary.status == "failed":
        reasons = [f"{'.'.join(map(str, e.loc))}: {e.msg}" for entry in summary.details for e in entry.errors]
        raise RetinaError(
            f"bioimageio.core refuses the package ({'; '.join(reasons[:3])}). Correct what it names, or report this"
        )
    return True
