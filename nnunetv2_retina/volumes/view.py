"""Looking at a volume and its labels: a link to neuroglancer, and a server of this machine's files for it to read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json
from nnunetv2_retina.images.n5 import is_n5
from nnunetv2_retina.images.ome_zarr import open_volume
from nnunetv2_retina.volumes.merging import IMAGE

NEUROGLANCER = "https://neuroglancer-demo.appspot.com"
MOST_PORT = 65535
Say = Callable[[str], None]


def _colours(output: Path) -> dict[str, str]:
    """Return the colour of each class, ``#rrggbb``, by its label."""
    return {
        str(entry["label-value"]): "#{:02x}{:02x}{:02x}".format(*entry["rgba"][:3])
        for entry in _about(output).get("colors", [])
        if entry["label-value"] != 0
    }


def layers(source: str, output: Path | None, base: str, kind: str = "zarr") -> list[dict[str, Any]]:
    """Return neuroglancer's layers: the image, the labels with the classes' colours and names, the instances.

    Args:
        source: URL of the image.
        output: of ``retina_volume predict``; None: no labels.
        base: URL at which the output is served.
        kind: of the image's store, as neuroglancer names it: zarr or n5.
    """
    shown: list[dict[str, Any]] = [{"type": "image", "name": "image", "source": f"{kind}://{source}"}]
    if output is None:
        return shown
    names = [f"{value} {name}" for value, name in class_names(output).items()]
    colours = _colours(output)
    shown.append({
        "type": "segmentation",
        "name": ", ".join(["labels", *names]),
        "source": f"zarr://{base}",
        "segments": list(colours),
        "segmentColors": colours,
        "selectedAlpha": 0.35,
    })  # fmt: skip
    if (output / IMAGE / "zarr.json").exists():
        instances = {"type": "segmentation", "name": "instances", "source": f"zarr://{base}/{IMAGE.rstrip('/')}"}
        shown.append({**instances, "visible": False})
    return shown


def class_names(output: Path) -> dict[int, str]:
    """Return label value -> name of its class of the labels that ``retina_volume predict`` wrote.

    Raises:
        RetinaError: for another folder.
    """
    properties = _about(output).get("properties", [])
    return {
        int(entry["label-value"]): str(entry.get("class", entry["label-value"]))
        for entry in properties
        if entry["label-value"] != 0
    }


def _about(output: Path) -> Mapping[str, Any]:
    contents = read_json(output / "zarr.json", "Give the folder that retina_volume predict wrote")
    about = contents.get("attributes", {}).get("ome", {}).get("image-label")
    if not isinstance(about, Mapping):
        raise RetinaError(f"{output} holds no labels. Give the folder that retina_volume predict wrote")
    return about


def link(source: str, output: Path | None, base: str, kind: str = "zarr") -> str:
    """Return the address at which neuroglancer shows the volume; arguments as for ``layers``."""
    state = {"layers": layers(source, output, base, kind), "layout": "4panel"}
    return f"{NEUROGLANCER}/#!{quote(json.dumps(state, separators=(',', ':')))}"


def serve(source: str, output: Path | None, port: int, say: Say, show: Callable[[str], object] | None = None) -> None:
    """Say neuroglancer's address for a volume, and serve this machine's files to it until Ctrl-C.

    Args:
        source: a folder or URL of the image.
        output: of ``retina_volume predict``; None: the image alone.
        port: of the server; 0: any that is free.
        say: gets each line.
        show: opens an address in a browser; None: it is said alone.

    Raises:
        RetinaError: for an image that is no volume, an output without labels, or a port that cannot be used.
    """
    if not 0 <= port <= MOST_PORT:
        raise RetinaError(f"--port {port}; expected 1 to {MOST_PORT}, or 0 for any that is free")
    open_volume(source, unstated=(1, 1, 1))
    remote = "://" in source
    folders = [*([] if output is None else [output]), *([] if remote else [Path(source)])]
    with _server(folders, port) as server:
        image = source if remote else server.url(len(folders) - 1)
        address = link(image, output, server.url(0) if folders else "", "n5" if is_n5(source) else "zarr")
        say(address)
        say(f"or: {napari_line(source, output)}")
        if show is not None:
            show(address)
        say("serving the files to this machine's browsers; Ctrl-C ends it")
        server.serve_forever()


def _server(folders: list[Path], port: int) -> Server:
    try:
        return Server(folders, port)
    except OSError as error:
        raise RetinaError(
            f"--port {port} cannot be used ({error.strerror or error}). Give another, or 0 for any that is free"
        ) from error


class Server(ThreadingHTTPServer):
    """Serves folders of this machine to its own browsers, read-only, at ``/0/``, ``/1/`` and so on."""

    daemon_threads = True

    def __init__(self, folders: list[Path], port: int = 0) -> None:
        self.folders = [folder.resolve() for folder in folders]
        super().__init__(("127.0.0.1", port), _Handler)

    def url(self, number: int) -> str:
        """Return the address of a folder."""
        return f"http://127.0.0.1:{self.server_address[1]}/{number}/{quote(self.folders[number].name)}"


class _Handler(SimpleHTTPRequestHandler):
    """Files with parts of them (``Range``), which readers of shards ask for, to pages of any origin."""

    server: Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a browser asks for thousands of chunks."""

    def _answer(self, body: bool) -> None:
        path = self._file()
        if path is None:
            self.send_error(404)
            return
        size = path.stat().st_size
        first, last = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and (asked[1] or asked[2]):
            first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
            last = min(last, int(asked[2])) if asked[1] and asked[2] else last
            if first > last:
                self.send_error(416)
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(last - first + 1))

    def _file(self) -> Path | None:
        """Return the file that a request means, if it lies in a folder that is served."""
        number, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if not number.isdecimal() or int(number) >= len(self.server.folders):
            return None
        folder = self.server.folders[int(number)]
        path = (folder.parent / rest).resolve()
        return path if path.is_file() and folder in path.parents else None


def napari_line(source: str, output: Path | None) -> str:
    """Return the command that shows the same in napari."""
    command = "retina_view" if is_n5(source) else "napari --plugin napari-ome-zarr"
    return " ".join([command, source, *([] if output is None else [str(output)])])
