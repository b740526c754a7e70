"""The ``retina`` block of an nnU-Net ``dataset.json``: how a data set is trained, split and evaluated.

Converters write it, nnU-Net carries it unchanged from raw to preprocessed to results, the trainers and the evaluation
read it. A data set without the block gets the defaults below.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import NANOMETRES, Spacing
from nnunetv2_retina.protocol.kinds import (
    are_label_values,
    fold_fault,
    is_fold,
    is_int,
    is_number,
    is_pair,
    is_text_table,
)

BLOCK = "retina"
INFERENCE_MODES = ("stack", "orthoplane")
MASK_RULES = ("none", "foreground", "instance_match")
SCORE_UNITS = ("volume", "slice")
OPTIMISERS = ("sgd", "adamw")
LOSSES = ("released", "squared", "cross_entropy")
SCHEDULES = ("poly", "onecycle")
POSITIONS = ("zero", "sine")
ATTENTION = ("random", "mimetic")
EARLIER: Mapping[str, Any] = {"loss": "squared"}
"""What trainings did before there was a key for it, where that is not the key's default."""
NNUNET_CLIP = 12.0
"""Norm at which nnU-Net shortens gradients."""

FEW_LABELS: Mapping[str, Any] = {
    "weights": "open",
    "optimiser": "adamw",
    "learning_rate": 0.001,
    "warmup": 0.1,
    "transferred_rate": 0.3,
}
"""Settings that suit few labelled images and weights from distillation: docs/study.md, "Few labels"."""


