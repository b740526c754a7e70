"""``retina_view``: what it shows where, and that it works where there is neither display nor napari nor browser."""

import socket
import webbrowser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers.checks import noting
from helpers.ome_volumes import cells, needs_zarr, write

from nnunetv2_retina.commands.view import main
from nnunetv2_retina.viewing import browser

STACK = np.random.default_rng(0).integers(0, 255, (3, 20, 24), np.uint8)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(browser, "has_napari", lambda: False)
    monkeypatch.setattr(browser, "has_display", lambda: False)
    for name, array in (("image.tif", STACK), ("labels.tif", (STACK > 128).astype(np.uint8)), ("small.tif", STACK[:2])):
        tifffile.imwrite(name, array, photometric="minisblack")
    return tmp_path


def test_a_page_is_written_where_it_is_asked_for(files, capsys):
    assert main(["image.tif", "labels.tif", "--page", "page.html"]) == 0
    assert capsys.readouterr().out == "wrote page.html\n"
    page = (files / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and '"name":"label 1"' in page


def test_without_display_napari_and_browser_the_page_is_named(files, capsys):
    assert main(["image.tif"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("wrote ") and first.endswith("image.html") and "no browser to open it here" in second


def test_with_a_display_the_page_is_opened(files, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(browser, "has_display", lambda: True)
    monkeypatch.setattr(webbrowser, "open", noting(opened, str, lambda _: True))
    assert main(["image.tif", "labels.tif"]) == 0
    assert opened[0].startswith("file://") and opened[0].endswith("image.html")


def test_with_napari_and_a_display_it_is_napari_that_shows(files, monkeypatch):
    from nnunetv2_retina.viewing import in_napari

    shown: list[Any] = []
    monkeypatch.setattr(browser, "has_napari", lambda: True)
    monkeypatch.setattr(in_napari, "show", shown.append)
    assert main(["image.tif"]) == 0 and not shown, "no display"
    monkeypatch.setattr(browser, "has_display", lambda: True)
    assert main(["image.tif", "labels.tif"]) == 0
    (((image, _, kind), (labels, about, other)),) = shown
    assert (kind, other) == ("image", "labels") and about["features"]["class"] == ["background", "label 1"]
    np.testing.assert_array_equal(labels, STACK > 128)
    np.testing.assert_array_equal(image, STACK)


@needs_zarr
def test_volumes_are_served_for_neuroglancer(files, monkeypatch, capsys):
    from nnunetv2_retina.volumes import view

    write(files / "in.zarr", cells((4, 8, 8)))
    monkeypatch.setattr(view.Server, "serve_forever", lambda self: None)
    assert main(["in.zarr"]) == 0
    link, line, last = capsys.readouterr().out.splitlines()
    assert link.startswith(view.NEUROGLANCER) and "in.zarr" in link and line.endswith("in.zarr") and "Ctrl-C" in last
    assert main(["in.zarr", "--page", "part.html", "--box", "0:2,:,:"]) == 0
    assert '"depth":2' in (files / "part.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.tif", "small.tif", "--page", "p.html"], "labels small have the shape (2, 20, 24)"),
        (["absent.tif"], "absent.tif: no such file"),
        (["image.tif", "--page", "."], "--page . is a folder"),
        (["image.tif", "--page", "small.tif"], "--page small.tif; expected the name of a page, such as small.html"),
        (["absent.zarr"], "no Zarr volume absent.zarr"),
    ],
)
def test_refusals_in_one_sentence(files, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(files.glob("*.html"))


def test_what_counts_as_a_display(monkeypatch, tmp_path):
    monkeypatch.setattr(browser, "sys", SimpleNamespace(platform="linux"))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert not browser.has_display() and not browser.open_in_browser("http://x")
    for dead in (":987", "nowhere", "127.0.0.1:99999", "host"):
        monkeypatch.setenv("DISPLAY", dead)
        assert not browser.has_display(), dead
    with socket.create_server(("127.0.0.1", 0)) as server:  # as ssh forwards one
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{server.getsockname()[1] - 6000}.0")
        assert browser.has_display()
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
        assert not browser.has_display()
        monkeypatch.delenv("QT_QPA_PLATFORM")
    assert not browser.has_display(), "the server has gone"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", ".")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert not browser.has_display()
    with socket.socket(socket.AF_UNIX) as wayland:
        wayland.bind("wayland-0")
        wayland.listen()
        assert browser.has_display()
    monkeypatch.setattr(browser, "sys", SimpleNamespace(platform="darwin"))
    assert browser.has_display()
