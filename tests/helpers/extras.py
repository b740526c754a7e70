"""Tests of what extras bring: skipped where these are not installed, but not where CI has installed them."""

import importlib
import os
from typing import Any

import pytest

INSTALLED = "RETINA_TEST_EXTRAS"
"""Set to 1 by .ci/run once the extras are installed: what is missing then is an error."""


def needs(module: str, reason: str) -> Any:
    """Import a module, or skip the tests of the module that asks for it."""
    if os.environ.get(INSTALLED) == "1":
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=reason, exc_type=ImportError)
