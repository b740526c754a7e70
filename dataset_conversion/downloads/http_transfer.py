"""Transfer one file from one address into ``NAME.part``, resuming where the server allows and retrying if it may help.

Libraries such as pooch begin a file again after an interruption, which does not end for gigabytes from slow hosts.
"""

from __future__ import annotations

import errno
import http.client
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2_retina import __version__
from nnunetv2_retina.console.wording import format_bytes
from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.files import read_json, write_json

PART, STATE = ".part", ".part.json"
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt; counted anew whenever an attempt brought bytes."""
TIMEOUT = 60.0
"""Seconds without a byte until a connection counts as dropped."""
LONGEST_WAIT = 60.0
"""Seconds at most that a server's Retry-After is heeded."""
SPARE_BYTES = 64 << 20
"""Left free on the disk."""
_CHUNK = 1 << 18
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

ByteProgress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all (None if the server does not say)."""


class TransferError(Exception):
    """This address does not give the file, as the text says; ``certificate``: because of its TLS certificate."""

    def __init__(self, reason: str, certificate: bool = False) -> None:
        super().__init__(reason)
        self.certificate = certificate


class _InterruptedError(Exception):
    """Worth another attempt, after ``wait`` seconds if the server asked for them."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _State:
    """What a partial file is a part of; kept beside it."""

    url: str
    validator: str | None
    """A strong ETag or a date, which tells the server whether it still has the same file."""
    total: int | None


def transfer(url: str, target: Path, progress: ByteProgress | None = None) -> bool:
    """Bring a whole file to ``target`` + ``.part``. An interrupted one is kept there and continued the next time.

    Args:
        url: http or https; redirects are followed.
        target: its final path; not touched.
        progress: called after every chunk.

    Returns:
        Whether it was pieced together from several connections (a piece of another version may be among them).

    Raises:
        TransferError: if the address does not give the file.
        RetinaError: if the disk cannot take it.
    """
    part = part_path(target)
    best, failures = _size(part), 0
    while True:
        try:
            return _attempt(url, target, progress)
        except _InterruptedError as error:
            size = _size(part)
            failures = 1 if size > best else failures + 1
            best = max(best, size)
            if failures > len(PAUSES):
                raise TransferError(f"{error} (tried {failures} times)") from error
            time.sleep(max(PAUSES[failures - 1], min(error.wait, LONGEST_WAIT)))


def part_path(target: Path) -> Path:
    """Return where a file lies until it is complete and verified."""
    return target.with_name(target.name + PART)


def discard(target: Path) -> None:
    """Remove what an interrupted transfer has left."""
    part_path(target).unlink(missing_ok=True)
    _state_path(target).unlink(missing_ok=True)


def put_in_place(target: Path) -> None:
    """Give a complete file its final name."""
    part_path(target).replace(target)
    _state_path(target).unlink(missing_ok=True)


def _attempt(url: str, target: Path, progress: ByteProgress | None) -> bool:
    """Open one connection; return whether it continued an earlier one."""
    state, offset = _read_state(target), _size(part_path(target))
    if state is None or state.url != url:
        state = None
    elif offset == state.total:
        return True  # the process ended between transfer and verification
    headers = {"User-Agent": f"nnunetv2-retina/{__version__}", "Accept-Encoding": "identity"}
    if state is not None and state.validator and offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": state.validator}
    with _open(url, headers, target) as response:
        continued = response.status == 206 and state is not None
        if continued:
            total = _check_range(response, offset, state, target)
        else:
            offset, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        _check_space(target, None if total is None else total - offset)
        if not continued:
            _write_state(target, _State(url, _validator(response), total))
        _receive(response, part_path(target), offset, total, progress)
    return continued


def _open(url: str, headers: dict[str, str], target: Path) -> Any:
    """Return the response; failures are sorted by what can be done about them."""
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part is longer than the server's file
            discard(target)
            raise _InterruptedError("the server's file is another one now") from error
        text = f"the server answers {error.code} ({error.reason})"
        if error.code in _TRY_AGAIN:
            wait = error.headers.get("Retry-After", "")
            raise _InterruptedError(text, float(wait) if wait.isdecimal() else 0.0) from error
        raise TransferError(text) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise TransferError(f"its TLS certificate is not valid ({reason.verify_message})", True) from error
        if isinstance(reason, socket.gaierror):
            raise TransferError("there is no such host, or no network") from error
        raise _InterruptedError(f"no connection ({reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(f"the connection was dropped ({error or type(error).__name__})") from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise TransferError("the server sends a web page instead of the file: it was moved or removed")
    return response


def _check_range(response: Any, offset: int, state: _State | None, target: Path) -> int | None:
    """Return the size of the whole file, if this piece begins where ours ends and is of a file of the same size."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    before = None if state is None else state.total
    total = before if match is None or match[3] == "*" else int(match[3])
    if match is None or int(match[1]) != offset or before not in (None, total):
        discard(target)
        raise _InterruptedError("the server continues at another place than asked")
    return total


def _check_space(target: Path, needed: int | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed is not None and needed + SPARE_BYTES > free:
        raise RetinaError(
            f"{target.name} needs {format_bytes(needed)} more; {target.parent} has {format_bytes(free)} free. "
            "Make room, or choose a folder on another disk."
        )


def _receive(response: Any, part: Path, size: int, total: int | None, progress: ByteProgress | None) -> None:
    """Append the body to a partial file of ``size`` bytes."""
    try:
        file = part.open("ab" if size else "wb")
    except OSError as error:
        raise _disk(part, error) from error
    with file:
        while True:
            try:
                chunk = response.read1(_CHUNK)  # what has arrived: nothing is lost when the rest does not
            except (OSError, http.client.HTTPException) as error:
                raise _InterruptedError(f"the connection was dropped after {format_bytes(size)}") from error
            if not chunk:
                break
            try:
                file.write(chunk)
            except OSError as error:
                raise _disk(part, error) from error
            size += len(chunk)
            if progress is not None:
                progress(size, total)
    if total is not None and size < total:
        raise _InterruptedError(f"the connection ended after {format_bytes(size)} of {format_bytes(total)}")


def _disk(part: Path, error: OSError) -> RetinaError:
    advice = "Make room on the disk." if error.errno == errno.ENOSPC else "Check the folder's permissions."
    return RetinaError(f"cannot write {part}: {error.strerror}. {advice}")


def _validator(response: Any) -> str | None:
    """Return what If-Range may carry (RFC 9110, 13.1.5): a strong ETag, else the date."""
    etag: str | None = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _state_path(target: Path) -> Path:
    return target.with_name(target.name + STATE)


def _read_state(target: Path) -> _State | None:
    try:
        return _State(**read_json(_state_path(target), "The download starts again."))
    except (RetinaError, TypeError):
        return None  # without it the partial file cannot be continued


def _write_state(target: Path, state: _State) -> None:
    try:
        part_path(target).unlink(missing_ok=True)  # it belongs to another state
        write_json(_state_path(target), asdict(state))
    except OSError as error:
        raise _disk(_state_path(target), error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
