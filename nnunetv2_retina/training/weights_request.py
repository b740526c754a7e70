"""Find which pre-trained weights a training was asked to start from, before nnU-Net makes a result folder.

nnU-Net hands ``-pretrained_weights`` to its loader only after the trainer exists, its folder with it, and the loader
answers a wrong file with a key or a shape. The trainers look the option up here and check the file first; loading
itself stays with nnU-Net.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.weights import shipped
from nnunetv2_retina.weights.catalogue import WEIGHTS

VARIABLE = "RETINA_WEIGHTS"
_DATA_SET = '"weights" in dataset.json; other ones: -pretrained_weights FILE; none: RETINA_WEIGHTS= before the command'


@dataclass(frozen=True)
class WeightsRequest:
    """Weights file and where it was named."""

    path: str
    origin: str

    @property
    def loaded_by_nnunet(self) -> bool:
        """Tell whether nnU-Net itself calls its loader; otherwise the trainer calls it."""
        return self.origin == "-pretrained_weights"


def weights_path(text: str, folder: Path | None = None) -> str:
    """Return the path of weights that are named by a path or by a name; see ``shipped.resolve``."""
    return shipped.resolve(text, folder)


def option_weights() -> WeightsRequest | None:
    """Return the ``-pretrained_weights`` of the running ``nnUNetv2_train``.

    Raises:
        RetinaError: for a name of ``catalogue.WEIGHTS``, or ``~``: nnU-Net itself opens it, as a file.
    """
    option = _training_argument("pretrained_weights_file") or _training_argument("pretrained_weights")
    if option in WEIGHTS:
        raise RetinaError(
            f"-pretrained_weights {option}: nnU-Net itself opens it, as a file. For the weights of that name "
            f"leave it out and set {VARIABLE}={option}; a file of that name is ./{option}"
        )
    if option and option.startswith("~"):
        raise RetinaError(f"-pretrained_weights {option}: nnU-Net itself opens it, without knowing ~. Write it out")
    return WeightsRequest(option, "-pretrained_weights") if option else None


def requested_weights(of_data_set: str | None = None) -> WeightsRequest | None:
    """Return ``-pretrained_weights`` of the running ``nnUNetv2_train``, else ``$RETINA_WEIGHTS``, else the data set's.

    The last two may be names of ``catalogue.WEIGHTS``. A variable that is set and empty means none.

    Args:
        of_data_set: ``weights`` in the block of dataset.json.

    Raises:
        RetinaError: as ``option_weights``; for an unknown name.
    """
    if (option := option_weights()) is not None:
        return option
    variable = os.environ.get(VARIABLE)
    named, origin = (of_data_set, _DATA_SET) if variable is None else (variable.strip(), f"${VARIABLE}")
    return WeightsRequest(weights_path(named), origin) if named else None


def is_validation_only() -> bool:
    """Tell whether the running ``nnUNetv2_train`` was given ``--val``."""
    return bool(_training_argument("only_run_validation") or _training_argument("val"))


_FUNCTIONS = ("maybe_load_checkpoint", "run_training", "run_ddp")


def _training_argument(name: str) -> str | None:
    """Return an argument of nnU-Net's training functions further up the call stack; None if there is none.

    Read only; where nnU-Net renames it, nnU-Net's own messages appear instead of ours.
    """
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name in _FUNCTIONS and name in frame.f_locals and os.path.realpath(code.co_filename) == _nnunet():
            value: str | None = frame.f_locals[name]
            return value
        frame = frame.f_back
    return None


@cache
def _nnunet() -> str:
    """Return the file of nnU-Net's training command; as ``python -m`` or a script its module has another name."""
    spec = importlib.util.find_spec("nnunetv2.run.run_training")
    return os.path.realpath(spec.origin) if spec is not None and spec.origin else ""
