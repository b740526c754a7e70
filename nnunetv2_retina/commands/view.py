"""``retina_view``: an image under its labels, in napari or in the browser; see ``nnunetv2_retina.viewing``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from nnunetv2_retina import console
from nnunetv2_retina.console import say
from nnunetv2_retina.errors import RetinaError


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = console.parser(
        "retina_view",
        "Show an image under its labels: in napari if it is installed and there is a display, else in the browser, "
        "files as a page with a slider, OME-Zarr volumes in neuroglancer.",
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="whatever retina_convert reads (FILE.h5::PATH for HDF5), or an OME-Zarr volume"
    )
    parser.add_argument(
        "labels", metavar="LABELS", nargs="*",
        help="predictions, masks or instances of it; classes are named by the dataset.json beside them",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, metavar="OUT.html", help="write the page, one file that stands alone, and show nothing"
    )
    parser.add_argument("--browser", action="store_true", help="the browser, also where napari is installed")
    parser.add_argument("--box", metavar="BOX", help="part of Zarr volumes for a page: z0:z1,y0:y1,x0:x1")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the server of volumes (default: any)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Show what the arguments name.

    Raises:
        RetinaError: for files that cannot be read, or labels that do not lie on the image.
    """
    from nnunetv2_retina.images.ome_zarr import is_zarr
    from nnunetv2_retina.viewing import browser

    in_napari = not (arguments.page or arguments.browser) and browser.has_napari() and browser.has_display()
    is_volume = is_zarr(arguments.image.partition("::")[0]) and not (arguments.box or arguments.page)
    if is_volume:
        _show_volume(arguments, in_napari)
        return
    from nnunetv2_retina.viewing.scene import read_scene

    scene = read_scene(arguments.image, arguments.labels, arguments.box)
    if in_napari:
        from nnunetv2_retina.viewing import in_napari as napari

        napari.show(napari.scene_layers(scene))
        return
    from nnunetv2_retina.display.slider import slider_page
    from nnunetv2_retina.files import check_page, write_text

    path = arguments.page or Path(tempfile.mkdtemp(prefix="retina_view-")) / f"{scene.name.replace('/', '_')}.html"
    check_page(path, "--page")
    page = slider_page(scene.name, scene.image, scene.layers, scene.spacing)
    write_text(path, page, "Give another place with --page")
    say(f"wrote {path}")
    if arguments.page is None and not browser.open_in_browser(path.absolute().as_uri()):
        say("no browser to open it here: open the file in one, also on another machine")


def _show_volume(arguments: argparse.Namespace, in_napari: bool) -> None:
    if in_napari:
        from nnunetv2_retina.viewing import in_napari as napari

        labels = [napari.volume_layer(path, labels=True) for path in arguments.labels]
        napari.show([napari.volume_layer(arguments.image), *labels])
        return
    if len(arguments.labels) > 1:
        raise RetinaError(
            f"{len(arguments.labels)} volumes of labels; neuroglancer's link takes one, with its instances. Give one, "
            "or a part with --box"
        )
    from nnunetv2_retina.viewing.browser import open_in_browser
    from nnunetv2_retina.volumes.view import serve

    output = Path(arguments.labels[0]) if arguments.labels else None
    serve(arguments.image, output, arguments.port, say, open_in_browser)


main = console.command(parser, run)
