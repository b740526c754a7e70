"""What weights make of images before they are trained on any label, as a picture. Behind ``retina_pretrain look``.

Weights of the reconstruction restore degraded images. Those whose decoder was never trained (by distillation, say)
restore nothing; of them the tokens are drawn, by their first three principal components as red, green and blue, beside
those of a network at random initialisation. What has one colour is alike to the network; the colours themselves mean
nothing, and those of the two networks cannot be compared.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_retina.display.sheets import grey_sheet
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder, replacing
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.network.transunet import STRIDE
from nnunetv2_retina.weights import checkpoint, shipped
from nnunetv2_retina.weights.compatibility import HEAD
from nnunetv2_retina.weights.importing import ImportedWeights, read_weights
from nnunetv2_retina.weights.transfer import trained_prefixes
from pretraining.augmentation.draws import AugmentationSettings
from pretraining.augmentation.views import degrade, draw, normalise
from pretraining.objectives.reconstruction import skip_factors
from pretraining.probe import compute, network_features
from pretraining.store.archives import open_source
from pretraining.store.cache import is_store
from pretraining.store.decode_workers import content_of, decode
from pretraining.store.packing_errors import no_images
from pretraining.store.reader import ImageStore
from pretraining.store.sources import IMAGE_ENDINGS

SHOWN = 3
"""Images in a picture."""
FILES = 64
"""So many files are looked at, the first of the source, for images that can be used."""
RESTORED = (
    "Images, degraded, and what the weights restore of them, in the grey levels that the network sees. No label was "
    "used."
)
COLOURED = (
    "The decoder of these weights was never trained (they were distilled, say), so they restore no image. What their "
    "transformer tells apart can be seen: each square is a cell of 16 x 16 pixels, coloured by the first three "
    "principal components of its token, before any label is seen. Squares of one colour are alike to that network; the "
    "colours themselves mean nothing, and those of the two networks cannot be compared."
)
_SEED = 0
_NORMALISATION = ("normalisation", "mean", "std")
"""Of the augmentation, what the weights were trained with."""
_HEAD = f"decoder{HEAD}0.weight"

Pictures = dict[str, NDArray[Any]]
"""Title -> (images, Y, X), or (images, Y, X, 3) in colours from 0 to 1."""


def look(weights: str | Path, source: Path, picture: Path) -> str:
    """Draw what weights make of some images.

    Args:
        weights: in any form that ``read_weights`` takes, or a name of ``weights.catalogue``; of a TransUNet.
        source: folder or archive of images, a Zarr volume or a store.
        picture: the PNG file to write.

    Returns:
        What the picture shows, in words.

    Raises:
        RetinaError: for weights of another network, a source without images, or a picture that cannot be written.
    """
    loaded = read_weights(Path(shipped.resolve(weights)))
    if not isinstance(loaded.config, NetworkConfig):
        raise RetinaError(f"{loaded.path} holds weights of another network; expected those of a TransUNet")
    names, images = some_tiles(source)
    make_folder(picture.parent, "Give another file")
    settings = normalisation_of(loaded)
    if restores(loaded):
        pictures, explanation = reconstructions(loaded, images, settings), RESTORED
    else:
        pictures, explanation = token_colours(loaded, images, settings), COLOURED
    with replacing(picture) as temporary:
        grey_sheet(temporary, pictures, names)
    return explanation


def restores(weights: ImportedWeights) -> bool:
    """Tell whether all of a network was trained to return an image; published weights were."""
    arm = _recipe(weights).get("arm", "reconstruction")
    whole = trained_prefixes(weights.retina) == ("",) and len(weights.weights[_HEAD]) == 1
    return whole and arm == "reconstruction"


def normalisation_of(weights: ImportedWeights) -> AugmentationSettings:
    """Return how images were normalised in the training of weights.

    Raises:
        RetinaError: if what the file says of it cannot be.
    """
    recorded = checkpoint.entry(weights.path, _recipe(weights), "augmentation")
    chosen = {key: recorded[key] for key in _NORMALISATION if key in recorded}
    try:
        return AugmentationSettings(**chosen)
    except (RetinaError, TypeError) as error:
        raise RetinaError(
            f"{weights.path} is damaged: its images were normalised with {chosen}. Copy or download it again"
        ) from error


def _recipe(weights: ImportedWeights) -> dict[str, Any]:
    return checkpoint.entry(weights.path, weights.retina, "recipe")


def some_tiles(source: Path) -> tuple[list[str], Tensor]:
    """Return the names of some files, and of each the middle one of its tiles, (B, 224, 224) uint8; of a store images.

    Raises:
        RetinaError: if there are none, or none of the first gives a tile.
    """
    if is_store(source):
        store = ImageStore(source)
        numbers = np.array(_spread(len(store)))
        return [store.name(number) for number in numbers], torch.from_numpy(store.read(numbers))
    opened = open_source(source)
    files = islice((file for file in opened if file.ending in IMAGE_ENDINGS), FILES)
    read = {file.name: decode(content_of(file)) for file in files}
    if not read:
        raise RetinaError(no_images(opened))
    found = [(name, tiles.images) for name, tiles in read.items() if len(tiles.images)]
    if not found:
        name, tiles = next(iter(read.items()))
        raise RetinaError(f"no image of {source} can be drawn: {name} is {tiles.rejected[0][1]}. Give other images")
    chosen = [found[number] for number in _spread(len(found))]
    return [name for name, _ in chosen], torch.from_numpy(np.stack([tiles[len(tiles) // 2] for _, tiles in chosen]))


def _spread(count: int) -> list[int]:
    """Return the numbers of some of so many things, evenly over them."""
    return [round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))]


@torch.inference_mode()
def reconstructions(weights: ImportedWeights, images: Tensor, settings: AugmentationSettings) -> Pictures:
    """Return degraded images, what the network restores of them, and the images, in normalised grey levels.

    The degradations are those of the pre-training, each certain here, and holes in plenty, so that there is something
    to restore; images are neither turned nor cropped.
    """
    certain = replace(settings, contrast_p=1.0, noise_p=1.0, blur_p=1.0, holes_p=1.0, holes=(16, 32))
    degraded, _ = degrade(images, draw(certain, _SEED, 0, len(images)), certain)
    given = normalise(degraded, certain)
    image = given[:, None]
    restored = _network(weights)(image, *skip_factors(_recipe(weights).get("skip_drop", 0.0), image))[:, 0]
    return {
        "degraded": given.numpy(),
        "restored": restored.numpy(),
        "image": normalise(images, certain).numpy(),
    }


def token_colours(weights: ImportedWeights, images: Tensor, settings: AugmentationSettings) -> Pictures:
    """Return images, and the tokens of a network at random initialisation and of these weights in colours."""
    config, given = weights.config, normalise(images, settings)[:, None]
    assert isinstance(config, NetworkConfig), "look has asked"
    torch.manual_seed(_SEED)
    networks = {"tokens, random network": TransUNet(1, 1, config), "tokens, these weights": _network(weights)}
    tokens = {
        title: np.stack(compute(network_features(network, "tokens out"), list(given[:, None]))["tokens out"])
        for title, network in networks.items()
    }
    side = images.shape[-1] // STRIDE
    colours = {title: principal_colours(values, side) for title, values in tokens.items()}
    return {"image": images.numpy(), **colours}


def principal_colours(tokens: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return tokens as colours: their first three principal components, of all images together.

    Args:
        tokens: (B, N, C), N cells in rows.
        side: cells in a row.

    Returns:
        (B, Y, X, 3) from 0 to 1, a square of 16 x 16 pixels for each cell; the middle 98 % of each component fill the
        range.
    """
    centred = tokens.reshape(-1, tokens.shape[-1]) - tokens.mean((0, 1))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:3].T
    low, high = np.percentile(components, (1, 99), axis=0)
    colours = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1).reshape(len(tokens), side, side, 3)
    enlarged: NDArray[np.float64] = colours.repeat(STRIDE, 1).repeat(STRIDE, 2)
    return enlarged


def _network(weights: ImportedWeights) -> TransUNet:
    config = weights.config
    assert isinstance(config, NetworkConfig), "look has asked"
    network = TransUNet(1, len(weights.weights[_HEAD]), config)
    network.load_state_dict(weights.weights)
    return network.eval()
