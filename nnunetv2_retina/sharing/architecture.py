"""The network's source as one file that needs torch alone: a package runs where this project is not installed."""

from __future__ import annotations

import re
from pathlib import Path

from nnunetv2_retina import __version__, network

CALLABLE = "build"
"""Builds the network: see ``network.ensemble.build``."""
_MODULES = ("config", "resnet_v2", "transunet", "ensemble")
"""In the order in which they need each other."""
_OWN_IMPORT = re.compile(r"^(?:from __future__ import annotations|from nnunetv2_retina\S* import .+)\n", re.MULTILINE)


def source() -> str:
    """Return the file's text."""
    folder = Path(network.__file__).parent
    parts = [
        f'"""TransUNet of nnunetv2-retina {__version__} (Apache-2.0): {", ".join(_MODULES)}.py of its package network, '
        'joined."""\n\nfrom __future__ import annotations\n'
    ]
    for name in _MODULES:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        parts.append(f"# ---- {name}.py\n\n{_OWN_IMPORT.sub('', text)}")
    return "\n".join(parts)
