"""Weights of a ResNet-50 as torchvision and MoCo v2 name them."""

from typing import Any

import torch

from nnunetv2_retina.network.unet_resnet50 import UNetResNet50


def resnet50(channels: int = 1) -> dict[str, torch.Tensor]:
    """A ResNet-50 by torchvision's names, no tensor at a value that initialisation also gives."""
    torch.manual_seed(5)
    state = UNetResNet50(channels, 1).unet.encoder.state_dict()
    return {name: v * 0.9 + 0.001 if v.is_floating_point() else v + 7 for name, v in state.items()}


def moco(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What facebookresearch/moco saves (main_moco.py), with the entry of volume-em/cem-dataset's."""
    query = {f"module.encoder_q.{name}": value for name, value in state.items()}
    key = {f"module.encoder_k.{name}": value.new_tensor(7).expand(value.shape) for name, value in state.items()}
    heads = {f"module.encoder_{which}.fc.{i}.weight": torch.zeros(4, 4) for which in "qk" for i in (0, 2)}
    queue = {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    about = {"epoch": 200, "arch": "resnet50", "optimizer": {"state": {}}, "norms": [0.57, 0.13]}
    return {"state_dict": query | key | heads | queue, **about}
