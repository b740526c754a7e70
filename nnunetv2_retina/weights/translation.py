"""What became of each tensor of a file on its way to this project's names, and the same in a few lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from torch import Tensor

from nnunetv2_retina.weights.compatibility import Config


@dataclass(frozen=True)
class Step:
    """One tensor on its way from a file into this project's network."""

    source: str | None
    """Its name in the file; None if the file has no such tensor."""
    target: str | None
    """Its name here; None if it is dropped."""
    done: str
    """What was done to it, or why it was dropped."""


class Translated(NamedTuple):
    """Weights by this project's names."""

    config: Config
    weights: dict[str, Tensor]
    steps: list[Step]


def stripped(name: str) -> str:
    """Return a tensor's name without what PyTorch's wrappers put before it."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


# The numbers of layers in all spellings (block2/unit10/, encoderblock_3/, stages.0.1., blocks.4.), but no others; the
# parameters of batch norms, and what MoCo's files hold twice.
_LAYERS = (
    (re.compile(r"\bstages\.\d+\.\d+\."), "stages.*.*."),
    (re.compile(r"\b(stages|blocks|layer)\.\d+\."), r"\1.*."),
    (re.compile(r"\blayer\d+\.\d+\."), "layer*.*."),
    (re.compile(r"\b(bn\d|downsample\.1)\.\w+$"), r"\1.*"),
    (re.compile(r"\bencoder_k\..+"), "encoder_k.*"),
    (re.compile(r"\b(encoderblock_|block|unit)\d+(?=[/.])"), r"\1*"),
)


def summarise(steps: Iterable[Step]) -> list[str]:
    """Return one line for all tensors that differ only in the layer's number: how many, from where, to where, what."""
    groups: dict[tuple[str, str, str], list[Step]] = {}
    for step in steps:
        target = _without_layers(step.target or "") if step.source else ""
        groups.setdefault((_without_layers(step.source or ""), target, step.done), []).append(step)
    lines = []
    for (source, target, done), members in groups.items():
        if len(members) == 1:
            source, target = members[0].source or "", members[0].target or ""
        elif not source:
            target = _common(member.target or "" for member in members)
        arrow = f"{source or '(not in the file)'} -> {target or '(dropped)'}"
        lines.append(f"{len(members):4} x {arrow}: {done}")
    return lines


def _without_layers(name: str) -> str:
    for pattern, text in _LAYERS:
        name = pattern.sub(text, name)
    return name


def _common(names: Iterable[str]) -> str:
    """Return the parts that all dotted names begin with, and a star."""
    parts = takewhile(lambda column: len(set(column)) == 1, zip(*(name.split(".") for name in names), strict=False))
    return ".".join([*(column[0] for column in parts), "*"])
