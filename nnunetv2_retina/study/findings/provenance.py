"""What a study's runs took, and what made them: time, parameters, versions, devices, weights, and where they differ."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

from nnunetv2_retina.console.wording import duration
from nnunetv2_retina.errors import shorten
from nnunetv2_retina.study.findings.results import Result, StudyOutline

_FINGERPRINT_LENGTH = 12


def time_rows(outline: StudyOutline, results: Sequence[Result]) -> list[list[str]]:
    """Return header and a row for each data set and system that ran: median of its runs, and from least to most."""
    rows = [["data set", "system", "runs", "10⁶ parameters", "trained", "s per iteration", "training", "prediction"]]
    for dataset in outline.datasets:
        for system in outline.systems:
            runs = [run for run in results if (run.dataset, run.system) == (dataset.name, system.name)]
            if runs:
                rows.append([dataset.title, system.name, str(len(runs)), *_costs(runs)])
    return rows


def total_time(results: Sequence[Result]) -> str:
    """Return a sentence on the time that all runs trained together."""
    seconds = [run.training_seconds for run in results]
    known = [value for value in seconds if not math.isnan(value)]
    missing = "" if len(known) == len(seconds) else f" ({len(seconds) - len(known)} runs did not record it)"
    return f"Training all runs took {duration(sum(known))}{missing}."


def setup_rows(outline: StudyOutline, results: Sequence[Result]) -> list[list[str]]:
    """Return header and a row for each way in which a system was trained, with the data sets of that way."""
    titles = {dataset.name: dataset.title for dataset in outline.datasets}
    setups: dict[tuple[str, ...], dict[str, None]] = {}
    for system in outline.systems:
        for run in results:
            if run.system == system.name:
                made = run.made_by
                settings = [str(made.get(key, "-")) for key in ("trainer", "configuration", "fold")]
                key = (system.name, *settings, weights_text(made.get("weights")))
                setups.setdefault(key, {})[titles.get(run.dataset, run.dataset)] = None
    header = ["system", "trainer", "configuration", "fold", "weights", "data sets"]
    return [header, *([*key, ", ".join(datasets)] for key, datasets in setups.items())]


def version_rows(results: Sequence[Result]) -> list[list[str]]:
    """Return header and a row for each package, device, threads and platform: what all runs have, or how many what."""
    kinds: dict[str, list[str]] = {}
    for run in results:
        versions = run.made_by.get("versions")
        for package, version in versions.items() if isinstance(versions, Mapping) else ():
            kinds.setdefault(str(package), []).append(str(version))
    for kind in ("device", "threads", "platform"):
        values = [run.made_by.get(kind) for run in results]
        if kind == "device" or any(value is not None for value in values):
            kinds[kind] = ["not recorded" if value is None else str(value) for value in values]
    return [["", "runs"], *([kind, _counted(values, len(results))] for kind, values in kinds.items())]


def differences(outline: StudyOutline, results: Sequence[Result]) -> list[str]:
    """Return sentences on versions, devices, protocols and weights that differ between runs which are compared."""
    sentences = []
    versions = [run.made_by.get("versions") for run in results]
    packages = dict.fromkeys(name for entry in versions if isinstance(entry, Mapping) for name in entry)
    differing = [
        name
        for name in packages
        if len({str(entry.get(name)) if isinstance(entry, Mapping) else None for entry in versions}) > 1
    ]
    if differing:
        sentences.append(f"The runs were not all made by the same versions of {shorten(differing, 12)}.")
    devices = dict.fromkeys(str(run.made_by.get("device", "not recorded")) for run in results)
    if len(devices) > 1:
        sentences.append(
            f"The runs were made on different devices ({'; '.join(devices)}): times cannot be compared, and scores may "
            "differ by the rounding of the device."
        )
    for what in ("protocol", "weights", "configuration", "fold", "trainer"):
        places = _differing_within(outline, results, partial(_compared, what))
        if places:
            sentences.append(f"Runs of one system on one data set differ in their {what}: {shorten(places)}.")
    places = _differing_within(outline, results, lambda run: run.last)
    if places:
        sentences.append(f"Runs of one system on one data set stopped at different iterations: {shorten(places)}.")
    return sentences


def weights_text(weights: Any) -> str:
    """Return the name of the file, without its folder, and the start of its fingerprint."""
    if not isinstance(weights, Mapping):
        return "none"
    name = PurePath(str(weights.get("file", "unnamed")).replace("\\", "/")).name
    fingerprint = str(weights.get("fingerprint", ""))[:_FINGERPRINT_LENGTH]
    return f"{name} ({fingerprint})" if fingerprint else name


def _compared(what: str, run: Result) -> object:
    """Return what runs of one system have in common: of weights the fingerprint, whatever the file is called; of the
    protocol all but the cases, which the seed may have drawn."""
    value = run.made_by.get(what)
    if not isinstance(value, Mapping):
        return value
    if what == "weights":
        return value.get("fingerprint")
    return {key: entry for key, entry in value.items() if key != "folds"}


def _costs(runs: Sequence[Result]) -> list[str]:
    parameters = [
        " / ".join(dict.fromkeys(_count(run.parameters.get(kind)) for run in runs)) for kind in ("all", "trained")
    ]
    return [
        *parameters,
        _range([run.seconds_per_iteration for run in runs], lambda value: f"{value:.3g}"),
        _range([run.training_seconds for run in runs], duration),
        _range([run.prediction_seconds for run in runs], duration),
    ]


def _count(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value / 1e6:.1f}" if value >= 1e6 else f"{value / 1e6:.2g}"


def _range(values: Iterable[float], show: Callable[[float], str]) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    middle, low, high = show(statistics.median(known)), show(min(known)), show(max(known))
    return middle if low == high else f"{middle} ({low} to {high})"


def _counted(values: Sequence[str], runs: int) -> str:
    """Return ``2.8.1``, or ``2.8.1 (40 runs), 2.8.0 (8 runs)``."""
    values = [*values, *["not recorded"] * (runs - len(values))]
    kinds = list(dict.fromkeys(values))
    return (
        kinds[0]
        if len(kinds) == 1
        else ", ".join(f"{kind} ({values.count(kind)} of {len(values)} runs)" for kind in kinds)
    )


def _differing_within(outline: StudyOutline, results: Sequence[Result], take: Callable[[Result], object]) -> list[str]:
    """Return the systems and data sets whose runs differ in something."""
    titles = {dataset.name: dataset.title for dataset in outline.datasets}
    texts: dict[tuple[str, str], set[str]] = {}
    for run in results:
        text = json.dumps(take(run), sort_keys=True, default=str)
        texts.setdefault((run.system, titles.get(run.dataset, run.dataset)), set()).add(text)
    return [f"{system} on {title}" for (system, title), kinds in texts.items() if len(kinds) > 1]
