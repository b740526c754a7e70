"""Fetching against a server on this machine that misbehaves: dropped, short, wrong, missing, busy, moved."""

import hashlib
import io
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from helpers.benchmark_sources import zipped
from helpers.benchmark_sources_2d import perez_members

from dataset_conversion.convert import main
from dataset_conversion.downloads import catalogue, http_transfer
from dataset_conversion.downloads.catalogue import Collection, RemoteFile
from dataset_conversion.downloads.checksums import RECORD, Checksum, compute
from dataset_conversion.downloads.fetch import Arrivals, fetch
from dataset_conversion.downloads.status import MISSING, PRESENT, describe, status
from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError

BODY = np.random.default_rng(0).bytes(300_000)


def sha256(content):
    return Checksum("sha256", hashlib.sha256(content).hexdigest())


RIGHT = sha256(BODY)


def archive(**members):
    """The bytes of a zip archive, the same whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(f"top/{name}"), content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves ``content`` by path; ``plan`` holds what to do with the next requests, ``requests`` what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.plan, self.requests = {}, [], []
        self.ranges, self.etag, self.date = True, '"v1"', None

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        (self.server.plan.pop(0) if self.server.plan else serve())(self)


def serve(cut=None, length=True, shift=0, kind="application/octet-stream"):
    """Send the file, or what Range asks for; ``cut``: close after so many bytes."""

    def act(handler):
        server, headers = handler.server, handler.headers
        body = server.content[handler.path.strip("/")]
        start, asked = 0, headers.get("Range")
        if asked and server.ranges and headers.get("If-Range") in (None, server.etag, server.date):
            start = int(asked[len("bytes=") : -1])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start + shift}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        for name, value in (("ETag", server.etag), ("Last-Modified", server.date), ("Content-Type", kind)):
            if value:
                handler.send_header(name, value)
        if length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:] if cut is None else body[start : start + cut])
        handler.close_connection = True

    return act


def answer(code, **headers):
    def act(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def hang_up(handler):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_transfer, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    server.content["a.bin"] = BODY
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def offer(server, monkeypatch):
    """Put a benchmark ``toy`` with these files into the catalogue."""

    def put(*files, checksum=RIGHT, paths=("a.bin",), name="a.bin", **more):
        files = files or (RemoteFile(name, tuple(map(server.url, paths)), checksum, **more),)
        toy = Collection(
            key="toy", title="Toy", page="https://toy.example", licence="none", files=files, if_unreachable="Ask."
        )
        monkeypatch.setitem(catalogue.COLLECTIONS, "toy", toy)

    put()
    return put


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


# ----------------------------------------------------------------------------------------------- what goes as it should


def test_whole(server, offer, tmp_path):
    seen = []
    assert fetch("toy", tmp_path / "new", lambda *step: seen.append(step)) == [tmp_path / "new" / "a.bin"]
    assert (tmp_path / "new" / "a.bin").read_bytes() == BODY
    assert files(tmp_path) == ["a.bin"]
    assert seen[-1] == ("a.bin", len(BODY), len(BODY))
    assert fetch("toy", tmp_path / "new") == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "git_blob"])
def test_every_kind_of_checksum(offer, tmp_path, algorithm):
    offer(checksum=compute(io.BytesIO(BODY), len(BODY), algorithm))
    fetch("toy", tmp_path)
    offer(checksum=compute(io.BytesIO(BODY + b"x"), len(BODY) + 1, algorithm))
    with pytest.raises(RetinaError, match=rf"a.bin: got {algorithm} \w+, expected \w+. A file was cut off or is anoth"):
        fetch("toy", tmp_path)


def test_git_blob_id_is_git_s():
    """``printf hello | git hash-object --stdin``"""
    assert compute(io.BytesIO(b"hello"), 5, "git_blob").digest == "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"


def test_redirect_and_unknown_length(server, offer, tmp_path):
    server.plan = [answer(302, Location=server.url("a.bin")), serve(length=False)]
    offer(paths=("moved",))
    fetch("toy", tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_folders_of_names_are_made(offer, tmp_path):
    offer(name="mito/binary/a.bin")
    fetch("toy", tmp_path)
    assert (tmp_path / "mito/binary/a.bin").is_file()


# --------------------------------------------------------------------------------------------------- broken connections


def test_dropped_connections_are_continued(server, offer, tmp_path):
    server.plan = [serve(cut=100_000), hang_up, serve(cut=50_000), answer(503, Retry_After="0")]
    fetch("toy", tmp_path)
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert server.requests[-1][1]["If-Range"] == '"v1"'
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_silent_server(server, offer, monkeypatch, tmp_path):
    monkeypatch.setattr(http_transfer, "TIMEOUT", 0.2)

    def fall_silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.send_header("ETag", handler.server.etag)
        handler.end_headers()
        handler.wfile.write(BODY[:1000])
        time.sleep(0.5)
        handler.close_connection = True

    server.plan = [fall_silent]
    fetch("toy", tmp_path)
    assert ranges(server) == [None, "bytes=1000-"]


def test_chunks_that_end_too_early(server, offer, tmp_path):
    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", handler.server.etag)
        handler.end_headers()
        handler.wfile.write(b"3e8\r\n" + BODY[:1000] + b"\r\n3e8\r\n" + BODY[1000:1500])
        handler.close_connection = True

    server.plan = [chunked]
    fetch("toy", tmp_path)
    assert ranges(server)[1].startswith("bytes=1")
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_interrupted_process_is_continued(server, offer, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("toy", tmp_path, interrupt)
    before = (tmp_path / "a.bin.part").stat().st_size
    assert describe(status("toy", tmp_path)) == f"{format_bytes(before)} of a.bin"
    fetch("toy", tmp_path)
    assert 0 < before < len(BODY)
    assert ranges(server) == [None, f"bytes={before}-"]
    assert files(tmp_path) == ["a.bin"]


def test_file_that_changed_meanwhile_starts_again(server, offer, tmp_path):
    server.content["a.bin"] = bytes(len(BODY))
    server.plan = [serve(cut=1000)] + [hang_up] * 4
    with pytest.raises(RetinaError, match=r"dropped .* \(tried 4 times\)"):
        fetch("toy", tmp_path)
    server.content["a.bin"], server.etag = BODY, '"v2"'
    fetch("toy", tmp_path)
    assert ranges(server)[-1] == "bytes=1000-"  # refused by If-Range: the whole file came
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_server_that_ignores_range(server, offer, tmp_path):
    server.ranges = False
    server.plan = [serve(cut=1000), serve(cut=2000)]
    fetch("toy", tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_server_without_etag(server, offer, tmp_path):
    """The date does; with neither, or a weak ETag alone, the file is fetched from its beginning."""
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    cases = [(None, date, "bytes=1000-"), ('W/"v1"', date, "bytes=1000-"), (None, None, None), ('W/"v1"', None, None)]
    for etag, modified, expected in cases:
        server.etag, server.date, server.requests = etag, modified, []
        server.plan = [serve(cut=1000)]
        fetch("toy", tmp_path)
        assert ranges(server) == [None, expected]
        (tmp_path / "a.bin").unlink()


def test_continued_at_the_wrong_place(server, offer, tmp_path):
    server.plan = [serve(cut=1000), serve(shift=5)]
    fetch("toy", tmp_path)
    assert ranges(server) == [None, "bytes=1000-", None]


def test_longer_than_the_file(server, offer, tmp_path):
    server.plan = [serve(cut=1000), answer(416)]
    fetch("toy", tmp_path)
    assert ranges(server) == [None, "bytes=1000-", None]


def test_pieces_that_do_not_fit_are_fetched_once_more(server, offer, tmp_path):
    """A server may give the same ETag to another file."""
    server.content["a.bin"] = bytes(len(BODY))
    server.plan = [serve(cut=1000)] + [hang_up] * 4
    with pytest.raises(RetinaError):
        fetch("toy", tmp_path)
    server.content["a.bin"] = BODY
    fetch("toy", tmp_path)
    assert ranges(server)[-2:] == ["bytes=1000-", None]
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_complete_part_is_only_verified(server, offer, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    state = {"url": server.url("a.bin"), "validator": '"v1"', "total": len(BODY)}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    fetch("toy", tmp_path)
    assert server.requests == []
    assert files(tmp_path) == ["a.bin"]


def test_part_of_unknown_origin_is_not_continued(server, offer, tmp_path):
    for state in (None, "{", '{"url": "x"}', json.dumps({"url": "http://x/", "validator": '"v1"', "total": 9})):
        (tmp_path / "a.bin.part").write_bytes(b"something else")
        if state is not None:
            (tmp_path / "a.bin.part.json").write_text(state)
        fetch("toy", tmp_path)
        assert ranges(server)[-1] is None
        assert files(tmp_path) == ["a.bin"]
        (tmp_path / "a.bin").unlink()


def test_busy_for_good(server, offer, tmp_path):
    server.plan = [answer(503)] * 4
    with pytest.raises(
        RetinaError, match=r"a.bin could not be downloaded: http://.*the server answers 503 \(Service U"
    ):
        fetch("toy", tmp_path)
    assert len(server.requests) == 4


# ------------------------------------------------------------------------------------------------- mirrors, wrong files


def test_mirrors_in_turn(server, offer, tmp_path):
    server.content |= {"wrong": BODY[::-1], "good": BODY}
    offer(paths=("gone", "wrong", "page", "good"))
    server.plan = [answer(404), serve(), serve_page]
    fetch("toy", tmp_path)
    assert [path for path, _ in server.requests] == ["/gone", "/wrong", "/page", "/good"]
    assert (tmp_path / "a.bin").read_bytes() == BODY


def serve_page(handler):
    handler.server.content["page"] = b"<html>moved</html>"
    serve(kind="text/html; charset=utf-8")(handler)


def test_nothing_wrong_is_kept(server, offer, tmp_path):
    server.content["a.bin"] = BODY[::-1]
    message = (
        rf"a.bin could not be downloaded: http://127.0.0.1:\d+/a.bin: wrong content of 300.0 kB: got "
        rf"{sha256(BODY[::-1])}, expected {sha256(BODY).digest}. Run this again later .*put it at .*a.bin. "
        r"Ask. Page: https://toy.example$"
    )
    with pytest.raises(RetinaError, match=message):
        fetch("toy", tmp_path)
    assert files(tmp_path) == []


def test_every_failure_is_told(server, offer, tmp_path):
    offer(paths=("gone", "page"))
    server.plan = [answer(404), serve_page]
    with pytest.raises(RetinaError, match=r"gone: the server answers 404.*page: the server sends a web page instead"):
        fetch("toy", tmp_path)


def test_short_file(server, offer, tmp_path):
    """A server that cuts every time: each attempt that brings bytes counts as progress, the last one ends it."""
    server.ranges = False
    server.plan = [serve(cut=1000)] * 9
    with pytest.raises(RetinaError, match=r"ended after 1.0 kB of 300.0 kB \(tried 4 times\)"):
        fetch("toy", tmp_path)


def test_no_server(offer, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        offer(RemoteFile("a.bin", (f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin",)))
        with pytest.raises(RetinaError, match=r"no connection \(.*refused.*tried 4 times"):
            fetch("toy", tmp_path)


def failing(monkeypatch, reason):
    def urlopen(*_, **__):
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def test_certificate_is_not_skipped(offer, monkeypatch, tmp_path):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    failing(monkeypatch, error)
    message = r"TLS certificate is not valid \(certificate has expired\).*certificate of 127.0.0.1 is not skipped sile"
    with pytest.raises(RetinaError, match=message + r".*curl --insecure --location --output \S+/a.bin http\S+ \(wha"):
        fetch("toy", tmp_path)
    offer(checksum=None)
    with pytest.raises(RetinaError, match=message) as caught:
        fetch("toy", tmp_path)
    assert "curl" not in str(caught.value)  # nothing would verify what it brings


def test_no_such_host(offer, monkeypatch, tmp_path):
    failing(monkeypatch, socket.gaierror(-2, "Name or service not known"))
    with pytest.raises(RetinaError, match=r"there is no such host, or no network"):
        fetch("toy", tmp_path)


def test_disk_too_small(offer, monkeypatch, tmp_path):
    monkeypatch.setattr(http_transfer, "SPARE_BYTES", 1 << 62)
    with pytest.raises(RetinaError, match=r"a.bin needs 300.0 kB more; .* has .* free. Make room, or choose a folder"):
        fetch("toy", tmp_path)
    assert files(tmp_path) == []


def test_folder_that_cannot_be(offer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RetinaError, match=r"cannot write to .*file.*Choose another folder"):
        fetch("toy", tmp_path / "file" / "below")


# -------------------------------------------------------------------------------------------------------- what is there


def test_wrong_file_there_is_not_replaced(server, offer, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(RetinaError, match=rf"a.bin: got {sha256(b'mine')}, expected .*delete it \(or move it away\)"):
        fetch("toy", tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert server.requests == []


def test_file_deeper_in_the_folder_counts(server, offer, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.bin").write_bytes(BODY)
    assert fetch("toy", tmp_path) == []
    assert describe(status("toy", tmp_path)) == "complete"
    assert server.requests == []


def test_unpacked_archive_counts(server, offer, tmp_path):
    offer(checksum=None, name="all.zip", contents={"x.tif": sha256(b"x"), "In/*.png": None})
    (tmp_path / "top" / "In").mkdir(parents=True)
    (tmp_path / "top" / "x.tif").write_bytes(b"x")
    assert describe(status("toy", tmp_path)) == "nothing"
    (tmp_path / "top" / "In" / "1.png").write_bytes(b"png")
    assert describe(status("toy", tmp_path)) == "complete"
    assert fetch("toy", tmp_path) == []
    (tmp_path / "top" / "x.tif").write_bytes(b"y")
    with pytest.raises(RetinaError, match=r"x.tif: got sha256 \w+, expected \w+"):
        fetch("toy", tmp_path)
    assert files(tmp_path) == ["1.png", "x.tif"]


def test_archive_of_another_name_counts(server, offer, tmp_path):
    offer(checksum=None, name="all.zip", contents={"x.tif": sha256(b"x")})
    (tmp_path / "all (1).zip").write_bytes(archive(**{"x.tif": b"x"}))
    assert fetch("toy", tmp_path) == []


def test_first_sha256_is_recorded(server, offer, tmp_path):
    offer(checksum=None, name="all.zip")
    server.content["a.bin"] = archive(x=b"1")
    fetch("toy", tmp_path)
    entry = json.loads((tmp_path / RECORD).read_text())["all.zip"]
    assert entry["sha256"] == hashlib.sha256(archive(x=b"1")).hexdigest()
    assert entry["origin"] == server.url("a.bin")
    assert fetch("toy", tmp_path) == []
    (tmp_path / "all.zip").write_bytes(archive(x=b"2"))
    with pytest.raises(RetinaError, match=rf"all.zip: got {sha256(archive(x=b'2'))}, expected {entry['sha256']}"):
        fetch("toy", tmp_path)
    (tmp_path / "all.zip").unlink()
    server.content["a.bin"] = archive(x=b"2")
    with pytest.raises(RetinaError, match=r"If the authors released a new version, delete the file's entry in checks"):
        fetch("toy", tmp_path)
    assert files(tmp_path) == [RECORD]


def test_file_brought_by_hand_is_recorded(offer, tmp_path):
    offer(checksum=None, name="all.zip")
    (tmp_path / "all.zip").write_bytes(archive(x=b"1"))
    fetch("toy", tmp_path)
    assert json.loads((tmp_path / RECORD).read_text())["all.zip"]["origin"] == "found in the folder"


def test_damaged_archive_is_not_recorded(server, offer, tmp_path):
    offer(checksum=None, name="all.zip")
    whole = archive(x=b"1" * 1000)
    (tmp_path / "all.zip").write_bytes(whole[:-30])
    with pytest.raises(RetinaError, match=r"all.zip: not a complete zip archive"):
        fetch("toy", tmp_path)
    (tmp_path / "all.zip").write_bytes(whole.replace(b"1" * 10, b"2" * 10, 1))
    with pytest.raises(RetinaError, match=r"all.zip: a damaged zip archive \(member top/x\)"):
        fetch("toy", tmp_path)
    deflated = io.BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x", BODY)
    (tmp_path / "all.zip").write_bytes(deflated.getvalue()[:100] + b"\xff" * 99 + deflated.getvalue()[199:])
    with pytest.raises(RetinaError, match=r"all.zip: (not a complete|a damaged) zip archive"):
        fetch("toy", tmp_path)
    (tmp_path / "all.zip").unlink()
    server.content["a.bin"] = whole[:-30]
    with pytest.raises(RetinaError, match=r"all.zip could not be downloaded: .*not a complete zip archive"):
        fetch("toy", tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"all.zip": {}}'])
def test_record_that_cannot_be_read(offer, tmp_path, text):
    offer(checksum=None, name="all.zip")
    (tmp_path / "all.zip").write_bytes(archive(x=b"1"))
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(RetinaError, match=r"checksums.json.*record of earlier downloads.*or delete"):
        fetch("toy", tmp_path)


# ------------------------------------------------------------------------------------------------------------- the rest


def test_status_counts_files(server, offer, tmp_path):
    offer(*(RemoteFile(name, (server.url("a.bin"),), sha256(BODY)) for name in ("a", "b", "c")))
    assert describe(status("toy", tmp_path)) == "nothing"
    (tmp_path / "b").write_bytes(BODY)
    files_of = status("toy", tmp_path)
    assert describe(files_of) == "1 of 3 files"
    assert [(file.state, file.size) for file in files_of] == [(MISSING, 0), (PRESENT, len(BODY)), (MISSING, 0)]


def test_command(server, monkeypatch, tmp_path, capsys):
    """From nothing to a data set; the second time nothing is fetched."""
    members, _ = perez_members()
    server.content["perez.zip"] = zipped(tmp_path / "perez.zip", members).read_bytes()
    file = replace(catalogue.PEREZ.files[0], urls=(server.url("perez.zip"),))
    monkeypatch.setitem(catalogue.COLLECTIONS, "perez", replace(catalogue.PEREZ, files=(file,)))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    arguments = ["perez", str(tmp_path / "source"), "--structure", "nuclei", "--download", "--overwrite"]
    for _ in range(2):
        assert main(arguments) == 0
        assert "Dataset806_PerezNuclei" in capsys.readouterr().out
    assert files(tmp_path / "source") == ["checksums.json", "chm-supplemental_data.zip"]
    assert len(server.requests) == 1
    assert describe(status("perez", tmp_path / "source")) == "complete"


def test_unknown_keys(tmp_path):
    with pytest.raises(RetinaError, match=r"no benchmark is called 'lucchi'; expected one of cremi, guay, kasthuri"):
        fetch("lucchi", tmp_path)
    with pytest.raises(RetinaError, match=r"'cem500k'"):
        fetch("cem500k", tmp_path)


def test_a_line_tells_of_each_file_that_arrived():
    stream = io.StringIO()
    arrivals = Arrivals(stream)
    arrivals("a.bin", 500, 2000)
    arrivals("a.bin", 2000, 2000)
    arrivals("b.bin", 1_500_000, None)
    assert stream.getvalue() == "  a.bin  2.0 kB\n"


def test_bytes_for_people():
    assert [format_bytes(n) for n in (0, 999, 1000, 25_000_000_000)] == ["0 bytes", "999 bytes", "1.0 kB", "25.0 GB"]
