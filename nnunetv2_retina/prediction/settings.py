"""The settings of a prediction, which are options of ``retina_predict`` too. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnunetv2_retina.console import setting
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import INFERENCE_MODES

SLAB_BYTES = 2**27
"""Memory for one slab: its image, its logits and what turns those into labels."""
SAME = "same"
OUTPUT_FORMATS = ("tif", "png", "nii.gz", "nrrd", "mrc", "h5", SAME)
UNITS = ("voxels", "physical")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How a model is applied.

    Raises:
        RetinaError: for an unknown mode or precision.
    """

    mode: str | None = None
    """``stack``: slice by slice; ``orthoplane``: the mean over xy, xz and yz; None: what dataset.json says."""
    mirroring: bool = setting(True, "no mirroring: faster, less accurate", flag="--disable_tta")
    """Average over the mirrored images that the trainer allows, as nnU-Net does by default."""
    batch_size: int | None = setting(None, "tiles in one forward pass (default: what suits the device)")
    precision: str | None = setting(
        None,
        "numbers that the network computes with: bf16 is faster on processors and GPUs that multiply it, and changes "
        "a few labels (default: fp16 on a GPU, as nnU-Net, else fp32)",
        choices=PRECISIONS,
    )
    step_size: float = setting(
        0.5, "distance of neighbouring tiles as a share of their size", flag="-step_size", metavar="SHARE"
    )
    force: bool = setting(False, "--orthoplane on anisotropic volumes too")
    slab_bytes: int = SLAB_BYTES
    """Memory for logits that are not yet labels."""

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in INFERENCE_MODES:
            raise RetinaError(f"inference mode is {self.mode!r}; expected one of {', '.join(INFERENCE_MODES)}")
        if self.precision not in (None, *PRECISIONS):
            raise RetinaError(f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}")


@dataclass(frozen=True, kw_only=True)
class InstanceSettings:
    """What counts as an instance.

    Raises:
        RetinaError: for a negative number or an unknown unit.
    """

    min_distance: float = setting(
        10.0,
        "centres of two instances of one region are at least this far apart; a smaller value cuts more",
        flag="--instance-distance",
        metavar="D",
    )
    min_size: float = setting(0.0, "leave out smaller instances", flag="--instance-size", metavar="S")
    units: str = setting(
        "voxels",
        "voxels: distances in voxels of the finest axis, sizes in voxels; physical: in the unit of the spacing (nm for "
        "converted data sets) and its square (2D images) or cube",
        flag="--instance-units",
        choices=UNITS,
    )

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise RetinaError(f"units of instances are {self.units!r}; expected one of {', '.join(UNITS)}")
        for name, value in (("distance", self.min_distance), ("size", self.min_size)):
            if not 0 <= value < math.inf:
                raise RetinaError(f"the smallest {name} of instances is {value}; expected a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run over a folder writes, and with how many workers.

    Raises:
        RetinaError: for a negative number of workers, an unknown format or a part that there is not.
    """

    probabilities: bool = setting(
        False,
        "also CASE.npz and CASE.pkl, for ensembles, and with --output-format tif CASE_probabilities.tif, a channel for "
        "each class; needs memory for all classes",
        flag="--save_probabilities",
    )
    output_format: str | None = setting(
        None,
        "of the labels: tif has the pixel size and the classes' colours for ImageJ; same: each image's own, of a "
        "folder of slices such a folder (default: the data set's, as nnU-Net has it)",
        choices=OUTPUT_FORMATS,
    )
    overlay: bool = setting(False, "also CASE_overlay.png: the image, or slices of it, under its labels")
    instances: InstanceSettings | None = None
    """Also CASE_instances and a table of their classes."""
    continued: bool = setting(False, "leave out cases whose files are all there", flag=("--continue_prediction", "--c"))
    parts: int = setting(
        1, "share the cases between so many runs, on any machines that see the folder, each with its -part_id",
        flag="-num_parts",
    )  # fmt: skip
    part: int = setting(0, "which of them this is, from 0", flag="-part_id")
    preparing: int = setting(
        3,
        "cases that are read and preprocessed at once, beside the prediction; 0: one after the other (default: "
        "$nnUNet_npp, or 3)",
        flag="-npp",
    )
    writing: int = setting(
        3,
        "cases that are written at once, beside the prediction; 0: one after the other (default: $nnUNet_nps, or 3)",
        flag="-nps",
    )

    def __post_init__(self) -> None:
        if self.output_format not in (None, *OUTPUT_FORMATS):
            raise RetinaError(f"format {self.output_format!r}; expected one of {', '.join(OUTPUT_FORMATS)}")
        if not 0 <= self.part < self.parts:
            most = max(0, self.parts - 1)
            raise RetinaError(f"-part_id {self.part} of -num_parts {self.parts}; expected 0 to {most}")
        if (least := min(self.preparing, self.writing)) < 0:
            raise RetinaError(f"{least} workers; expected 0 or more for -npp and -nps")
