"""``retina_convert --list``: which data sets there are, their size and licence, and what of them is on disk."""

from __future__ import annotations

import textwrap
from pathlib import Path

from dataset_conversion import benchmarks
from dataset_conversion.downloads import catalogue, fetch
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.wording import format_rows


def availability(folder: Path) -> str:
    """Return a table for people.

    Args:
        folder: searched for the files, at any depth; nothing is hashed.

    Raises:
        RetinaError: if it is not a folder.
    """
    if not folder.is_dir():
        raise RetinaError(
            f"{folder} is not a folder; expected the one that holds the files, or will hold them. Correct it."
        )
    rows = [["COMMAND", "data", "becomes", "download", f"in {folder}"]]
    licences = []
    for key in (*catalogue.COLLECTIONS, *catalogue.CORPORA):
        status = fetch.status(key, folder)
        command = f"cem500k --corpus {key}" if key in catalogue.CORPORA and key != "cem500k" else key
        rows.append([command, status.title, _becomes(key), status.size, status.describe() or "not looked for"])
        licences.append(textwrap.fill(f"{key}: {status.licence}. {status.page}", 116, initial_indent="  "))
    return "\n".join(
        [
            *format_rows(rows),
            "",
            "Licences and pages",
            *licences,
            "",
            "Fetch and convert a benchmark (the files of all may share a folder):",
            f"  retina_convert COMMAND {folder} --download",
        ]
    )


def _becomes(key: str) -> str:
    """``801 CREMI``, or what a pre-training corpus is for."""
    if key in catalogue.CORPORA:
        return "images for pre-training"
    written = benchmarks.datasets(key)
    if len(written) == 1:
        return f"{written[0].id} {written[0].name}"
    return f"{written[0].id} to {written[-1].id}"
