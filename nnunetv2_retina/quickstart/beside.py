"""The network beside the same one from random initialisation: scores of both, and what both found."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nnunetv2_retina.display.pages import paragraph, picture, table
from nnunetv2_retina.display.sheets import side_by_side
from nnunetv2_retina.evaluation.metric import IOU
from nnunetv2_retina.evaluation.output import JSON_FILE
from nnunetv2_retina.evaluation.pairs import pair_files
from nnunetv2_retina.evaluation.rule import Rule
from nnunetv2_retina.files import read_json
from nnunetv2_retina.nnunet.datasets import IMAGES_TS, LABELS_TS, read_dataset_json
from nnunetv2_retina.quickstart.folder import Found, Output
from nnunetv2_retina.report.cases import overlay_row, value_names

MOST_PICTURES = 2
NO_PROOF = (
    "One training of each is no proof: other patches or another initialisation may turn the difference round. What "
    'eight pairs of trainings show stands in docs/study.md, "Few labels".'
)
_RANDOM = "random start"


def sentence(files: Output) -> str:
    """Compare the mean IoU of both networks over the held-out images."""
    *_, (_, ours, random, difference) = _rows(files)
    return (
        f"mean IoU {ours} from the weights, {random} from random initialisation with the same settings and patches: "
        f"{difference}"
    )


def blocks(files: Output) -> list[str]:
    """Return the comparison for the page: a table, what it does not prove, and pictures of the first images."""
    return [
        paragraph("The same network, trained with the same settings on the same patches, but from random numbers."),
        table(["mean IoU", "from the weights", _RANDOM, "difference"], _rows(files)),
        paragraph(NO_PROOF),
        *_pictures(files),
    ]


def _rows(files: Output) -> list[list[str]]:
    """Return name, both scores and their difference of every held-out image, and of the mean."""
    ours, random = (read_json(found.scores / JSON_FILE, "retina_evaluate writes it.") for found in _both(files))
    pairs = {name: (case["mean"], random["cases"][name]["mean"]) for name, case in ours["cases"].items()}
    pairs["mean"] = ours["mean"], random["mean"]
    rows = []
    for name, (of_ours, of_random) in pairs.items():
        one, other = of_ours[IOU.key], of_random[IOU.key]
        difference = None if None in (one, other) else one - other
        rows.append([name, IOU.show(one), IOU.show(other), IOU.show(difference, signed=True)])
    return rows


def _both(files: Output) -> tuple[Found, Found]:
    return files.network, files.baseline


def _pictures(files: Output) -> list[str]:
    contents, dataset = read_dataset_json(files.dataset), files.dataset
    ending, rule = str(contents["file_ending"]), Rule.from_dataset_json(contents, distances=False)
    ours, random = (pair_files(found.predictions, dataset / LABELS_TS, ending)[0] for found in _both(files))
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        for first, second in list(zip(ours, random, strict=True))[:MOST_PICTURES]:
            rows = [overlay_row(pair, dataset / IMAGES_TS, contents, "foreground") for pair in (first, second)]
            path = Path(folder) / f"{first.name}.png"
            predictions = {"from the weights": rows[0].prediction, _RANDOM: rows[1].prediction}
            side_by_side(path, rows[0], predictions, value_names(rule), rule.ignore)
            shown.append(picture(path, f"{first.name}: image, ground truth, and what both networks found"))
    return shown
