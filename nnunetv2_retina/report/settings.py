"""The settings of a model's report, which are options of ``retina_report`` too. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_retina.console import setting
from nnunetv2_retina.errors import RetinaError


@dataclass(frozen=True)
class ReportSettings:
    """What to report on.

    Raises:
        RetinaError: for predictions without ground truths, or the other way round, images that are not there, or no
            time to wait.
    """

    folds: Sequence[str] | None = None
    """None: every numbered fold with a checkpoint, else fold_all."""
    predictions: Path | None = setting(
        None, "label files to score, with --labels (default: nnU-Net's validation predictions)", metavar="FOLDER"
    )
    labels: Path | None = setting(None, "their ground truths, such as labelsTs", metavar="FOLDER")
    images: Path | None = setting(
        None,
        "images to show, such as imagesTs (default, for validation predictions: imagesTr of the raw data set)",
        metavar="FOLDER",
    )
    distances: bool = setting(
        True,
        "without Mean False Distance and CREMI's scores, which take most of the time",
        flag="--no-distances",
    )
    watch: int | None = setting(
        None, "write the page anew every so many seconds while the training goes on; the browser follows",
        metavar="SECONDS",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if (self.predictions is None) != (self.labels is None):
            got, lacks = ("--predictions", "--labels") if self.labels is None else ("--labels", "--predictions")
            raise RetinaError(
                f"{got} was given without {lacks}; expected both, a folder of predictions and one of their ground "
                "truths. Leave both out to report on nnU-Net's validation predictions"
            )
        if self.watch is not None and self.watch < 1:
            raise RetinaError(f"--watch is {self.watch}; expected 1 second or more, such as 30")
        if self.images is not None and not self.images.is_dir():
            raise RetinaError(f"--images {self.images} is not a folder; expected one with CASE_0000 and so on")
