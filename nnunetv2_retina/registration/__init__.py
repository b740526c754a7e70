"""How nnU-Net finds the trainers, with nothing for the user to set.

nnU-Net looks for trainers outside its own package in the folders of ``$nnUNet_extTrainer``, at training and prediction.
Installation puts ``nnunetv2_retina_registration.pth`` into site-packages, which calls ``register`` at every start of
the interpreter; it appends the folder ``external`` to that variable. The folder holds one module, which re-exports
``nnunetv2_retina.trainers``, so the class that nnU-Net finds is the one that a plain import gives.

Switch it off with ``RETINA_REGISTER=0`` in the environment; then set ``nnUNet_extTrainer`` to ``external_folder()``.

Imports nothing but ``os``, because of when it runs.
"""

import os

VARIABLE = "nnUNet_extTrainer"
SWITCH = "RETINA_REGISTER"


def external_folder() -> str:
    """Return the absolute path of the folder for ``$nnUNet_extTrainer``."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "external")


def switched_off() -> bool:
    """Tell whether the user has switched the registration off."""
    return os.environ.get(SWITCH, "1").strip().lower() in ("0", "false", "no", "off")


def register() -> None:
    """Append the folder to ``$nnUNet_extTrainer``; whatever the user has set stays, and comes first."""
    if switched_off():
        return
    paths = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    if external_folder() not in paths:
        os.environ[VARIABLE] = os.pathsep.join([*paths, external_folder()])
