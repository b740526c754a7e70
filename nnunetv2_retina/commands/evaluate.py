"""``retina_evaluate``: score predictions; see ``nnunetv2_retina.evaluation.evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.console import say
from nnunetv2_retina.console.progress import ProgressBar
from nnunetv2_retina.errors import RetinaError


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_evaluate",
        "Score predicted label files against ground truths as the papers do. The rule (classes, masks, whole volumes "
        'or images) comes from the block "retina" of dataset.json; a data set without one gets plain scores over '
        "volumes. Voxels with the ignore label count nowhere; undefined scores are left out and listed. Two Zarr "
        "volumes of labels are read block by block, in bounded memory, with the same scores.",
    )
    add = parser.add_argument
    add(
        "-p",
        type=Path,
        required=True,
        metavar="PATH",
        help="predictions: a folder, one file a case; or a Zarr volume (OUT.zarr, another level: OUT.zarr::1)",
    )
    add("-g", type=Path, required=True, metavar="PATH", help="ground truths, such as labelsTs; or a Zarr volume")
    add("-d", required=True, metavar="DATASET", help="ID, name (in nnUNet_raw or nnUNet_preprocessed), or dataset.json")
    add("-o", type=Path, required=True, metavar="FOLDER", help="where to write scores.json and scores.csv")
    add(
        "--tolerance",
        type=float,
        metavar="NM",
        help="compute CREMI's scores with this tolerance (the challenge: 200), by the spacing of the ground truth, "
        "which must be in nm (default: the data set's distance_tolerance; without one, no such scores)",
    )
    add("--no-distances", action="store_true", help="without Mean False Distance and CREMI's scores")
    add("-np", type=int, metavar="N", help="cases at a time (default: processors, at most 4)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Score as the options say.

    Raises:
        RetinaError: for a data set, folder or file that cannot be used.
    """
    from nnunetv2_retina.evaluation.evaluate import default_processes, evaluate
    from nnunetv2_retina.evaluation.output import ADVICE, table, write_scores
    from nnunetv2_retina.evaluation.stored import is_stored
    from nnunetv2_retina.files import make_folder

    if arguments.no_distances and arguments.tolerance is not None:
        raise RetinaError("--tolerance asks for scores by distances, and --no-distances for none. Leave one out")
    make_folder(arguments.o, ADVICE)
    with ProgressBar("scoring", unit="blocks" if is_stored(arguments.p) else "cases") as bar:
        scores = evaluate(
            arguments.p,
            arguments.g,
            arguments.d,
            tolerance=arguments.tolerance,
            distances=not arguments.no_distances,
            processes=default_processes() if arguments.np is None else arguments.np,
            progress=bar.update,
        )
    files = write_scores(scores, arguments.o)
    for line in table(scores):
        say(line)
    say(f"wrote {' and '.join(map(str, files))}")


main = console.command(parser, run)
