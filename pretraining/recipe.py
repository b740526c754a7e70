"""The settings of a pre-training: what defines its result, and how it is carried out. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nnunetv2_retina.console import setting
from nnunetv2_retina.errors import RetinaError, shorten
from nnunetv2_retina.protocol import ATTENTION, POSITIONS
from pretraining.augmentation.draws import AugmentationSettings
from pretraining.recipes import ARMS, BELONGS, BLANKING, RECIPES, belongs

if TYPE_CHECKING:
    from nnunetv2_retina.network import NetworkConfig

SIZE_NAMES = ("retina", "base", "tiny")
POWER = 0.9
"""Of the polynomial decay of the learning rate, stepped every iteration."""
STRIDE, SIDE = 16, 224
"""Pixels of a cell of the token grid, and of a packed image."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What defines the weights. The defaults are the published recipe (Xing et al. 2025; BaderLab/RETINA), which holds
    for the network size ``base`` there and ``retina`` here: see the README.

    Raises:
        RetinaError: with every problem of the values.
    """

    size: str = setting("retina", "size of the network", choices=SIZE_NAMES)
    arm: str = setting(
        "reconstruction",
        "what is learned; distil: the features of an ImageNet network, masked: blanked cells, simmim: the same "
        "without a decoder, mae: transformer alone, simclr: CNN alone",
        choices=ARMS,
    )
    epochs: float = setting(200.0, "how often every image is seen; not used with --iterations")
    iterations: int | None = setting(None, "optimiser steps, instead of --epochs")
    batch_size: int = setting(256, "images a step, over all processes together")
    norm_batch: int = setting(
        16, "images that a batch norm of the decoder sees together, as the published 16 on each of 16 GPUs"
    )
    learning_rate: float = setting(0.003, "highest learning rate", flag="--lr")
    rate_batch: int | None = setting(
        None, "batch size that --lr is meant for: it grows in proportion to --batch-size (default: --lr as it is)"
    )
    optimiser: str = setting(
        "sgd",
        "sgd with momentum .9, lars with the same, or adamw with betas .9 and .95",
        choices=("sgd", "adamw", "lars"),
    )
    weight_decay: float = setting(1e-4, "of all parameters (sgd), or of matrices and kernels alone (adamw, lars)")
    warmup: float = setting(0.0, "steps in which the learning rate rises from 0; below 1: their share of all steps")
    schedule: str = setting("poly", "how it falls: poly (power .9) or cosine", choices=("poly", "cosine"))
    clip: float | None = setting(None, "largest norm of the gradient; longer ones are shortened (default: any)")
    crop: int | None = setting(
        None, "pixels along each side of a random part of each image, which is used alone (default: the whole image)"
    )
    positions: str = setting("zero", "position embeddings at the start", choices=POSITIONS)
    attention: str = setting(
        "random",
        "attention weights at the start: random as published, or near those of trained ones (Trockman, Kolter 2023)",
        choices=ATTENTION,
    )
    seed: int = setting(0, "of initialisation, order, augmentation and dropout")
    balance: float = setting(
        0.0, "draw an image of a source with n images with weight n^-GAMMA; 0: every image once an epoch",
        metavar="GAMMA",
    )  # fmt: skip
    blanked: float = setting(
        0.4, "distil, masked, simmim: share of the 16 px cells of an image that the network does not see"
    )
    block: int = setting(1, "distil, masked, simmim: cells along each side of a square that is blanked as one")
    hide_skips: bool = setting(False, "masked: no skip connection where a cell is blanked")
    restore: float = setting(0.0, "distil: weight of restoring the image, too, which trains the decoder")
    decoder_blocks: int = setting(4, "mae: transformer blocks of the decoder that is thrown away")
    dropout: float | None = setting(None, "dropout during the pre-training (default: the network's, .1)", metavar="P")
    masked_loss: bool = setting(False, "reconstruction: count only pixels that were changed")
    skip_drop: float = setting(0.0, "reconstruction: probability of dropping a skip connection", metavar="P")
    two_terms: bool = setting(False, "reconstruction: add the loss without skip connections to that with them")
    momentum: float = 0.9
    """Of SGD; of AdamW the first of its betas."""
    second_beta: float = 0.95
    """Of AdamW."""
    exclude: tuple[str, ...] = ()
    """Patterns (``*`` and ``?``) of image names that are left out."""
    init: str | None = None
    """Fingerprint of the weights to start from; None: random initialisation."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        problems = [text for text in (*_wrong_choices(self), *self._number_problems(), *self._arm_problems()) if text]
        if problems:
            raise RetinaError(f"settings of the pre-training: {'; '.join(problems)}. Correct them")

    @classmethod
    def named(cls, name: str, **settings: Any) -> Recipe:
        """Return a recipe of ``RECIPES``; ``settings`` replace some of its values.

        Raises:
            RetinaError: for an unknown name, or with every problem of the values.
        """
        if name not in RECIPES:
            raise RetinaError(f"recipe is {name!r}; expected one of {', '.join(RECIPES)}")
        return cls(**{**RECIPES[name], **settings})

    def _number_problems(self) -> list[str | None]:
        return [
            _above(0, epochs=self.epochs),
            _above(0, iterations=1 if self.iterations is None else self.iterations),
            _above(0, batch_size=self.batch_size, norm_batch=self.norm_batch),
            _above(0, learning_rate=self.learning_rate, rate_batch=1 if self.rate_batch is None else self.rate_batch),
            _above(0, decoder_blocks=self.decoder_blocks),
            None if 0 <= (self.dropout or 0) < 1 else f"dropout is {self.dropout}; expected 0 to below 1",
            _above(0, clip=1 if self.clip is None else self.clip),
            None
            if 0 <= self.warmup < 1 or (self.warmup >= 1 and float(self.warmup).is_integer())
            else f"warmup is {self.warmup}; expected a whole number of steps, or below 1 their share of all",
            None if 0 <= self.momentum < 1 else f"momentum is {self.momentum}; expected 0 to below 1",
            None if 0 <= self.second_beta < 1 else f"second_beta is {self.second_beta}; expected 0 to below 1",
            None if self.weight_decay >= 0 else f"weight_decay is {self.weight_decay}; expected 0 or more",
            None if 0 <= self.seed < 2**63 else f"seed is {self.seed}; expected 0 to 2^63 - 1",
            None if 0 <= self.balance <= 1 else f"balance is {self.balance}; expected 0 to 1",
            _above(0, block=self.block),
            None if 0 <= self.restore < math.inf else f"restore is {self.restore}; expected 0 or more",
            None if 0 <= self.blanked < 1 else f"blanked is {self.blanked}; expected 0 to below 1",
            None if 0 <= self.skip_drop <= 1 else f"skip_drop is {self.skip_drop}; expected 0 to 1",
        ]

    def _arm_problems(self) -> list[str | None]:
        crop = self.crop or SIDE
        return [
            None
            if crop % STRIDE == 0 and 2 * STRIDE <= crop <= SIDE
            else f"crop is {crop}; expected a multiple of {STRIDE} from {2 * STRIDE} to {SIDE}",
            self._blanking_problem(crop),
            *self._foreign_settings(),
            "two_terms needs the skip connections that skip_drop 1 drops"
            if self.two_terms and self.skip_drop == 1
            else None,
        ]

    def _blanking_problem(self, crop: int) -> str | None:
        """Say where no cell would be blanked, or all of them."""
        if self.arm not in BLANKING or (self.arm == "distil" and not self.blanked):
            return None
        if not self.blanked:
            return f"blanked is 0, which leaves {self.arm} nothing to learn"
        squares = math.ceil(crop / STRIDE / max(1, self.block)) ** 2
        if 1 <= (blank := round(self.blanked * squares)) < squares:
            return None
        return (
            f"blanked is {self.blanked}: {blank} of the {squares} squares of block {self.block} in a crop of {crop}; "
            f"expected at least one that is blanked and one that is seen. Take another share or a smaller block"
        )

    def _foreign_settings(self) -> list[str]:
        """Say which settings were given that do nothing in this arm."""
        given = [entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default]
        arms = {**{name: shorten(arms) for name, arms in BELONGS.items()}, "norm_batch": "what trains the decoder"}
        return [f"{name} belongs to {arms[name]}, not to {self.arm}" for name in given if not self._matters(name)]

    def _matters(self, name: str) -> bool:
        """Tell whether a setting has an effect."""
        return self.trains_decoder if name == "norm_batch" else belongs(name, self.arm)

    @property
    def network(self) -> NetworkConfig:
        """Return the sizes of the network."""
        from nnunetv2_retina.network import NetworkConfig

        config = NetworkConfig.named(self.size)
        return config if self.dropout is None else replace(config, dropout=self.dropout)

    @property
    def highest_rate(self) -> float:
        """Return the highest learning rate, for this batch size."""
        return self.learning_rate * (1 if self.rate_batch is None else self.batch_size / self.rate_batch)

    @property
    def trains_decoder(self) -> bool:
        """Tell whether the decoder, which has the batch norms, takes part."""
        return self.arm in ("reconstruction", "masked") or self.restore > 0

    @property
    def normed_together(self) -> int | None:
        """Return how many consecutive images of a batch share a batch norm; None where no batch norm is trained.

        A batch that ``norm_batch`` does not divide has groups of almost equal size.
        """
        if not self.trains_decoder:
            return None
        return math.ceil(self.batch_size / math.ceil(self.batch_size / self.norm_batch))

    @property
    def seen_together(self) -> int | None:
        """Return how many images a batch norm or a contrast sees together; None where no image matters to another."""
        return self.batch_size if self.arm == "simclr" else self.normed_together

    def total_iterations(self, images: int) -> int:
        """Return the optimiser steps of the whole run, for so many images; the last step may begin another epoch."""
        return self.iterations or max(1, math.ceil(self.epochs * images / self.batch_size - 1e-9))

    def learning_rate_at(self, iteration: int, total: int) -> float:
        """Return the learning rate of an optimiser step, counted from 0."""
        rising = self.warmup if self.warmup >= 1 else round(self.warmup * total)
        if iteration < rising:
            return self.highest_rate * (iteration + 1) / rising
        done = (iteration - rising) / (total - rising)
        if self.schedule == "cosine":
            return self.highest_rate * (1 + math.cos(math.pi * done)) / 2
        return float(self.highest_rate * (1 - done) ** POWER)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists, for checkpoints and JSON files."""
        values = asdict(self) | {"augmentation": self.augmentation.to_dict()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Say in words where another run's ``to_dict`` differs from this one's.

        A setting that the record lacks did not exist when it was written: that run did what the default does.
        """
        mine, theirs = self.to_dict(), {**Recipe().to_dict(), **recorded}
        names = [entry.name for entry in fields(self) if mine[entry.name] != theirs[entry.name]]
        names = [name for name in names if self._matters(name)]  # earlier versions took others and ignored them
        return [f"{name} {theirs[name]!r} there, {mine[name]!r} now" for name in names]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is carried out: it may change whenever the run is continued.

    Raises:
        RetinaError: with every problem of the values.
    """

    device: str = setting("auto", "auto: the GPU if there is one", choices=("auto", "cuda", "cpu"))
    precision: str = setting(
        "auto",
        "auto: bf16 where the device multiplies it natively, else fp16 on GPUs, fp32 on CPUs",
        choices=("auto", "bf16", "fp16", "fp32"),
    )
    compile: str = setting("auto", "torch.compile; auto: on GPUs", choices=("auto", "on", "off"))
    micro_batch: int | None = setting(
        None,
        "images a process computes at once, whole groups of --norm-batch; gradients are accumulated (default: what "
        "fits; about 16 on CPUs)",
    )
    workers: int = setting(2, "threads that read images ahead, in each process")
    checkpoint_minutes: float = setting(
        15.0, "time between checkpoints within an epoch; one is also written after each", metavar="N"
    )
    keep_every: int = setting(20, "epochs between checkpoints that are kept; 0: only the last")
    measure_every: int = setting(
        1,
        "epochs between measurements of the held-out images, each with pictures and a checkpoint; more for few",
    )
    probe: str | None = setting(
        None,
        "at each measurement also say what the features know of a label: AUC of a ridge regression on one labelled "
        "section of this data set in $nnUNet_raw",
        metavar="DATASET",
    )
    probe_label: int = setting(1, "the class", metavar="N")
    tensorboard: bool = setting(False, 'also log for TensorBoard (pip install "nnunetv2-retina[tensorboard]")')

    def __post_init__(self) -> None:
        problems = _wrong_choices(self)
        micro_batch = 1 if self.micro_batch is None else self.micro_batch
        numbers = _above(0, micro_batch=micro_batch, workers=self.workers, measure_every=self.measure_every)
        if numbers:
            problems.append(numbers)
        if self.probe is None and self.probe_label != 1:
            problems.append(f"probe_label is {self.probe_label} without probe, which it belongs to")
        if self.checkpoint_minutes < 0 or self.keep_every < 0:
            problems.append("checkpoint_minutes and keep_every must be 0 or more")
        if problems:
            raise RetinaError(f"settings of the pre-training: {'; '.join(problems)}. Correct them")


def _wrong_choices(settings: Recipe | Execution) -> list[str]:
    allowed = {entry.name: entry.metadata.get("option", {}).get("choices") for entry in fields(settings)}
    return [
        f"{name} is {getattr(settings, name)!r}; expected one of {', '.join(choices)}"
        for name, choices in allowed.items()
        if choices and getattr(settings, name) not in choices
    ]


def _above(least: float, **values: float) -> str | None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not least < value < math.inf]
    return f"{shorten(wrong)}; expected a number above {least:g}" if wrong else None
