"""Weights by name: what there is, fetching them once, and what names that are none are answered with."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.checks import known

from nnunetv2_retina.commands.import_weights import main
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import file_digest
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.study.study_file import read_study
from nnunetv2_retina.training.weights_request import requested_weights
from nnunetv2_retina.weights import catalogue, checkpoint, shipped
from nnunetv2_retina.weights.catalogue import WEIGHTS, NamedWeights


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A weights file on a server, as the entry ``cells`` of the catalogue, and an empty cache."""
    network = TransUNet(1, 1, NetworkConfig.named("tiny"))
    (tmp_path / "www").mkdir()
    checkpoint.save(tmp_path / "www" / "cells.pt", network.state_dict(), network.config)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(catalogue.VARIABLE, str(tmp_path / "cache"))
    entry = NamedWeights(
        name="cells", about="cells", file="cells.pt", page="a page", licence="CC0-1.0",
        urls=(f"http://127.0.0.1:{server.server_port}/cells.pt",), sha256=file_digest(tmp_path / "www" / "cells.pt"),
    )  # fmt: skip
    monkeypatch.setitem(WEIGHTS, "cells", entry)
    yield entry
    server.shutdown()
    server.server_close()


def test_the_catalogue_says_what_is_known_and_no_more():
    for name, entry in WEIGHTS.items():
        assert entry.name == name and entry.licence and entry.page and entry.about
        assert bool(entry.urls) <= (entry.sha256 is not None), f"{name}: a download that is not verified"
    entry = WEIGHTS["open"]
    assert entry.shipped is not None and file_digest(entry.shipped) == entry.sha256


def test_a_name_is_fetched_once_and_then_stands_for_a_checkpoint(served, tmp_path, monkeypatch):
    with pytest.raises(RetinaError, match=r"cells are not at .* yet\. Run once: retina_import_weights cells"):
        shipped.resolve("cells")
    assert main(["cells"]) == 0
    (tmp_path / "www" / "cells.pt").unlink()  # the server is not asked again
    assert main(["cells"]) == 0
    path = shipped.resolve("cells")
    assert Path(path).parent == tmp_path / "cache" / "cells"
    assert checkpoint.load(path).retina["network"] == NetworkConfig.named("tiny").to_dict()
    monkeypatch.setenv("RETINA_WEIGHTS", "cells")
    assert known(requested_weights()).path == path
    study = "name: a\nseeds: [1]\nreference: A\nweights: {x: cells}\ndatasets: [{dataset: 1, iterations: [1]}]\n"
    (tmp_path / "s.yaml").write_text(f"{study}systems: [{{name: A, trainer: nnUNetTrainerRETINA_tiny, weights: x}}]\n")
    assert read_study(tmp_path / "s.yaml").weights == {"x": path}


def test_without_a_network_the_file_is_put_there_by_hand_and_verified(served, tmp_path):
    served.folder.mkdir(parents=True)
    content = Path(tmp_path / "www" / "cells.pt").read_bytes()
    (tmp_path / "www" / "cells.pt").unlink()
    (served.folder / "cells.pt").write_bytes(content)
    assert main(["cells"]) == 0 and served.is_here


def test_a_hash_that_does_not_match_is_refused_and_nothing_is_kept(served, tmp_path, capsys):
    (tmp_path / "www" / "cells.pt").write_bytes(b"something else")
    assert main(["cells"]) == 2
    error = capsys.readouterr().err
    got = hashlib.sha256(b"something else").hexdigest()
    assert f"got sha256 {got}, expected {served.sha256}" in error and len(error.splitlines()) == 1
    assert not list(served.folder.iterdir())


def test_weights_without_a_known_hash_are_fetched_by_hand(served, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(WEIGHTS, "own", NamedWeights(name="own", about="", file=None, page="the page", licence="?"))
    assert main(["own"]) == 2
    assert "get the file from the page, put it alone into" in capsys.readouterr().err
    (WEIGHTS["own"].folder / "w.pt").write_bytes((tmp_path / "www" / "cells.pt").read_bytes())
    assert main(["own"]) == 0 and Path(shipped.resolve("own")).is_file()
    (WEIGHTS["own"].folder / "w.pt").write_bytes(b"another")
    assert main(["own"]) == 2
    assert "as when it was first used" in capsys.readouterr().err


def test_a_name_that_is_none_gets_the_nearest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetinaError, match=r"no weights are called opne, and .* Did you mean open\?"):
        shipped.resolve("opne")
    assert main(["imagenet"]) == 2
    assert "Did you mean imagenet21k?" in capsys.readouterr().err
    Path("opne").touch()
    assert shipped.resolve("opne") == "opne"


def test_the_list_says_licence_and_whether_they_are_here(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in WEIGHTS) and "Apache-2.0" in out


def test_nothing_to_import_is_said(capsys):
    assert main([]) == 2
    assert "--list lists the names" in capsys.readouterr().err
    assert main(["open"]) == 2
    assert "come with the package" in capsys.readouterr().err
