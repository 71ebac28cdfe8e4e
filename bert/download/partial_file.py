"""A file that is being fetched: the bytes so far, and the version of the file that they belong to.

``NAME.part.json`` is written before the first byte of a version, so ``NAME.part`` never holds bytes of another one::

    with PartialFile(Path("a.json")) as part:       # locked: one process at a time has it
        part.restart(Version("https://example.org/a.json", '"an ETag"', 1000))
        part.write(block)
        part.finish()                               # now it is a.json
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bert.files import replacing


@dataclass(frozen=True)
class Version:
    """The file as ``url`` offers it; ``validator``, its ETag or Last-Modified, tells it from other versions."""

    url: str
    validator: str | None
    size: int | None  # bytes of the whole file


class PartialFile:
    """The bytes of ``target`` so far, and their ``version``. Raises OSError if another process is fetching it."""

    def __init__(self, target: Path):
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def __enter__(self) -> PartialFile:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self._file = os.fdopen(descriptor, "rb+")
        # A file that was renamed between opening and locking is no longer the one at the path.
        if not (_lock(descriptor) and self.path.exists() and os.path.samefile(self.path, descriptor)):
            self._file.close()
            raise OSError(errno.EAGAIN, "another process is fetching this file")
        self._file.seek(0, os.SEEK_END)
        try:
            self.version = Version(**json.loads(self._note.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError):
            self.restart(None)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed and not self.size:
            self._note.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._file.close()

    @property
    def size(self) -> int:
        return self._file.tell()

    def restart(self, version: Version | None) -> None:
        """Drop all bytes; those to come belong to ``version``."""
        self._file.seek(0)
        self._file.truncate()
        self.version = version
        if version is None:
            self._note.unlink(missing_ok=True)
            return
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(asdict(version)), encoding="utf8")

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self._file.flush()

    def finish(self) -> None:
        """Give the bytes the name ``target``, once they are on the disk."""
        os.fsync(self._file.fileno())
        os.replace(self.path, self._target)
        self._note.unlink(missing_ok=True)
        self._file.close()


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; yields False if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True
