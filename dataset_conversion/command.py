"""What a subcommand of ``retina_convert`` is. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset_conversion.writer.record import CaseProgress

SLICES = "--slices-as-volume"
SLICES_HELP = (
    "a folder of numbered slices (z_0001.png, z_0002.png, ...) is one volume; of a folder of such folders, each is one"
)

SHARED = ("workers", "scheduler")
"""Of ``engines.Workers``, what many files are converted with."""


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    help: str
    """One line for the list of subcommands."""
    description: str
    """Shown by its own ``--help``, as it is laid out."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    """Declare its options."""
    run: Callable[[argparse.Namespace, CaseProgress | None], str]
    """Do what the parsed options say, and return the text to print. The second argument is called after each written
    case; None: without a display of progress."""
