"""A file that is coming in: its bytes so far, where they are from, and what they should amount to.

``NAME.part.json`` is written before the first byte of a version, so whatever is in ``NAME.part`` is from that version.
One process at a time has a part::

    with Part(Path("a.json"), "md5:981b...") as part:
        part.accept(*read_offer(url, response))     # goes on, or starts anew
        part.write(block)
        if part.digest.problem is None:
            part.finish()                           # now it is a.json
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bert.download.web import RANGE_STATUS, Passing
from bert.files import replacing

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

BLOCK = 1 << 20  # bytes


class FetchError(Exception):
    """A file could not be had. The message lists every address with its reason and says what to do by hand."""


@dataclass(frozen=True)
class Origin:
    """One version of the file at ``url``; ``validator`` (ETag or Last-Modified) tells it from others."""

    url: str
    validator: str | None
    size: int | None  # bytes of the whole file


class Digest:
    """SHA-256 of the bytes seen, and the sum that ``checksum`` ("md5:...", "sha1:...", "sha256:...") asks for."""

    def __init__(self, checksum: str | None = None):
        self._algorithm, _, self._expected = (checksum or "sha256:").partition(":")
        self._sums = {name: hashlib.new(name) for name in {"sha256", self._algorithm}}

    def update(self, block: bytes) -> None:
        for each in self._sums.values():
            each.update(block)

    def read(self, file: BinaryIO, watch: Callable[[int], object] = lambda count: None) -> None:
        """Take in all that is left of ``file``."""
        while block := file.read(BLOCK):
            self.update(block)
            watch(len(block))

    @property
    def sha256(self) -> str:
        return self._sums["sha256"].hexdigest()

    @property
    def problem(self) -> str | None:
        """Say how the bytes differ from what was expected; None where they do not, or nothing was."""
        found = self._sums[self._algorithm].hexdigest()
        if self._expected in ("", found):
            return None
        return f"{self._algorithm} {found}, expected {self._expected}"


class Part:
    """The part file of ``target``, locked while this is open; ``digest`` is that of its bytes so far."""

    def __init__(self, target: Path, checksum: str | None = None):
        self.target = target
        self._checksum = checksum
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def __enter__(self) -> Part:
        self._file = os.fdopen(_open_locked(self._path), "rb+")
        self.digest, self._is_finished = Digest(self._checksum), False
        self.origin = self._read_note()
        self.digest.read(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_finished and not self.size:
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        self._file.close()

    @property
    def size(self) -> int:
        return self._file.tell()

    @property
    def is_whole(self) -> bool:
        return self.origin is not None and self.size == self.origin.size

    def goes_on(self, url: str) -> bool:
        """Whether the bytes so far are of use in a request to ``url``; with a checksum they are at any address."""
        return bool(self.size and self.origin and (self._checksum or self._is_from(url)))

    def headers(self, url: str) -> dict[str, str]:
        """Return the headers that ask for the rest, or for the whole file should it have changed."""
        if not self.goes_on(url):
            return {}
        assert self.origin
        condition = {"If-Range": self.origin.validator or ""} if self._is_from(url) else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def accept(self, offer: Origin, start: int) -> None:
        """Get ready for bytes of ``offer`` from ``start`` on; raises Passing, all dropped, where they do not fit on."""
        if start == 0:
            self.restart(offer)
        elif start != self.size or not self._fits(offer):
            self.restart(None)
            raise Passing("the file there is not the one that was begun, starting anew")

    def restart(self, origin: Origin | None) -> None:
        """Drop all bytes; those to come are of ``origin``."""
        self._file.seek(0)
        self._file.truncate()
        self.digest = Digest(self._checksum)
        self.origin = origin
        if origin is None:
            self._note.unlink(missing_ok=True)
            return
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(asdict(origin)), encoding="utf8")

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self.digest.update(block)

    def flushed(self) -> Path:
        """Return where the bytes so far can be read."""
        self._file.flush()
        return self._path

    def finish(self) -> None:
        """Give the file its name, once it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._path, self.target)
        self._is_finished = True
        self._note.unlink(missing_ok=True)

    def _is_from(self, url: str) -> bool:
        return bool(self.origin and self.origin.url == url and self.origin.validator)

    def _fits(self, offer: Origin) -> bool:
        if self.origin is None or (None not in (self.origin.size, offer.size) and self.origin.size != offer.size):
            return False
        return self.origin.validator == offer.validator if self._is_from(offer.url) else self._checksum is not None

    def _read_note(self) -> Origin | None:
        try:
            return Origin(**json.loads(self._note.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError):
            return None


def read_offer(url: str, response: BaseHTTPResponse) -> tuple[Origin, int]:
    """Return the version that a response is of, and the place of its first byte in the file."""
    headers = response.headers
    tag = headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")  # If-Range takes no weak tag
    if response.status == RANGE_STATUS:
        return Origin(url, validator, None), -1
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if not found:
            return Origin(url, validator, None), -1
        return Origin(url, validator, None if found[2] == "*" else int(found[2])), int(found[1])
    length = headers.get("Content-Length", "")
    return Origin(url, validator, int(length) if length.isdecimal() else None), 0


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; yields False where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(descriptor):
            os.close(descriptor)
            raise FetchError(f"{path}: another process is fetching this file")
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)  # it got its final name between opening and locking


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
