"""The commands that the installation has."""

import re
from pathlib import Path

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
SCRIPTS = dict(re.findall(r'^(retina_\w+) = "([\w.:]+)"$', _PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE))
"""Name -> ``module:function``."""
