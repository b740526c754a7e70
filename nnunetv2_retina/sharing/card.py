"""The text that goes with a shared model: what it is, how to use it, what it was trained on, what not to expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nnunetv2_retina import __version__
from nnunetv2_retina.protocol import Protocol
from nnunetv2_retina.sharing.bundle import Bundle
from nnunetv2_retina.sharing.settings import About
from nnunetv2_retina.volumes.model import trained_spacing

CITATIONS = {
    "Xing C, Xie R, Bader GD. RETINA: Reconstruction-based pre-trained enhanced TransUNet for electron microscopy "
    "segmentation on the CEM500K dataset. PLoS Comput Biol 2025;21(5):e1013115": "10.1371/journal.pcbi.1013115",
    "Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. Nat "
    "Methods 2021;18:203-211": "10.1038/s41592-020-01008-z",
}
"""Text -> DOI."""
TAGS = ("electron-microscopy", "semantic-segmentation", "nnunet", "retina", "pytorch")


def body(bundle: Bundle, about: About, use: Sequence[str]) -> str:
    """Return the card in Markdown.

    Args:
        bundle: the model.
        about: what its author says about it.
        use: lines on how to use this package.
    """
    sections = {
        "Use": use,
        "Classes": [f"- {name}: {_numbers(value)}" for name, value in bundle.dataset_json["labels"].items()],
        "Data": list(_data(bundle)),
        "Recipe": list(_recipe(bundle)),
        "Validation": list(_validation(bundle)),
        "What not to expect": list(_limits(bundle)),
        "Cite": [f"- {text}. https://doi.org/{doi}" for text, doi in CITATIONS.items()],
    }
    lines = [f"# {about.name or bundle.name}", "", about.text or _purpose(bundle), ""]
    lines += [f"By {', '.join(about.authors)}. Licence: {about.licence}.", ""]
    for title, content in sections.items():
        lines += [f"## {title}", "", *content, ""]
    lines += [f"Written by nnunetv2-retina {__version__}.", ""]
    return "\n".join(lines)


def scores(bundle: Bundle) -> dict[str, tuple[float, float]]:
    """Return the mean of Dice and of IoU over the foreground, by fold: those validated on cases that they never saw."""
    by_fold = {}
    for fold in bundle.folds:
        mean = fold.scores.get("foreground_mean", {})
        if not fold.validated_on_training and all(isinstance(mean.get(key), (int, float)) for key in ("Dice", "IoU")):
            by_fold[fold.name] = (float(mean["Dice"]), float(mean["IoU"]))
    return by_fold


def folds_in_words(bundle: Bundle) -> str:
    """Say which networks of the model are in the package."""
    names = [fold.name for fold in bundle.folds]
    if len(names) > 1:
        return f"the mean of the logits of folds {', '.join(names)}"
    return "the network that was trained on all cases (fold all)" if names == ["all"] else f"fold {names[0]}"


def _purpose(bundle: Bundle) -> str:
    classes = ", ".join(name for name in bundle.dataset_json["labels"] if name not in ("background", "ignore"))
    return f"Segmentation of {classes} in electron microscopy, trained with nnU-Net."


def _numbers(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _data(bundle: Bundle) -> Iterator[str]:
    contents = bundle.dataset_json
    plan = bundle.plans["configurations"][bundle.configuration]
    name, number = contents.get("name") or bundle.dataset, contents.get("numTraining", "unknown")
    yield f"- Data set: {name}; training cases: {number}"
    for key in ("description", "reference", "licence", "license"):
        if contents.get(key):
            yield f"- {key.capitalize()}: {contents[key]}"
    yield f"- Channels: {', '.join(map(str, contents['channel_names'].values()))}"
    spacing = trained_spacing(contents, str(bundle.plans["image_reader_writer"]), plan["spacing"])
    if spacing is None:
        yield "- Pixel size: not known"
    else:
        sizes = " x ".join(f"{step:g}" for step in list(spacing)[-len(plan["spacing"]) :])
        yield f"- Pixel size that images are brought to: {sizes} {spacing.unit or '(unit not known)'}"
    yield f"- Normalisation: {', '.join(plan['normalization_schemes'])}"


def _recipe(bundle: Bundle) -> Iterator[str]:
    arguments = bundle.folds[0].about["init_args"]
    plan = bundle.plans["configurations"][bundle.configuration]
    yield f"- Trainer {bundle.trainer}, configuration {bundle.configuration}, plans {bundle.plans['plans_name']}"
    yield f"- Patches of {' x '.join(map(str, plan['patch_size']))} pixels, batches of {plan['batch_size']}"
    yield f"- In this package: {folds_in_words(bundle)}, of {bundle.checkpoint}"
    retina: Mapping[str, Any] = arguments.get("retina", {})
    if retina:
        protocol = Protocol.from_dataset_json(dict(bundle.dataset_json))
        yield f"- {protocol.iterations} iterations, learning rate {protocol.learning_rate:g}"
        transfer = retina.get("transfer") or {}
        if transfer.get("source"):
            yield f"- Pre-trained weights: {transfer['source']} (scope {transfer['scope']}), {transfer['fingerprint']}"
            yield from (f"- The pre-training saw {what} of this data set" for what in transfer.get("seen", ()))
        else:
            yield "- From random initialisation"


def _validation(bundle: Bundle) -> Iterator[str]:
    by_fold = scores(bundle)
    for fold in bundle.folds:
        if fold.validated_on_training:
            cases = "all cases" if fold.name == "all" else "cases of its validation"
            yield from (
                f"Fold {fold.name} was trained on {cases}: nnU-Net's scores of it are not of unseen images.",
                "",
            )
    if not by_fold:
        yield "There is no validation of this model at hand: score it on images of your own before you use it."
        return
    yield "nnU-Net's own validation, on the images that the fold was not trained on (mean over the foreground):"
    yield from ("", "| fold | Dice | IoU |", "|---|---|---|")
    yield from (f"| {name} | {dice:.3f} | {iou:.3f} |" for name, (dice, iou) in by_fold.items())
    yield from ("", "To validate it on other images, predict them and compare with `retina_evaluate`.")


def _limits(bundle: Bundle) -> Iterator[str]:
    yield "- Scores like these on other tissue, staining, microscopes or pixel sizes: label a few images and check."
    if scores(bundle):
        yield "- Test scores: those above are of a validation that may have been looked at while the model was made."
    if bundle.configuration.startswith("2d"):
        yield "- Context between slices: a volume is segmented slice by slice."
    yield "- Classes that are not listed: whatever else is in the image becomes background or the class most like it."
