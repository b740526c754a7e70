"""What a subcommand of ``retina_convert`` is. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset_conversion.writer.record import CaseProgress


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
