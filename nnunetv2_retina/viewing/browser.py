"""Finds out whether there is a display, napari or a browser here, and opens pages."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from importlib.util import find_spec

BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
"""The Qt bindings that napari knows."""


def has_display() -> bool:
    """Tell whether windows can be shown: a desktop, or an X or Wayland server that answers.

    A variable that names one is not enough: Qt ends the process where the connection of an ssh session has gone.
    """
    if sys.platform in ("win32", "darwin"):
        return True
    if os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        return False
    wayland, display = os.environ.get("WAYLAND_DISPLAY", ""), os.environ.get("DISPLAY", "")
    return bool(wayland and _listens(os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), wayland))) or _answers(display)


def _answers(display: str) -> bool:
    """Tell whether an X server answers: ``:0`` at its local socket, ``HOST:10.0`` at port 6010."""
    host, _, number = display.rpartition(":")
    number = number.partition(".")[0]
    if not number.isdecimal():
        return False
    if host not in ("", "unix"):
        return _listens((host, 6000 + int(number)))
    path = f"/tmp/.X11-unix/X{number}"
    return _listens(path) or _listens(f"\0{path}")


def _listens(address: str | tuple[str, int]) -> bool:
    try:
        if isinstance(address, tuple):
            socket.create_connection(address, timeout=1).close()
            return True
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(1)
            made.connect(address)
        return True
    except (OSError, OverflowError):  # nobody there; a port above 65535
        return False


def has_napari() -> bool:
    """Tell whether napari and a Qt for its windows are installed; nothing of them is imported."""
    return find_spec("napari") is not None and any(find_spec(name) for name in BINDINGS)


def open_in_browser(address: str) -> bool:
    """Open an address in the user's browser, where there is a display; return whether one opened."""
    try:
        return has_display() and webbrowser.open(address)
    except webbrowser.Error:
        return False
