"""How nnU-Net finds the trainers, with nothing for the user to set.

nnU-Net looks for trainers outside its own package in the folders of ``$nnUNet_extTrainer``, at training and prediction.
Installation puts ``nnunetv2_retina_registration.pth`` into site-packages, which calls ``register`` at every start of
the interpreter; it appends the folder ``external`` to that variable. The folder holds one module, which re-exports
``nnunetv2_retina.trainers``, so the class that nnU-Net finds is the one that a plain import gives.

``retina_doctor --init`` makes nnU-Net's three folders and notes where they are in a file of the user's; where none of
nnU-Net's three variables is set, ``register`` sets them from it.

Switch it off with ``RETINA_REGISTER=0`` in the environment; then set ``nnUNet_extTrainer`` to ``external_folder()``.

Imports nothing but ``os``, because of when it runs.
"""

from __future__ import annotations

import os

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
VARIABLE = "nnUNet_extTrainer"
SWITCH = "RETINA_REGISTER"


def external_folder() -> str:
    """Return the absolute path of the folder for ``$nnUNet_extTrainer``."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "external")


def switched_off() -> bool:
    """Tell whether the user has switched the registration off."""
    return os.environ.get(SWITCH, "1").strip().lower() in ("0", "false", "no", "off")


def folders_file() -> str:
    """Return the path of the file that says where nnU-Net's folders are: lines of ``VARIABLE=PATH``, UTF-8."""
    home = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return os.path.join(home or os.path.join(os.path.expanduser("~"), ".config"), "nnunetv2_retina", "folders")


def noted_folders() -> dict[str, str]:
    """Return nnU-Net's three variables and their folders as noted; empty if nothing is, or not all three."""
    try:
        with open(folders_file(), encoding="utf-8") as file:
            pairs = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    except (OSError, ValueError):
        return {}
    return {name: pairs[name] for name in FOLDERS} if all(pairs.get(name) for name in FOLDERS) else {}


def register() -> None:
    """Append the folder to ``$nnUNet_extTrainer``, and set nnU-Net's folders; what the user has set stays as it is."""
    if switched_off():
        return
    if not any(os.environ.get(name) for name in FOLDERS):
        os.environ.update(noted_folders())
    paths = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    if external_folder() not in paths:
        os.environ[VARIABLE] = os.pathsep.join([*paths, external_folder()])
