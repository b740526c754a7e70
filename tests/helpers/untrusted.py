"""Weights files that run code where they are opened without care: the code writes a file, the marker."""

import pickle
from pathlib import Path
from typing import Any

import torch


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def checkpoint_with(marker: Marker | None) -> dict[str, Any]:
    """An nnU-Net checkpoint of a trainer of ours, as far as its keys go, with the marker in an entry of its own."""
    about = {"fold": 0, "configuration": "2d", "retina": {"transfer": {"scope": None}}}
    entries = ("optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch")
    return {
        "network_weights": {"cnn.stem.0.weight": torch.zeros(1)},
        "trainer_name": "nnUNetTrainerTransUNet_tiny",
        "init_args": about,
        "retina": {},
        **dict.fromkeys(entries),
        "note": marker,
    }


def _plain_pickle(content: object, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


WRITERS = {
    "zip": torch.save,
    "zip, protocol 4": lambda content, path: torch.save(content, path, pickle_protocol=4),
    "old format": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "plain pickle, protocol 2": lambda content, path: _plain_pickle(content, path, 2),
    "plain pickle, protocol 5": lambda content, path: _plain_pickle(content, path, 5),
}
