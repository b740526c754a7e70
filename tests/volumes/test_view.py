"""``retina_volume view``: what neuroglancer is asked to show, and that the files are served in parts."""

import json
import threading
import urllib.error
import urllib.request
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.ome_volumes import cells, needs_zarr, write

from nnunetv2_retina.commands import volume as command
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.images.spacing import Spacing
from nnunetv2_retina.volumes import store, view
from nnunetv2_retina.volumes.blocks import whole

pytestmark = needs_zarr


@pytest.fixture
def output(tmp_path):
    sizes = store.levels((8, 16, 16), Spacing(1, 1, 1, "nm"), (8, 16, 16), 8)
    store.create(tmp_path / "out.zarr", sizes, "uint8", 8, "test", {1: "mitochondria", 2: "lysosomes"})
    store.LevelWriter(tmp_path / "out.zarr", "0").write(whole((8, 16, 16)), np.ones((8, 16, 16), np.uint8))
    return tmp_path / "out.zarr"


def test_the_link_names_layers_colours_and_classes(output):
    state = json.loads(unquote(view.link("http://h/in.zarr", output, "http://h/out.zarr").partition("#!")[2]))
    image, labels = state["layers"]
    assert image == {"type": "image", "name": "image", "source": "zarr://http://h/in.zarr"}
    assert view.layers("x", None, "", "n5")[0]["source"] == "n5://x"
    assert labels["name"] == "labels, 1 mitochondria, 2 lysosomes" and labels["source"] == "zarr://http://h/out.zarr"
    assert labels["segmentColors"] == {"1": "#e69f00", "2": "#56b4e9"} and labels["segments"] == ["1", "2"]
    store.create(
        output / "labels/instances", store.levels((8, 16, 16), Spacing(1, 1, 1), (8, 16, 16), 8), "uint32", 8, "i", None
    )
    assert view.layers("x", output, "http://h/out.zarr")[2]["source"] == "zarr://http://h/out.zarr/labels/instances"


def test_only_labels_are_shown(tmp_path):
    with pytest.raises(RetinaError, match="holds no labels"):
        view.layers("x", write(tmp_path / "in.zarr", cells((4, 8, 8))), "y")


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_ports_that_there_are_not(output, capsys, port):
    assert command.main(["view", str(output), str(output), "--port", port]) == 2
    assert f"--port {port}; expected 1 to 65535, or 0 for any that is free" in capsys.readouterr().err


def test_a_port_that_is_taken_and_a_volume_that_is_not_there(output, capsys):
    with view.Server([output]) as server:
        assert command.main(["view", str(output), str(output), "--port", str(server.server_address[1])]) == 2
    assert "cannot be used (" in capsys.readouterr().err
    assert command.main(["view", "typo.zarr", str(output)]) == 2
    assert "no Zarr volume typo.zarr: no such folder" in capsys.readouterr().err


def test_files_are_served_in_parts_and_nothing_else(output, tmp_path):
    (tmp_path / "secret").write_text("x")
    shard = (output / "0/c/0/0/0").read_bytes()
    with view.Server([output]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"{server.url(0)}/0/c/0/0/0"
        for asked, expected in (("bytes=2-5", shard[2:6]), ("bytes=-7", shard[-7:]), ("bytes=3-", shard[3:])):
            request = urllib.request.Request(url, headers={"Range": asked})
            with urllib.request.urlopen(request) as answer:
                assert (answer.status, answer.read()) == (206, expected)
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
        with urllib.request.urlopen(url) as answer:
            assert (answer.status, answer.read()) == (200, shard)
        for wrong in (f"{server.url(0)}/../secret", f"{server.url(0)}/..%2fsecret", f"{server.url(0)}/0/c/0/0/1"):
            with pytest.raises(urllib.error.HTTPError, match="404") as error:
                urllib.request.urlopen(wrong)
            error.value.close()
        server.shutdown()
