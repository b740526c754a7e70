"""The networks, in torch alone: no file, no nnU-Net.

``nnunetv2_retina.network.TransUNet`` is the name that plans written by nnU-Net hold: it stays.
"""

from nnunetv2_retina.network.config import SIZES, NetworkConfig
from nnunetv2_retina.network.transunet import TransUNet

__all__ = ["SIZES", "NetworkConfig", "TransUNet"]
