"""Weights that have a name, in place of a path: where they come from, under what licence, and where they are kept.

Nothing here opens a connection: ``retina_import_weights NAME`` does, once, so that a training on a machine without a
network finds them. What is not known of a file is None, and not guessed.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "RETINA_CACHE"
"""Names the folder of what was downloaded."""


@dataclass(frozen=True, kw_only=True)
class NamedWeights:
    """Weights under a name."""

    name: str
    about: str
    """What they are, in a few words."""
    file: str | None = None
    """Name of the published file; None: not known."""
    page: str
    """Where people find it."""
    licence: str
    urls: tuple[str, ...] = ()
    """Addresses of the file itself, tried in this order; (): it is to be fetched by hand."""
    sha256: str | None = None
    """Of the file; None: not published."""
    shipped: Path | None = None
    """The file, where it comes with the package."""

    @property
    def folder(self) -> Path:
        """Return the folder that the published file, and the checkpoint made of it, are kept in."""
        return cache() / self.name

    @property
    def path(self) -> Path:
        """Return the checkpoint: the one in the package, or the one that ``retina_import_weights NAME`` makes."""
        return self.shipped or self.folder / f"{self.name}.pth"

    @property
    def is_here(self) -> bool:
        """Tell whether it can be used now."""
        return self.path.is_file()


OPEN = "open"
_ENTRIES = (
    NamedWeights(
        name=OPEN,
        about="encoder of size tiny, distilled on images whose licences allow its use for every purpose",
        file="tiny.pth",
        page="nnunetv2_retina/weights/open/README.md",
        licence="Apache-2.0",
        sha256="69d118cb46869aa4700bcc2e1c3ce6f595172528c639599e61ba0a1585b0d5ed",
        shipped=Path(__file__).parent / "open" / "tiny.pth",
    ),
    NamedWeights(
        name="retina",
        about="the authors' TransUNet, pre-trained on CEM500K (Xing, Xie, Bader 2025)",
        page="https://github.com/BaderLab/RETINA",
        licence="see the page",
    ),
    NamedWeights(
        name="cem500k-resnet50",
        about="MoCo v2 ResNet-50 of CEM500K, for nnUNetTrainerUNetResNet50_frozen (Conrad, Narayan 2021)",
        file="cem500k_mocov2_resnet50_200ep_pth.tar",
        page="https://www.ebi.ac.uk/empiar/EMPIAR-10592/ (pretrained_models), or Zenodo 6453140",
        licence="CC0, as every entry of EMPIAR",
    ),
    NamedWeights(
        name="imagenet21k",
        about="hybrid R50+ViT-B/16 of ImageNet-21k, for the trainers of size base (Dosovitskiy et al. 2021)",
        file="R50+ViT-B_16.npz",
        page="https://github.com/google-research/vision_transformer (imagenet21k)",
        licence="see the page",
    ),
)
WEIGHTS: Mapping[str, NamedWeights] = {entry.name: entry for entry in _ENTRIES}


def cache() -> Path:
    """Return the folder of what was downloaded: ``$RETINA_CACHE``, else ``~/.cache/nnunetv2_retina/weights``."""
    return Path(os.environ.get(VARIABLE, "").strip() or "~/.cache/nnunetv2_retina/weights").expanduser()


def nearest(name: str) -> str:
    """Name the weights that a name which is none is most like, and all there are."""
    near = difflib.get_close_matches(name.lower(), WEIGHTS, n=1)
    return f"{f'Did you mean {near[0]}? ' if near else ''}Weights with a name are {', '.join(WEIGHTS)}"
