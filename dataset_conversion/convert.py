"""The command ``retina_convert``: one subcommand a source of data, each ending in an nnU-Net raw data set."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_conversion import folder
from dataset_conversion.raw_dataset import REPORT, CaseRecord
from nnunetv2_retina.errors import RetinaError

COMMANDS = {"folder": folder}
"""Subcommand -> module with ``HELP``, ``add_arguments(parser)`` and ``run(args, progress) -> Path`` (or several)."""
SHOWN_CASES, SHOWN_REMARKS = 12, 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``retina_convert``. Returns the exit status: 0, or 2 with the reason on stderr for a user's error."""
    parser = argparse.ArgumentParser(prog="retina_convert", description="Make an nnU-Net data set for RETINA.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP))
    args = parser.parse_args(argv)
    try:
        written = COMMANDS[args.command].run(args, _show_progress if sys.stderr.isatty() else None)
    except (RetinaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in [written] if isinstance(written, Path) else written:
        print(summary(path))
    return 0


def _show_progress(record: CaseRecord) -> None:
    print(f"  {record.split}  {record.name}", file=sys.stderr)


def summary(path: Path) -> str:
    """What a written data set holds, and the command to type next.

    Args:
        path: the data set's folder, with its ``conversion_report.json``.
    """
    report: dict[str, Any] = json.loads((path / REPORT).read_text(encoding="utf-8"))
    lines = [f"Wrote {path}", "", *_case_table(report), "", *_label_table(report)]
    remarks = _remarks(report)
    if remarks:
        lines += ["", "Remarks", *(f"  - {text}" for text in remarks)]
    number = int(path.name[len("Dataset") :].split("_", 1)[0])
    preprocessed = os.environ.get("nnUNet_preprocessed")
    # Without --clean nnU-Net keeps the fingerprint of the data set that was overwritten.
    clean = " --clean" if preprocessed and (Path(preprocessed) / path.name).exists() else ""
    lines += ["", "Next", f"  nnUNetv2_plan_and_preprocess -d {number} -c 2d --verify_dataset_integrity{clean}"]
    return "\n".join(lines)


def _case_table(report: dict[str, Any]) -> list[str]:
    unit, cases = report["spacing_unit"], report["cases"]
    rows = [["split", "case", "shape", f"spacing ({unit})", "type", "grey levels", "mask"]]
    for case in cases[:SHOWN_CASES]:
        rows.append(
            [
                case["split"],
                case["name"],
                " x ".join(map(str, case["shape"])),
                " x ".join(f"{step:g}" for step in case["spacing"]),
                case["stored_dtype"],
                f"{case['intensity_min']:g} to {case['intensity_max']:g}",
                "no" if case["label_counts"] is None else "yes",
            ]
        )
    table = _format(rows)
    if len(cases) > SHOWN_CASES:
        table.append(f"  ... and {len(cases) - SHOWN_CASES} more, all in {REPORT}")
    return table


def _label_table(report: dict[str, Any]) -> list[str]:
    """One row a label; voxels and share for training and, if there are any, test cases."""
    totals = {split: part for split, part in report["totals"].items() if part["labelled_cases"]}
    rows = [["label", "name", *(text for split in totals for text in (f"{split} voxels", "share"))]]
    for name, value in report["labels"].items():
        row = [str(value), name]
        for part in totals.values():
            count, whole = part["label_counts"][str(value)], sum(part["label_counts"].values())
            row += [f"{count:,}", f"{100 * count / whole:.2f} %"]
        rows.append(row)
    cases = ", ".join(f"{part['cases']} {split}" for split, part in report["totals"].items() if part["cases"])
    number = len(report["cases"])
    return [f"  {number} case{'s' if number > 1 else ''}: {cases}", *_format(rows)]


def _format(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _remarks(report: dict[str, Any]) -> list[str]:
    """Remarks on the data set, then those on cases: each once, with the number of cases."""
    by_text: dict[str, list[str]] = {}
    for case in report["cases"]:
        for text in case["remarks"]:
            by_text.setdefault(text, []).append(case["name"])
    remarks = list(report["remarks"])
    for text, names in by_text.items():
        remarks.append(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}")
    hidden = len(remarks) - SHOWN_REMARKS
    return remarks[:SHOWN_REMARKS] + ([f"{hidden} more in {REPORT}"] if hidden > 0 else [])


if __name__ == "__main__":
    sys.exit(main())
