"""A browser without a window, where the machine has one."""

import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
needs_browser = pytest.mark.skipif(
    BROWSER is None or "RETINA_NO_BROWSER" in os.environ, reason="no Chromium or Chrome on this machine"
)


def _run(profile: Path, *arguments: str) -> str:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,900",
        f"--user-data-dir={profile}", "--virtual-time-budget=4000", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def text_after_scripts(page: Path, state: str, profile: Path) -> str:
    """The page's HTML when its script has run."""
    return unescape(_run(profile, "--dump-dom", f"{page.absolute().as_uri()}#{state}"))


def screenshot(page: Path, state: str, target: Path) -> Path:
    _run(target.parent / "profile", f"--screenshot={target}", f"{page.absolute().as_uri()}#{state}")
    return target


def attribute(text: str, name: str) -> str:
    (value,) = re.findall(rf'{name}="([^"]*)"', text)
    return str(value)
