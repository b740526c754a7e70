"""What ``retina_convert`` prints of a written data set: its cases, its labels, its folds, remarks, the next step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataset_conversion.spec import IGNORE
from dataset_conversion.writer.record import REPORT, SHEET
from nnunetv2_retina.console.wording import format_rows
from nnunetv2_retina.errors import shorten
from nnunetv2_retina.files import read_json
from nnunetv2_retina.nnunet.datasets import PREPROCESSED, SPLITS_JSON, nnunet_folder

SHOWN_CASES, SHOWN_REMARKS = 12, 10


def summary(path: Path) -> str:
    """Return what a written data set holds, and the command to type next.

    Args:
        path: the data set's folder, with its ``conversion_report.json``.
    """
    report = read_json(path / REPORT, "Convert the data set again.")
    lines = [f"Wrote {path}", "", *_case_table(report), "", *_label_table(report), *_fold_table(report)]
    remarks = _remarks(report)
    if (path / SHEET).is_file():
        lines += ["", f"Look at {path / SHEET}: slices under their labels."]
    if remarks:
        lines += ["", "Remarks", *(f"  - {text}" for text in remarks)]
    return "\n".join([*lines, "", "Next", *_next_steps(path)])


def _next_steps(path: Path) -> list[str]:
    """Return the command to type; where a data set of this name was preprocessed earlier, what to do before."""
    number = int(path.name[len("Dataset") :].split("_", 1)[0])
    command = f"nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity"
    folder = nnunet_folder(PREPROCESSED)
    earlier = folder / path.name if folder else None
    if earlier is None or not earlier.exists():
        return [f"  {command}"]
    stale = earlier / SPLITS_JSON
    # nnU-Net stops without a word if that file has other folds than the raw data set's.
    differs = stale.is_file() and not ((path / SPLITS_JSON).is_file() and _same_json(stale, path / SPLITS_JSON))
    first = [f"  rm {stale}   # folds of the data set that was overwritten"] if differs else []
    return [*first, f"  {command} --clean"]  # without it nnU-Net keeps the old fingerprint


def _same_json(one: Path, other: Path) -> bool:
    return bool(json.loads(one.read_text(encoding="utf-8")) == json.loads(other.read_text(encoding="utf-8")))


def _case_table(report: dict[str, Any]) -> list[str]:
    unit, cases = report["spacing_unit"], report["cases"]
    spacing = f"spacing ({unit})" if unit else "spacing"
    rows = [["split", "case", "shape", spacing, "type", "grey levels", "padding", "mask"]]
    for case in cases[:SHOWN_CASES]:
        rows.append(
            [
                case["split"],
                case["name"],
                " x ".join(map(str, case["shape"])),
                " x ".join(f"{step:g}" for step in case["spacing"]),
                case["stored_dtype"],
                f"{case['intensity_min']:g} to {case['intensity_max']:g}",
                f"{100 * case['padding']:.1f} %",
                "no" if case["label_counts"] is None else "yes",
            ]
        )
    table = format_rows(rows)
    if len(cases) > SHOWN_CASES:
        table.append(f"  ... and {len(cases) - SHOWN_CASES} more, all in {REPORT}")
    return table


def _label_table(report: dict[str, Any]) -> list[str]:
    """Return one row per label; voxels and share for training and, if there are any, test cases."""
    totals = {split: part for split, part in report["totals"].items() if part["labelled_cases"]}
    rows = [["label", "name", *(text for split in totals for text in (f"{split} voxels", "share"))]]
    for name, value in report["labels"].items():
        row = [str(value), name]
        for part in totals.values():
            count, total = part["label_counts"][str(value)], sum(part["label_counts"].values())
            row += [f"{count:,}", f"{100 * count / total:.2f} %"]
        rows.append(row)
    cases = ", ".join(f"{part['cases']} {split}" for split, part in report["totals"].items() if part["cases"])
    number = len(report["cases"])
    return [f"  {number} case{'s' if number > 1 else ''}: {cases}", *format_rows(rows)]


def _fold_table(report: dict[str, Any]) -> list[str]:
    """Return one line per fold: cases to train on, cases to validate on."""
    lines = []
    for number, fold in enumerate(report["folds"]):
        shown = shorten(fold["val"], 3)
        lines.append(f"  fold {number}: trains on {len(fold['train'])}, validates on {len(fold['val'])} ({shown})")
    every = sum(case["split"] == "train" for case in report["cases"])
    return ["", *lines, f"  fold all: trains on {every}"]


def _remarks(report: dict[str, Any]) -> list[str]:
    """List the remarks on the data set, then those on cases: each once, with the number of cases."""
    by_text: dict[str, list[str]] = {}
    for case in report["cases"]:
        for text in case["remarks"]:
            by_text.setdefault(text, []).append(case["name"])
    remarks = [*report["remarks"], *_unused_ignore(report)]
    for text, names in by_text.items():
        remarks.append(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}")
    hidden = len(remarks) - SHOWN_REMARKS
    return remarks[:SHOWN_REMARKS] + ([f"{hidden} more in {REPORT}"] if hidden > 0 else [])


def _unused_ignore(report: dict[str, Any]) -> list[str]:
    """Say that no mask holds the value that was declared as unannotated, which may have been mistyped."""
    parts = [part["label_counts"] for part in report["totals"].values() if part["labelled_cases"]]
    value = report["labels"].get(IGNORE)
    if value is None or any(counts[str(value)] for counts in parts):
        return []
    return ["no mask holds an unannotated (ignored) voxel: check the value given with --ignore, or leave it out"]
