"""``retina_doctor``: check what a working installation needs, and say what to type where something is wrong."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunetv2_retina import console, registration
from nnunetv2_retina.console import say
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder, write_text

NEEDED_NNUNET = (2, 8, 1)
DEFAULT_HOME = Path("~/nnunet")
_BY_HAND = "Set the variables by hand instead: nnUNet_raw={0}/raw, and so on"
_CONTENTS = {
    "nnUNet_raw": "images and labels: retina_convert writes here; nothing to put here by hand",
    "nnUNet_preprocessed": "what nnUNetv2_plan_and_preprocess makes of them: on the fastest disk",
    "nnUNet_results": "trained models",
}
LITTLE_SPACE = 5 * 2**30
"""Free bytes below which a folder is reported as nearly full."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: str
    """``ok``, ``note`` (works, but know it) or ``wrong``."""
    topic: str
    text: str
    advice: str = ""
    """What to type or do; empty where nothing is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if something is wrong."""
    console.hide_deprecations(argv)
    arguments = parser().parse_args(argv)
    return console.run(run if arguments.init is None else lambda: initialise(arguments.init))


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_doctor",
        "Check the installation: versions, devices, nnU-Net's three folders, registration, weights. Says what is "
        "right, what is wrong and what to type. Exit status 1 if something is wrong.",
    )
    parser.add_argument(
        "--init", type=Path, nargs="?", const=DEFAULT_HOME, metavar="FOLDER",
        help="make nnU-Net's three folders in FOLDER (default: ~/nnunet) and note them, so that no variable needs to "
        "be set; variables that are set come first",
    )  # fmt: skip
    return parser


def _check_unset(noted: Mapping[str, str]) -> None:
    """Refuse to note folders where the environment names others than those that are noted."""
    given = {name: value for name in registration.FOLDERS if (value := os.environ.get(name)) != noted.get(name)}
    if any(given.values()):
        raise RetinaError(
            f"{', '.join(f'{name}={value}' for name, value in given.items() if value)} is set in your environment and "
            "comes first. Unset it to use folders of retina_doctor --init, or keep it; nothing was changed"
        )


def initialise(home: Path) -> None:
    """Make nnU-Net's three folders and note where they are.

    Raises:
        RetinaError: if the user's environment says where they are already.
        OSError: if a folder cannot be made.
    """
    noted = registration.noted_folders()
    _check_unset(noted)
    home = home.expanduser().absolute()
    folders = {name: home / name.removeprefix("nnUNet_") for name in registration.FOLDERS}
    for folder in folders.values():
        make_folder(folder, "Choose another place: retina_doctor --init FOLDER")
    file = Path(registration.folders_file())
    make_folder(file.parent, _BY_HAND.format(home))
    write_text(file, "".join(f"{name}={folder}\n" for name, folder in folders.items()), _BY_HAND.format(home))
    for name, text in _CONTENTS.items():
        say(f"{folders[name]}   {text}")
    if noted and Path(noted[registration.FOLDERS[0]]).parent != home:
        say(f"\nThey take the place of those in {Path(noted[registration.FOLDERS[0]]).parent}, which stay as they are.")
    say(f"\nNoted in {file}: every nnUNetv2_ and retina_ command of this user finds them, unless variables are set.")
    say("Next: retina_convert folder MY_DATA -d 700 --name MINE, or retina_quickstart")


def run() -> int:
    """Print every finding; return 1 if one of them is a problem, else 0."""
    problems = 0
    for finding in examine():
        problems += finding.level == "wrong"
        say(f"{finding.level:6}{finding.topic:21}{finding.text}")
        if finding.advice:
            say(f"{'':6}{'':21}-> {finding.advice}")
    say(f"\n{problems} {'problem' if problems == 1 else 'problems'} found" if problems else "\nNo problem found.")
    return 1 if problems else 0


def examine() -> Iterator[Finding]:
    """Look at versions, devices, folders, registration and weights, one finding after the other."""
    yield from _versions()
    yield from _devices()
    yield from _folders()
    yield from _processes()
    yield from _preprocessed()
    yield from _registration()
    yield from _weights()


