"""The published scores, to stand beside a study's own. Nothing here enters any computation.

Source: Xing, Xie, Bader, PLoS Comput Biol 21(5):e1013115 (2025), Table 1 and, for the four organelles of Perez, the
tables per class. Test IoU, mean of 3 runs of each system, after the stated number of iterations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SOURCE = "Xing, Xie, Bader, PLoS Comput Biol 2025, Table 1: test IoU, mean of 3 runs"
METRIC = "iou"
"""The only metric the table has."""

SYSTEMS = (
    "UNet-RN50 random",
    "UNet-RN50 CEM500K",
    "2D TransUNet random",
    "3D TransUNet random",
    "nnU-Net 3d_fullres",
    "RETINA",
)


@dataclass(frozen=True)
class Published:
    """A row of the table."""

    iterations: int
    iou: Mapping[str, float]
    """System -> score; systems the paper has no number of are absent."""


def _row(iterations: int, *scores: float | None) -> Published:
    known = {system: score for system, score in zip(SYSTEMS, scores, strict=True) if score is not None}
    return Published(iterations, MappingProxyType(known))


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "CREMI": _row(5000, 0.000, 0.246, 0.294, 0.313, 0.243, 0.327),
        "Guay": _row(2500, 0.452, 0.468, 0.266, 0.493, 0.495, 0.552),
        "Kasthuri++": _row(10000, 0.904, 0.915, 0.894, 0.905, 0.898, 0.916),
        "Perez": _row(2500, 0.850, 0.905, 0.893, None, None, 0.919),
        "Perez lysosomes": _row(2500, 0.845, 0.854, 0.845, None, None, 0.885),
        "Perez mitochondria": _row(2500, 0.841, 0.887, 0.847, None, None, 0.890),
        "Perez nuclei": _row(2500, 0.984, 0.990, 0.990, None, None, 0.991),
        "Perez nucleoli": _row(2500, 0.731, 0.889, 0.891, None, None, 0.910),
        "UroCell": _row(1000, 0.203, 0.598, 0.579, 0.573, 0.567, 0.610),
    }
)
"""Data set -> its row."""
MEANS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"Perez": frozenset(f"Perez {name}" for name in ("lysosomes", "mitochondria", "nuclei", "nucleoli"))}
)
"""Row that is a mean -> the rows it is of."""


def published(dataset: str | None, system: str | None, metric: str = METRIC) -> float | None:
    """Return the paper's score of a system on a data set; None where there is none, or for a key of None."""
    row = PUBLISHED.get(dataset or "")
    return None if row is None or metric != METRIC else row.iou.get(system or "")


def published_iterations(dataset: str | None) -> int | None:
    """Return after how many iterations the paper scored a data set; None where it did not."""
    row = PUBLISHED.get(dataset or "")
    return None if row is None else row.iterations
