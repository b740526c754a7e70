"""The description of a package of the BioImage Model Zoo, rdf.yaml, by bioimageio.spec 0.5 (``model``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.sharing import card, zoo_operations
from nnunetv2_retina.sharing.bundle import Bundle
from nnunetv2_retina.sharing.settings import About

FORMAT = "0.5.12"
"""Of bioimageio.spec, the version that packages are tested against."""
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Tensors:
    """Input and output of a model."""

    patch: tuple[int, ...]
    """Height and width of a tile, in pixels."""
    spacing: Spacing | None
    """Of a pixel; None: not known."""
    channels: tuple[str, ...]
    heads: tuple[str, ...]
    """Names of the output channels."""
    regions: bool
    """Whether the output channels overlap."""
    levels: tuple[float, float]
    """Least and greatest grey level of the test input."""


def describe(
    bundle: Bundle,
    about: About,
    tensors: Tensors,
    weights: Mapping[str, Mapping[str, Any]],
    digests: Mapping[str, str],
    attachments: Sequence[str],
) -> dict[str, Any]:
    """Return the contents of rdf.yaml.

    Args:
        bundle: the model.
        about: what its author says about it.
        tensors: what goes in and comes out.
        weights: the zoo's entries, without hashes.
        digests: SHA-256 of every file of the package.
        attachments: names of the files that the zoo has no entry of its own for.

    Raises:
        RetinaError: for a normalisation that the zoo has no operation for.
    """

    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": digests[name]}

    plan = bundle.plans["configurations"][bundle.configuration]
    operations = zoo_operations.preprocessing(plan, bundle.plans["foreground_intensity_properties_per_channel"])
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": _name(about.name or bundle.name),
        "description": about.text or f"nnU-Net model {bundle.name}: {card.folds_in_words(bundle)}",
        "authors": [{"name": author} for author in about.authors],
        "cite": [{"text": text, "doi": doi} for text, doi in card.CITATIONS.items()],
        "license": about.licence,
        "tags": [*card.TAGS, "2d"],
        "documentation": file("README.md"),
        "covers": [file("cover.png")],
        "inputs": [_input(tensors, file("test_input.npy"), operations)],
        "outputs": [_output(tensors, file("test_output.npy"))],
        "weights": {name: _with_hashes(entry, digests) for name, entry in weights.items()},
        "attachments": [file(name) for name in attachments],
    }


def _with_hashes(entry: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    made = {**entry, "sha256": digests[entry["source"]]}
    if "architecture" in entry:
        made["architecture"] = {**entry["architecture"], "sha256": digests[entry["architecture"]["source"]]}
    return made


def _input(tensors: Tensors, test: Mapping[str, str], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "id": "image",
        "description": "One slice at the pixel size that the model was trained at, in grey levels as in the file",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": identifiers(tensors.channels)},
            *({**_space(tensors, axis), "size": size} for axis, size in enumerate(tensors.patch)),
        ],
        "data": {"type": "float32", "range": [None, None]},
        "preprocessing": list(operations),
        "test_tensor": dict(test),
    }


def _output(tensors: Tensors, test: Mapping[str, str]) -> dict[str, Any]:
    one = "region" if tensors.regions else "class"
    rule = "a pixel is in a region from 0.5 on" if tensors.regions else "a pixel's label is the most probable class"
    axes = []
    for axis, size in enumerate(tensors.patch):
        space = _space(tensors, axis)
        # nnU-Net's tiles overlap by half
        axes.append({**space, "size": {"tensor_id": "image", "axis_id": space["id"]}, "halo": size // 4})
    return {
        "id": "probabilities",
        "description": f"Probability of each {one}; {rule}",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": identifiers(tensors.heads)}, *axes],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "postprocessing": zoo_operations.postprocessing(tensors.regions),
        "test_tensor": dict(test),
    }


def _space(tensors: Tensors, axis: int) -> dict[str, Any]:
    space: dict[str, Any] = {"type": "space", "id": "yx"[axis]}
    if tensors.spacing is not None and tensors.spacing.unit == "nm":
        space |= {"unit": "nanometer", "scale": float(list(tensors.spacing)[axis - 2])}
    return space


def identifiers(names: Sequence[str]) -> list[str]:
    """Return names as the zoo takes them: letters, digits and underscores, no two alike."""
    words: list[str] = []
    for name in names:
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "channel"
        word = f"_{word}" if word[0].isdigit() else word
        words.append(word if word not in words else f"{word}_{len(words)}")
    return words


def _name(text: str) -> str:
    """Return a name of the letters that the zoo allows."""
    return re.sub(r"[^A-Za-z0-9_+\- ()]", "_", text)[:_LONGEST_NAME].ljust(5, "_")
