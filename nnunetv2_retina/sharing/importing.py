"""Makes a shared package a model folder of nnU-Net again, and verifies every file of it."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_retina.errors import RetinaError, one_line
from nnunetv2_retina.files import check_zip_members, file_digest, make_folder, read_json, write_json
from nnunetv2_retina.nnunet.datasets import DATASET_JSON, RESULTS, nnunet_folder
from nnunetv2_retina.nnunet.models import PLANS_JSON
from nnunetv2_retina.sharing.bundle import FORMAT_VERSION, MANIFEST, WEIGHTS, prefix
from nnunetv2_retina.weights import containers

_DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")


def import_package(source: Path, target: Path | None = None) -> Path:
    """Make the model folder that a package was written from.

    Args:
        source: a zip archive or folder that ``retina_share`` wrote, or a copy of it.
        target: the model folder to make; None: the place below nnU-Net's results folder that it came from.

    Returns:
        The model folder.

    Raises:
        RetinaError: for a package of other software or of a newer version, a file whose hash is another, or a target
            that is there.
    """
    with _opened(source) as folder:
        manifest = _manifest(source, folder)
        _verify(source, folder, manifest)
        target = target or _home(manifest)
        if target.exists():
            raise RetinaError(f"{target} is there already. Give another folder with -o, or remove it")
        tensors = containers.read(folder / manifest["weights"]).tensors
        make_folder(target.parent, "Choose another folder with -o")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            made = Path(scratch) / "model"
            _write(made, folder, manifest, tensors)
            made.rename(target)
    return target


def _write(target: Path, source: Path, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    target.mkdir()
    for name in (PLANS_JSON, DATASET_JSON):
        write_json(target / name, read_json(source / name, "Get the package again"))
    folds: Mapping[str, Any] = manifest["folds"]
    for index, (fold, about) in enumerate(folds.items()):
        path = target / f"fold_{fold}" / manifest["checkpoint"]
        path.parent.mkdir()
        _write_checkpoint(path, about, tensors, prefix(index, len(folds)))


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Yield the folder of a package's files; from an archive, only those at its top."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise RetinaError(f"no package at {source}: no such file or folder")
    with tempfile.TemporaryDirectory(prefix="retina_share-") as scratch:
        try:
            with zipfile.ZipFile(source) as archive:
                check_zip_members(archive)
                names = archive.namelist()
                for name in names:
                    if name == Path(name).name:
                        archive.extract(name, scratch)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise RetinaError(f"{source} is no whole zip archive ({one_line(error)}). Get the package again") from error
        if any(name.endswith(f"/{PLANS_JSON}") for name in names) and MANIFEST not in names:
            raise RetinaError(
                f"{source} is an archive of nnU-Net's own. Run: nnUNetv2_install_pretrained_model_from_zip {source}"
            )
        yield Path(scratch)


def _manifest(source: Path, folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        zoo = any((folder / name).is_file() for name in _DESCRIPTIONS)
        what = "a package of the BioImage Model Zoo, but not one that retina_share made" if zoo else "no shared model"
        raise RetinaError(f"{source} is {what}: it holds no {MANIFEST}. Give what retina_share zoo or hub wrote")
    manifest = read_json(folder / MANIFEST, "Get the package again")
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise RetinaError(
            f"{source} has format version {version}, made by {manifest.get('made_by')}; this reads up to "
            f"{FORMAT_VERSION}. Install a newer nnunetv2-retina"
        )
    kinds = {"model": str, "weights": str, "checkpoint": str, "folds": dict, "sha256": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]
    if version != FORMAT_VERSION or wrong or not _is_plain(manifest):
        raise RetinaError(f"{source}: {MANIFEST} is damaged ({', '.join(wrong) or 'names'}). Get the package again")
    return manifest


def _is_plain(manifest: Mapping[str, Any]) -> bool:
    """Tell whether all names of files are names, and lead nowhere else."""
    parts = str(manifest["model"]).split("/")
    names = [manifest["weights"], manifest["checkpoint"], *manifest["sha256"], *manifest["folds"], *parts]
    return len(parts) == 2 and all(name == Path(name).name and name not in ("", "..") for name in names)


def _verify(source: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    for name in (PLANS_JSON, DATASET_JSON, manifest["weights"]):
        expected, path = manifest["sha256"].get(name), folder / name
        got = file_digest(path) if path.is_file() else "no such file"
        if got != expected:
            raise RetinaError(f"{source}: {name}: got sha256 {got}, expected {expected}. Get the package again")


def _home(manifest: Mapping[str, Any]) -> Path:
    results = nnunet_folder(RESULTS)
    if results is None:
        raise RetinaError("$nnUNet_results is not set. Set it to nnU-Net's results folder, or give a folder with -o")
    return results / str(manifest["model"])


def _write_checkpoint(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], beginning: str) -> None:
    weights = {name.removeprefix(beginning): tensor for name, tensor in tensors.items() if name.startswith(beginning)}
    axes = about.get("inference_allowed_mirroring_axes")
    content = {**about, "inference_allowed_mirroring_axes": None if axes is None else tuple(axes), WEIGHTS: weights}
    torch.save(content, path)
