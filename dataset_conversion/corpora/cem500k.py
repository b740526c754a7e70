"""CEM500K and CEM1.5M, the unlabelled images for pre-training: how to get them, and whether a download is complete.

Both are entries of EMPIAR with very many small files, which its own ways of transfer handle better than we could. The
commands follow EMPIAR's instructions, with Aspera's account as in torch-em and the Globus collection that other users
of EMPIAR name; whether they still work was not tried.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_conversion.command import Command
from dataset_conversion.downloads.catalogue import CORPORA, Corpus
from nnunetv2_retina.errors import RetinaError

if TYPE_CHECKING:
    from dataset_conversion.writer.record import CaseProgress

_HELP = "how to download CEM500K or CEM1.5M for pre-training, and a check of the download"
_DESCRIPTION = """\
Prints the commands that download CEM500K (or CEM1.5M) from EMPIAR, by https, Aspera or Globus. All three can be started
again after an interruption. Check what came with --check FOLDER: every image is opened and read to its end.
"""
HTTPS = "https://ftp.ebi.ac.uk/empiar/world_availability"
ASPERA = "emp_ext2@fasp.ebi.ac.uk"
GLOBUS = "47772002-3e5b-4fd3-b97c-18cee38d6df2:/empiar/world_availability"
"""The collection "EMBL-EBI Public Data"."""


def instructions(corpus: Corpus, folder: str | Path) -> str:
    """Return the commands to type, for a POSIX shell.

    Args:
        corpus: one of ``catalogue.CORPORA``.
        folder: where the images will go.
    """
    target, entry = shlex.quote(str(folder)), corpus.entry
    option = "" if corpus.key == "cem500k" else f" --corpus {corpus.key}"
    return f"""\
{corpus.title}: EMPIAR-{entry}, about {corpus.images:,} images, {corpus.size}; {corpus.licence}
{corpus.reference}
{corpus.page}

Take one of these ways; each goes on where it was interrupted when it is started again.

https (slow with so many files, but needs nothing else)
  wget --recursive --no-parent --no-host-directories --cut-dirs=2 --continue --reject 'index.html*' \\
    --directory-prefix {target} {HTTPS}/{entry}/

Aspera (fast; KEY is asperaweb_id_dsa.openssh, in the folder etc of the Aspera installation)
  mkdir -p {target}
  ascp -QT -k1 -l 200m -P33001 -i KEY {ASPERA}:/{entry} {target}

Globus (fast; COLLECTION is the ID of your own collection, /PATH a folder in it)
  globus login
  globus transfer --recursive --sync-level size {GLOBUS}/{entry}/ COLLECTION:/PATH/{entry}/

Then check it (minutes), and pre-train
  retina_convert cem500k{option} --check {target}
  retina_pretrain {target} -o runs/{corpus.key}"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", choices=tuple(CORPORA), default="cem500k", help="default: cem500k")
    parser.add_argument("--to", metavar="FOLDER", help="folder to name in the commands (default: the corpus's name)")
    parser.add_argument("--check", metavar="FOLDER", type=Path, help="check a finished download instead")


def _run(args: argparse.Namespace, progress: CaseProgress | None) -> str:
    """Return the commands, or the result of a check.

    Args:
        args: as parsed.
        progress: if not None, a check shows on stderr how far it is.

    Raises:
        RetinaError: for a download that is not complete.
    """
    from dataset_conversion.corpora.check import check, describe, problems

    corpus = CORPORA[args.corpus]
    if args.check is None:
        return instructions(corpus, args.to or corpus.key)
    result = check(args.check, None if progress is None else _show)
    if progress is not None:
        sys.stderr.write("\n")
    text, reasons = describe(result, corpus, args.check), problems(result, corpus)
    if reasons:
        raise RetinaError(
            f"{'; '.join(reasons)}.\nDelete unreadable and unfinished files and start the download again: it fetches "
            f"what is missing.\n{text}"
        )
    return f"{text}\n  complete\n\nNext\n  retina_pretrain {shlex.quote(str(args.check))} -o runs/{corpus.key}"


def _show(images: int) -> None:
    sys.stderr.write(f"\r  {images:,} images read ")
    sys.stderr.flush()


COMMAND = Command(_HELP, _DESCRIPTION, _add_arguments, _run)
