"""A model as a folder for the Hugging Face Hub: a card, tensors that load without running code, and nnU-Net's plans."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import make_folder, write_text
from nnunetv2_retina.sharing import card
from nnunetv2_retina.sharing.bundle import Bundle
from nnunetv2_retina.sharing.settings import About

WEIGHTS = "model.safetensors"
README = "README.md"


def write_hub_folder(bundle: Bundle, about: About, target: Path) -> str:
    """Write the folder.

    Args:
        bundle: the model.
        about: what its author says about it.
        target: a folder that is not there, or is empty.

    Returns:
        The command that uploads it; nothing is uploaded here.

    Raises:
        RetinaError: if the folder holds something, or cannot be written to.
    """
    if target.is_dir() and any(target.iterdir()):
        raise RetinaError(f"{target} is not empty. Give a folder that is not there yet")
    make_folder(target, "Choose another folder")
    save_file(bundle.tensors, target / WEIGHTS, metadata={"format": "pt"})
    bundle.write(target, WEIGHTS)
    write_text(target / README, _readme(bundle, about), "Choose another folder")
    repository = (about.name or bundle.name).replace(" ", "-")
    return shlex.join(["hf", "upload", f"USER/{repository}", str(target), "."])


def _readme(bundle: Bundle, about: About) -> str:
    import yaml

    use = [
        "With RETINA for nnU-Net (nnunetv2-retina) installed:",
        "",
        "    hf download USER/NAME --local-dir model",
        "    retina_share import model -o imported",
        "    retina_predict -i images -o predictions -m imported",
    ]
    front = yaml.safe_dump(_front_matter(bundle, about), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{card.body(bundle, about, use)}"


def _front_matter(bundle: Bundle, about: About) -> dict[str, Any]:
    """Return the metadata that the Hub reads (model cards, Hugging Face documentation)."""
    front: dict[str, Any] = {
        "license": about.licence.lower(),
        "library_name": "nnunetv2-retina",
        "pipeline_tag": "image-segmentation",
        "tags": list(card.TAGS),
    }
    results = []
    for fold, (dice, iou) in card.scores(bundle).items():
        metrics = [("Dice", dice), ("IoU", iou)]
        results.append({
            "task": {"type": "image-segmentation"},
            "dataset": {"type": bundle.dataset, "name": bundle.dataset, "split": f"validation of fold {fold}"},
            "metrics": [{"type": name.lower(), "name": f"{name}, foreground", "value": round(value, 4)}
                        for name, value in metrics],
        })  # fmt: skip
    if results:
        front["model-index"] = [{"name": about.name or bundle.name, "results": results}]
    return front