def _versions() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "python", f"{version} at {sys.executable}")
    for name in ("nnunetv2-retina", "nnunetv2", "torch", "numpy"):
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("wrong", name, "not installed", f"pip install {name}" if name != "nnunetv2-retina" else
                          "pip install . in the folder of the project")  # fmt: skip
            continue
        if name == "nnunetv2" and _numbers(installed) < NEEDED_NNUNET:
            needed = ".".join(map(str, NEEDED_NNUNET))
            shown = f"{installed}; {needed} or newer is needed"
            yield Finding("wrong", name, shown, f'pip install "nnunetv2>={needed}"')
        else:
            yield Finding("ok", name, installed)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding("ok", "device", f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        return
    built = f"PyTorch was built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch has no CUDA"
    yield Finding(
        "note",
        "device",
        f"no usable CUDA GPU ({built}); {os.cpu_count()} processor cores",
        "add -device cpu to nnUNetv2_train and nnUNetv2_predict. If there is a GPU, nvidia-smi should list it",
    )


def _folders() -> Iterator[Finding]:
    noted = registration.noted_folders()
    for name in registration.FOLDERS:
        value = os.environ.get(name)
        if not value:
            yield Finding("wrong", name, "not set", _advice_unset(name, noted))
            continue
        folder = Path(value)
        if not folder.is_absolute():
            whole = folder.expanduser().absolute()
            advice = f'write it out, it is another folder from elsewhere: export {name}="{whole}"'
            yield Finding("wrong", name, f"{value} is not a whole path", advice)
        elif not folder.is_dir():
            yield Finding("wrong", name, f"{value} does not exist", f'mkdir -p "{value}"')
        elif not _writable(folder):
            yield Finding("wrong", name, f"{value} is not writable", "choose another folder, or ask its owner")
        else:
            yield _space(name, folder, noted.get(name) == value)


def _advice_unset(name: str, noted: Mapping[str, str]) -> str:
    """Say what to do where a variable is not set, although its folder may be noted."""
    setting = f"set {name}={noted.get(name, '/a/folder/with/space')}"
    if noted and registration.switched_off():
        return f"the folders that are noted are not read, since {registration.SWITCH} is off: unset that, or {setting}"
    if noted and (given := [other for other in registration.FOLDERS if os.environ.get(other)]):
        return f"the folders that are noted are not read, since {', '.join(given)} is set: unset that, or {setting}"
    return f"retina_doctor --init makes all three folders, and no variable is needed; or {setting}"


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _space(name: str, folder: Path, noted: bool) -> Finding:
    free = shutil.disk_usage(folder).free
    datasets = sorted(path.name for path in folder.glob("Dataset*") if path.is_dir())
    origin = "; noted by retina_doctor --init" if noted else ""
    text = f"{folder} ({free / 2**30:.0f} GiB free; {len(datasets)} data sets{origin})"
    if free < LITTLE_SPACE:
        return Finding("note", name, text, "little space is left: preprocessed data and checkpoints need more")
    return Finding("ok", name, text)


def _processes() -> Iterator[Finding]:
    """Report numbers of processes that stop nnU-Net with a traceback."""
    for name, least in (("nnUNet_n_proc_DA", 0), ("nnUNet_def_n_proc", 1), ("nnUNet_npp", 0), ("nnUNet_nps", 0)):
        text = os.environ.get(name)
        if text is None:
            continue
        if not text.strip().isdecimal() or int(text) < least:
            yield Finding("wrong", name, f"is {text!r}; nnU-Net needs a whole number from {least}", f"unset {name}")
        elif name == "nnUNet_n_proc_DA" and int(text) == 0:
            yield Finding(
                "note", name, "is 0: fine for training, but it stops nnUNetv2_plan_and_preprocess",
                f"plan with: {name}=1 nnUNetv2_plan_and_preprocess ...",
            )  # fmt: skip


def _preprocessed() -> Iterator[Finding]:
    """Report data sets that NumPy 2 has preprocessed, if this NumPy does not know the names in their files."""
    root = os.environ.get("nnUNet_preprocessed")
    if not root or importlib.util.find_spec("numpy._core") is not None:
        return
    for folder in sorted(Path(root).glob("Dataset*")):
        example = next(folder.glob("*/*.pkl"), None)
        if example is not None and b"numpy._core" in example.read_bytes():
            yield Finding(
                "wrong", folder.name, "was preprocessed under NumPy 2; training under this one stops with a traceback",
                'pip install "numpy>=2", or preprocess it again here',
            )  # fmt: skip


def _trainer_by_name(name: str) -> type[Any]:
    """Return the trainer that nnU-Net finds."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # nnU-Net prints where it looks
        warnings.simplefilter("ignore")
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        trainer: type[Any] = recursive_find_trainer_class_by_name(name)
        return trainer


def _registration() -> Iterator[Finding]:
    if registration.switched_off():
        yield Finding(
            "note",
            "registration",
            f"switched off by {registration.SWITCH}",
            f"unset {registration.SWITCH}, or export {registration.VARIABLE}={registration.external_folder()}",
        )
    try:
        trainer = _trainer_by_name("nnUNetTrainerRETINA")
        from nnunetv2_retina.training.trainers import nnUNetTrainerRETINA
    except Exception as error:
        yield Finding(
            "wrong",
            "registration",
            f"nnU-Net does not find the trainers ({type(error).__name__}: {str(error).splitlines()[0]})",
            "install with pip install . (or pip install -e .) into this environment, and start a new shell",
        )
        return
    if trainer is nnUNetTrainerRETINA:
        yield Finding("ok", "registration", "nnU-Net finds nnUNetTrainerRETINA and its variants")
    else:
        yield Finding(
            "wrong",
            "registration",
            f"nnU-Net finds another nnUNetTrainerRETINA, of module {trainer.__module__}",
            f"remove the folder that holds it from {registration.VARIABLE}={os.environ.get(registration.VARIABLE)}",
        )


def _weights() -> Iterator[Finding]:
    from nnunetv2_retina.training.weights_request import VARIABLE, requested_weights
    from nnunetv2_retina.weights import checkpoint, compatibility

    try:
        request = requested_weights()
    except RetinaError as error:
        yield Finding("wrong", "weights", str(error), f"set ${VARIABLE} to a file or a name, or unset it")
        return
    if request is None:
        yield Finding(
            "note",
            "weights",
            f"${VARIABLE} is not set: without -pretrained_weights FILE, nnUNetTrainerRETINA trains from scratch",
            f"export {VARIABLE}=/path/to/checkpoint.pth, or give -pretrained_weights",
        )
        return
    try:
        shapes = compatibility.shapes_of(checkpoint.load(request.path).weights)
        size = compatibility.describe_size(shapes)
    except RetinaError as error:
        yield Finding("wrong", "weights", str(error), f"set ${VARIABLE} to another file, or unset it")
        return
    trainer = compatibility.trainer_for(shapes)
    variants = " and its variants" if "RETINA" in trainer else ""
    yield Finding("ok", "weights", f"{request.path}: {size}; for {trainer}{variants}")
