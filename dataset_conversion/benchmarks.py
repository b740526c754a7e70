"""The five benchmarks of RETINA as eight nnU-Net data sets: labels and protocol values, each with its source.

Sources, as cited below:
  Table 1    Xing, Xie, Bader, PLoS Comput Biol 21(5):e1013115 (2025), Table 1: iterations
  released   the configuration files and train.py of that paper's released code (BaderLab/RETINA): ``released`` below
  CEM500K    Conrad, Narayan, eLife 10:e65894 (2021), and volume-em/cem-dataset: splits, classes, weights, inference,
             mean and standard deviation (the released files have Kasthuri++'s for CREMI, too, and for UroCell)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dataset_conversion.spec import BACKGROUND, IGNORE, DatasetSpec
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.protocol import Protocol

PROTOCOLS = ("clean", "paper")
"""``clean``: unannotated voxels become nnU-Net's ignore label; ``paper``: what the published numbers used, there and in
training (``BenchmarkDataset.released``)."""

_FIXED = "mean and deviation, inference, classes and split: CEM500K's benchmark scripts"


@dataclass(frozen=True, kw_only=True)
class BenchmarkDataset:
    """One nnU-Net data set of a benchmark."""

    key: str
    """``cremi``, ``perez_nuclei``, ..."""
    benchmark: str
    """The subcommand that writes it: ``cremi``, ``guay``, ``kasthuri``, ``perez`` or ``urocell``."""
    id: int
    """Default data set ID."""
    name: str
    """The part after ``Dataset801_``."""
    labels: Mapping[str, int]
    """Class name -> value, without the ignore label."""
    protocol: Protocol
    """Everything but groups, and folds where they depend on the cases."""
    description: str
    reference: str
    licence: str
    schedule_iterations: int
    """Over which the learning rate falls in the released code."""
    foreground: float | None = None
    """Probability that a patch holds foreground in the released code; None: no rule."""
    unannotated: str | None = None
    """What the ``clean`` protocol ignores and the ``paper`` protocol counts as a class; None: no difference."""
    counted_as: str = BACKGROUND
    """The class that the ``paper`` protocol counts it as."""

    @property
    def released(self) -> dict[str, Any]:
        """Return the keys of the protocol by which the released code trains: see docs/fidelity.md."""
        return {
            "schedule_iterations": self.schedule_iterations,
            "foreground": self.foreground,
            "clip": None,
            "frozen_dropout": True,
        }


def _binary(name: str) -> dict[str, int]:
    return {BACKGROUND: 0, name: 1}


def _perez(
    number: int, plural: str, singular: str, mean: float, deviation: float, schedule_iterations: int = 3000
) -> BenchmarkDataset:
    """Describe a binary task of Perez et al.; CEM500K scores predicted objects that touch an annotated one."""
    return BenchmarkDataset(
        key=f"perez_{plural}",
        benchmark="perez",
        id=number,
        name=f"Perez{plural.capitalize()}",
        labels=_binary(singular),
        protocol=Protocol(
            iterations=2500,
            evaluated_classes=(1,),
            mask_rule="instance_match",
            score_unit="slice",
            normalisation=(mean, deviation),
            source=f"iterations: RETINA Table 1; {_FIXED}",
        ),
        description=f"{plural} in the suprachiasmatic nucleus of the mouse, serial block-face SEM, 2D images",
        reference="Perez et al., Front. Neuroanat. 8:126 (2014)",
        licence="the paper is CC BY; for the images none is stated",
        schedule_iterations=schedule_iterations,
    )


CREMI = BenchmarkDataset(
    key="cremi",
    benchmark="cremi",
    id=801,
    name="CREMI",
    labels=_binary("synaptic_cleft"),
    protocol=Protocol(
        iterations=5000,
        evaluated_classes=(1,),
        distance_tolerance=200.0,  # the challenge's evaluation: cremi/evaluation/Clefts.py
        normalisation=(0.50387249, 0.10911144),
        folds=({"train": ["sample_A"], "val": ["sample_B"]}, {"train": ["sample_B"], "val": ["sample_A"]}),
        source=f"iterations: RETINA Table 1; {_FIXED}; folds: this project (the paper trains on both: fold all)",
    ),
    description="synaptic clefts in the brain of adult Drosophila, serial-section TEM, 40 x 4 x 4 nm",
    reference="https://cremi.org (MICCAI 2016 challenge)",
    licence="none stated",
    schedule_iterations=10000,
    foreground=0.8,
    unannotated="invalid voxels (0xfffffffffffffffe)",
    counted_as="cleft",
)

GUAY = BenchmarkDataset(
    key="guay",
    benchmark="guay",
    id=802,
    name="Guay",
    # Names of the data set's authors. CEM500K's and RETINA's configurations exchange the names of 3 and 4.
    labels={
        BACKGROUND: 0,
        "cell": 1,
        "mitochondrion": 2,
        "alpha_granule": 3,
        "canalicular_vessel": 4,
        "dense_granule_body": 5,
        "dense_granule_core": 6,
    },
    protocol=Protocol(
        iterations=2500,
        class_weights=(0.1, 0.1, 1.0, 1.0, 0.1, 3.0, 3.0),
        evaluated_classes=(2, 3, 4, 5, 6),
        mask_rule="foreground",
        normalisation=(0.55412821, 0.15759415),
        folds=({"train": ["train"], "val": ["eval"]},),
        source="iterations: RETINA Table 1 (CEM500K: 1000; these and UroCell's look exchanged between the two papers); "
        f"weights by index: CEM500K's benchmark scripts; {_FIXED}; fold 0: the authors' train and eval volumes",
    ),
    description="organelles of human platelets, serial block-face SEM, about 40 x 10 x 10 nm",
    reference="Guay et al., Sci. Rep. 11:2561 (2021)",
    licence="none stated (made at the NIH; cleared for public release)",
    schedule_iterations=3000,
)

KASTHURI = BenchmarkDataset(
    key="kasthuri",
    benchmark="kasthuri",
    id=803,
    name="KasthuriPP",
    labels=_binary("mitochondrion"),
    protocol=Protocol(
        iterations=10000,
        evaluated_classes=(1,),
        score_unit="slice",
        normalisation=(0.27342241, 0.26917548),
        source=f"iterations: RETINA Table 1; {_FIXED}",
    ),
    description="mitochondria in the neocortex of the mouse, serial-section SEM, 30 x 3 x 3 nm",
    reference="Casser et al., Kasthuri++ (https://casser.io/connectomics)",
    licence="none stated",
    schedule_iterations=10000,
    foreground=0.8,
    unannotated="pixels outside the annotated area (mask value 2)",
)

PEREZ_LYSOSOMES = _perez(804, "lysosomes", "lysosome", 0.35047498, 0.01674651, 10000)
PEREZ_MITOCHONDRIA = _perez(805, "mitochondria", "mitochondrion", 0.35009244, 0.01705255)
PEREZ_NUCLEI = _perez(806, "nuclei", "nucleus", 0.35176219, 0.01545297)
PEREZ_NUCLEOLI = _perez(807, "nucleoli", "nucleolus", 0.35167108, 0.01306738)

UROCELL = BenchmarkDataset(
    key="urocell",
    benchmark="urocell",
    id=808,
    name="UroCell",
    labels={BACKGROUND: 0, "lysosome": 1, "mitochondrion": 2},
    protocol=Protocol(
        iterations=1000,
        class_weights=(0.1, 1.0, 1.0),
        evaluated_classes=(1, 2),
        inference="orthoplane",
        normalisation=(0.76752738, 0.10404078),
        source="iterations: RETINA Table 1 (CEM500K: 2500; these and Guay's look exchanged between the two papers); "
        f"weights: CEM500K's benchmark scripts; {_FIXED}",
    ),
    description="lysosomes and mitochondria in the urothelium of the mouse, focused ion beam SEM, 15 x 16 x 16 nm",
    reference="Zerovnik Mekuc et al., Comput. Biol. Med. 119:103693 (2020)",
    licence="CC BY-NC-SA 4.0",
    schedule_iterations=3000,
    foreground=0.8,
)

DATASETS = (
    CREMI,
    GUAY,
    KASTHURI,
    PEREZ_LYSOSOMES,
    PEREZ_MITOCHONDRIA,
    PEREZ_NUCLEI,
    PEREZ_NUCLEOLI,
    UROCELL,
)


def datasets(benchmark: str) -> tuple[BenchmarkDataset, ...]:
    """Return the data sets of one benchmark, in the order of their IDs.

    Raises:
        RetinaError: for an unknown benchmark.
    """
    chosen = tuple(dataset for dataset in DATASETS if dataset.benchmark == benchmark)
    if not chosen:
        known = ", ".join(dict.fromkeys(dataset.benchmark for dataset in DATASETS))
        raise RetinaError(f"benchmark {benchmark!r} is not known; expected one of {known}")
    return chosen


def spec(
    dataset: BenchmarkDataset,
    protocol: str = "clean",
    *,
    dataset_id: int | None = None,
    source: str = "",
) -> DatasetSpec:
    """Return the description that the writer needs.

    Args:
        dataset: one of ``DATASETS``.
        protocol: ``clean`` or ``paper``.
        dataset_id: instead of the default ID.
        source: the folder the files were read from.

    Raises:
        RetinaError: for an unknown protocol, or an ID nnU-Net does not accept.
    """
    if protocol not in PROTOCOLS:
        raise RetinaError(f"protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    labels, remarks, settings = dict(dataset.labels), [], dataset.protocol
    if dataset.unannotated is not None:
        if protocol == "clean":
            labels[IGNORE] = len(labels)
            treatment = "become the ignore label"
        else:
            treatment = f"count as {dataset.counted_as}, as in the published numbers"
        remarks.append(f"protocol {protocol}: {dataset.unannotated} {treatment}")
    if protocol == "paper":
        settings = replace(settings, **dataset.released, source=f"{settings.source}; training: released configuration")
        remarks.append("protocol paper: trained as in the released code (schedule, patches, clipping, dropout)")
    return DatasetSpec(
        id=dataset.id if dataset_id is None else dataset_id,
        name=dataset.name,
        labels=labels,
        source=source,
        protocol=settings,
        description=dataset.description,
        reference=dataset.reference,
        licence=dataset.licence,
        remarks=tuple(remarks),
        benchmark=True,
    )
