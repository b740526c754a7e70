"""Finds out whether there is a display, napari or a browser here, and opens pages."""

from __future__ import annotations

import os
import sys
import webbrowser
from importlib.util import find_spec

BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
"""The Qt bindings that napari knows."""


def has_display() -> bool:
    """Tell whether windows can be shown: a desktop, or an X or Wayland server."""
    if sys.platform in ("win32", "darwin"):
        return True
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(shown) and os.environ.get("QT_QPA_PLATFORM") != "offscreen"


def has_napari() -> bool:
    """Tell whether napari and a Qt for its windows are installed; nothing of them is imported."""
    return find_spec("napari") is not None and any(find_spec(name) for name in BINDINGS)


def open_in_browser(address: str) -> bool:
    """Open an address in the user's browser, where there is a display; return whether one opened."""
    try:
        return has_display() and webbrowser.open(address)
    except webbrowser.Error:
        return False
