"""``retina_convert --list``: the data sets that can be converted, their size and licence, and their files on disk."""

from __future__ import annotations

import textwrap
from pathlib import Path

from dataset_conversion.benchmarks import datasets
from dataset_conversion.downloads.catalogue import COLLECTIONS, CORPORA
from dataset_conversion.downloads.status import describe, status
from nnunetv2_retina.console.wording import format_rows
from nnunetv2_retina.errors import RetinaError


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
    rows, sources = [["COMMAND", "data", "becomes", "download", f"in {folder}"]], []
    for key, collection in COLLECTIONS.items():
        rows.append([key, collection.title, _becomes(key), collection.size, describe(status(key, folder))])
        sources.append(f"{key}: {collection.licence}. {collection.page}")
    for key, corpus in CORPORA.items():
        command = key if key == "cem500k" else f"cem500k --corpus {key}"
        rows.append([command, corpus.title, "images for pre-training", corpus.size, "not looked for"])
        sources.append(f"{key}: {corpus.licence}. {corpus.page}")
    return "\n".join(
        [
            *format_rows(rows),
            "",
            "Licences and pages",
            *(textwrap.fill(source, 116, initial_indent="  ") for source in sources),
            "",
            "Fetch and convert a benchmark (the files of all may share a folder):",
            f"  retina_convert COMMAND {folder} --download",
        ]
    )


def _becomes(benchmark: str) -> str:
    """Return ``801 CREMI``, or ``804 to 807``."""
    written = datasets(benchmark)
    return f"{written[0].id} {written[0].name}" if len(written) == 1 else f"{written[0].id} to {written[-1].id}"