def iteration_checkpoint(iteration: int) -> str:
    """Return the name of the checkpoint after that many optimiser steps: see ``Protocol.checkpoints``."""
    return f"checkpoint_iteration_{iteration:06d}.pth"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of one data set. Field names are the keys of the JSON block.

    Raises:
        RetinaError: for a value of the wrong type or out of its range.
    """

    iterations: int = 5000
    """Optimiser steps of a whole training (RETINA Table 1: 1000 to 10000)."""
    iterations_per_epoch: int = 100
    """Steps between two validations, log lines and checkpoints; the last epoch may be shorter."""
    checkpoints: tuple[int, ...] | None = None
    """Optimiser steps after which a checkpoint of its own is kept (``iteration_checkpoint``), to predict with
    ``-chk``: strictly increasing, from 1 to ``iterations``. None: no others than nnU-Net's."""
    weights: str | None = None
    """Pre-trained weights that trainings start from where neither ``-pretrained_weights`` nor ``$RETINA_WEIGHTS`` says:
    a file, or ``open``, those in the package."""
    learning_rate: float = 0.003
    """At the first step, or the highest of ``onecycle``. RETINA's 0.003 suits pre-trained weights; a short training
    from random initialisation gets further with 0.03."""
    optimiser: str = "sgd"
    """``sgd``: as published; ``adamw``: with a rate of about 0.001."""
    weight_decay: float | None = None
    """None: 1e-4 for SGD, 0.05 for AdamW."""
    decay_all: bool = False
    """AdamW: whether norms, biases and positions decay, too, as PyTorch has it and as they do with SGD."""
    schedule: str = "poly"
    """``poly``: the rate falls to 0 with power 0.9, as published; ``onecycle``: PyTorch's ``OneCycleLR`` with its
    defaults, as the CEM500K project trains its U-Net."""
    schedule_iterations: int | None = None
    """Optimiser steps over which the schedule runs, at least ``iterations``. None: those. (In the released code the
    rate falls over 10000 or 3000 steps, of which Table 1 reads the first 1000 to 10000.)"""
    loss: str = "released"
    """``released``: half cross entropy, half Dice, which for two plain classes is the foreground's, without squares, as
    in the released code; ``squared``: the Dice of all classes, with squares, for two classes, too; ``cross_entropy``:
    that alone, as CEM500K's benchmarks have it."""
    clip: float | None = NNUNET_CLIP
    """Norm to which longer gradients are shortened; nnU-Net's by default, None (JSON: null): none are, as released."""
    foreground: float | None = None
    """Probability that a patch holds a pixel of a class that is drawn. None: nnU-Net's third of each batch."""
    frozen_dropout: bool = False
    """Whether dropout goes on in frozen blocks during training, as in the released code."""
    warmup: float = 0.0
    """Share of the iterations, below 1, over which the rate rises from 0."""
    transferred_rate: float = 1.0
    """Factor, above 0 and at most 1, of the learning rate for what came from pre-trained weights and is not frozen."""
    thaw: float = 0.0
    """Share of the iterations, below 1, during which what came from pre-trained weights stays as it is (but for the
    statistics of batch norms in a decoder that was taken)."""
    positions: str = "zero"
    """Of the TransUNet: position embeddings at the start, where no weights bring theirs. ``zero``: as published;
    ``sine``: what pre-training by distillation begins with, so that initialisation is not taken for pre-training."""
    attention: str = "random"
    """Of the TransUNet: attention weights at the start, where no weights bring theirs. ``random``: as published;
    ``mimetic``: near what trained vision transformers have (Trockman, Kolter 2023; ``network/starts.py``)."""
    batch_size: int = 16
    """Patches per optimiser step, over all GPUs together."""
    patch_size: int = 224
    """Side of the square training patch and inference tile, in pixels."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the cross entropy, background first; None: all 1. Not with region-based training."""
    evaluated_classes: tuple[int, ...] | None = None
    """Label values that count in the mean score; None: every foreground class."""
    inference: str = "stack"
    """``stack``: slice by slice along the first axis; ``orthoplane``: the mean over xy, xz and yz."""
    mask_rule: str = "none"
    """What of a prediction is scored. ``none``: all of it (ignored voxels apart); ``foreground``: only where the truth
    is not background (Guay); ``instance_match``: only connected components that touch one of the truth (Perez)."""
    score_unit: str = "volume"
    """What one score is computed on before the mean: ``volume``: a case; ``slice``: each image of it (Kasthuri++)."""
    distance_tolerance: float | None = None
    """nm. Score the classes as the CREMI challenge does, too: voxels further than this from any of the other set are
    false (CREMI: 200). None: without these scores."""
    normalisation: tuple[float, float] | None = None
    """Mean and standard deviation of grey levels 0 to 1 that CEM500K's benchmarks use. For reference: nnU-Net
    normalises each case by its own."""
    groups: Mapping[str, str] | None = None
    """Case name -> name of the volume it was cut from; cases of one volume fall in the same part of every split."""
    folds: tuple[Mapping[str, list[str]], ...] | None = None
    """Fixed splits, each ``{"train": [cases], "val": [cases]}``; None: cross-validation over the groups."""
    spacing_unit: str | None = None
    """Unit of the spacing in the data set's files: ``nm``, or None where it is not known. Converters write it."""
    pixel_size: tuple[float, float] | None = None
    """nm along y and x, of images in two axes, whose PNG and TIFF files hold none; None: not known, or not the same for
    all. Converters write it."""
    source: str | None = None
    """Where the values come from: a paper's section or table."""

    def __post_init__(self) -> None:
        problems = [
            *self._number_problems(),
            *self._checkpoint_problems(),
            *self._class_problems(),
            *self._choice_problems(),
            *self._split_problems(),
        ]
        if problems:
            raise RetinaError(
                f'training settings (block "{BLOCK}" of dataset.json): {"; ".join(problems)}. Correct them'
            )

    def _number_problems(self) -> list[str]:
        problems = []
        for name, least in (("iterations", 1), ("iterations_per_epoch", 1), ("batch_size", 1), ("patch_size", 16)):
            value = getattr(self, name)
            if not is_int(value) or value < least:
                problems.append(f"{name} is {value!r}; expected a whole number of at least {least}")
        if not is_number(self.learning_rate) or self.learning_rate <= 0:
            problems.append(f"learning_rate is {self.learning_rate!r}; expected a number above 0")
        for name in ("warmup", "thaw"):
            share = getattr(self, name)
            if not is_number(share) or not 0 <= share < 1:
                problems.append(f"{name} is {share!r}; expected a share of the iterations, from 0 to below 1")
        problems += self._optimisation_problems()
        if not is_number(self.transferred_rate) or not 0 < self.transferred_rate <= 1:
            problems.append(f"transferred_rate is {self.transferred_rate!r}; expected a factor above 0, at most 1")
        tolerance = self.distance_tolerance
        if tolerance is not None and not (is_number(tolerance) and tolerance >= 0):
            problems.append(f"distance_tolerance is {tolerance!r}; expected a number of at least 0, in nm")
        size: object = self.pixel_size
        if size is not None and not (is_pair(size) and all(side > 0 for side in size)):
            problems.append(f"pixel_size is {size!r}; expected two numbers above 0, nm along y and x")
        pair: object = self.normalisation
        if pair is not None and not (is_pair(pair) and pair[1] > 0):
            problems.append(f"normalisation is {pair!r}; expected two numbers, mean and standard deviation")
        return problems

    def _optimisation_problems(self) -> list[str]:
        problems = []
        decay: object = self.weight_decay
        if decay is not None and not (is_number(decay) and decay >= 0):
            problems.append(f"weight_decay is {decay!r}; expected a number of at least 0")
        clip: object = self.clip
        if clip is not None and not (is_number(clip) and clip > 0):
            problems.append(f"clip is {clip!r}; expected a number above 0, or null for none")
        share: object = self.foreground
        if share is not None and not (is_number(share) and 0 <= share <= 1):
            problems.append(f"foreground is {share!r}; expected a probability from 0 to 1")
        length: object = self.schedule_iterations
        if length is not None and not (is_int(length) and is_int(self.iterations) and length >= self.iterations):
            problems.append(
                f"schedule_iterations is {length!r}; expected a whole number of at least iterations ({self.iterations})"
            )
        if self.schedule == "onecycle" and self.warmup:
            problems.append(f"warmup is {self.warmup}; expected 0 with schedule onecycle, which has its own")
        for name in ("frozen_dropout", "decay_all"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name} is {getattr(self, name)!r}; expected true or false")
        return problems

    def _checkpoint_problems(self) -> list[str]:
        steps: object = self.checkpoints
        if steps is None or not is_int(self.iterations):
            return []
        if isinstance(steps, tuple) and steps and all(map(is_int, steps)):
            increasing = all(before < after for before, after in pairwise(steps))
            if increasing and steps[0] >= 1 and steps[-1] <= self.iterations:
                return []
        return [
            f"checkpoints is {steps!r}; expected a list of whole numbers, each larger than the one before it, from 1 "
            f"to iterations ({self.iterations})"
        ]

    def _choice_problems(self) -> list[str]:
        choices: dict[str, tuple[str | None, ...]] = {
            "inference": INFERENCE_MODES,
            "mask_rule": MASK_RULES,
            "score_unit": SCORE_UNITS,
            "spacing_unit": (NANOMETRES, None),
            "optimiser": OPTIMISERS,
            "loss": LOSSES,
            "schedule": SCHEDULES,
            "positions": POSITIONS,
            "attention": ATTENTION,
        }
        return [
            f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(str, known))}"
            for name, known in choices.items()
            if getattr(self, name) not in known
        ]

    def _class_problems(self) -> list[str]:
        problems = []
        weights: object = self.class_weights
        classes: object = self.evaluated_classes
        if weights is not None:
            if not isinstance(weights, tuple) or not all(is_number(w) and w >= 0 for w in weights):
                problems.append(f"class_weights is {weights!r}; expected a list of numbers >= 0, background first")
            elif not any(weights):
                problems.append(f"class_weights is {weights!r}; at least one must be above 0")
        if classes is not None and not are_label_values(classes):
            problems.append(
                f"evaluated_classes is {classes!r}; expected a list of label values, at least one and each once"
            )
        return problems

    def _split_problems(self) -> list[str]:
        problems = []
        groups: object = self.groups
        folds: object = self.folds
        if groups is not None and not is_text_table(groups):
            problems.append(f"groups is {groups!r}; expected an object of case name -> volume name")
        if folds is not None and not (isinstance(folds, tuple) and folds and all(map(is_fold, folds))):
            problems.append(f'folds is {folds!r}; expected a list of {{"train": [cases], "val": [cases]}}')
        else:
            faults = [fold_fault(fold) for fold in self.folds or ()]
            problems += [f"fold {number} of folds {fault}" for number, fault in enumerate(faults) if fault]
        for name in ("source", "weights"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                problems.append(f"{name} is {value!r}; expected a text")
        return problems

    @classmethod
    def from_dataset_json(cls, dataset_json: Mapping[str, Any]) -> Protocol:
        """Read the block of a loaded ``dataset.json``; the defaults where there is none.

        Raises:
            RetinaError: for an unknown key, or a value of the wrong type or range.
        """
        block = dataset_json.get(BLOCK, {})
        if not isinstance(block, Mapping):
            raise RetinaError(
                f'dataset.json: "{BLOCK}" is {type(block).__name__}; expected an object of settings. Correct it there.'
            )
        known = [field.name for field in fields(cls)]
        unknown = [key for key in block if key not in known]
        if unknown:
            guess = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f" Did you mean {guess[0]}?" if guess else ""
            raise RetinaError(
                f'dataset.json, block "{BLOCK}": unknown key {", ".join(map(repr, unknown))}; '
                f"known are {', '.join(known)}.{hint}"
            )
        settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in block.items()}
        return cls(**settings)

    def to_json(self, complete: bool = False, stated: Collection[str] = ()) -> dict[str, Any]:
        """Return the block as JSON holds it: settings that differ from the defaults, lists instead of tuples.

        Args:
            complete: also those that are the defaults, but not those that are None.
            stated: names of settings that are there in any case: what a user has said, a trainer of other defaults
                must know.
        """
        default = Protocol()
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value != getattr(default, key) or key in stated or (complete and value is not None)
        }


def with_usual(dataset_json: dict[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a dataset.json with settings added to its block where that does not have them."""
    block = dataset_json.get(BLOCK, {})
    if not usual or not isinstance(block, Mapping):  # the latter is refused when it is read
        return dataset_json
    if block.get("schedule") == "onecycle":  # has a warm-up of its own
        usual = {name: value for name, value in usual.items() if name != "warmup"}
    return {**dataset_json, BLOCK: {**usual, **block}}


def with_unit(spacing: Spacing, dataset_json: Mapping[str, Any]) -> Spacing:
    """Return a spacing that was read from a file of a data set, with the unit that its ``dataset.json`` says.

    Earlier versions of ``retina_convert`` wrote no unit: their spacing is in nm, unless pixels are of size 1 x 1, which
    stands for unknown there and in nnU-Net.
    """
    unit = Protocol.from_dataset_json(dataset_json).spacing_unit
    if unit is None and "converted_by" in dataset_json and (spacing.y, spacing.x) != (1, 1):
        unit = NANOMETRES
    return replace(spacing, unit=unit)
