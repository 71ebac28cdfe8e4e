"""A published file: its addresses, and how to tell whether a copy of it is whole.

::

    file = RemoteFile("a.json", ("https://example.org/a.json",), checksum="md5:981b...")
    file.find_problem(Path("a.json"))       # None, or "md5 0cc1..., expected 981b..."
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bert.files import replacing
from bert.log.progress import progress

BLOCK = 1 << 20  # bytes
LONG_CHECK = 256 << 20  # bytes; checking a file of this size or more shows a progress bar


class FetchError(Exception):
    """A file, or one of its addresses, failed for good. The message is the reason."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    ``name`` is its name on the disk and on mirrors, ``urls`` are in order of preference, ``checksum`` is "md5:...",
    "sha1:..." or "sha256:...", ``size`` is in bytes. Without a checksum, ``check`` looks at what was fetched and
    returns what is wrong with it, or None. ``record`` asks for a ``.sha256`` even if there is a checksum.
    """

    name: str
    urls: tuple[str, ...] = ()
    checksum: str | None = None
    size: int | None = None
    check: Callable[[Path], str | None] | None = None
    record: bool = False

    def find_problem(self, path: Path, show: bool = False) -> str | None:
        """Return how the file at ``path`` differs from this one, None if it does not; ``show`` permits a bar."""
        size = path.stat().st_size
        if self.size not in (None, size):
            return f"{size:,} bytes, expected {self.size:,}"
        if self.checksum:
            kind, _, expected = self.checksum.partition(":")
            found = hash_file(path, kind, show)
            return None if found == expected else f"{kind} {found}, expected {expected}"
        return self.check(path) if self.check else None


def hash_file(path: Path, kind: str = "sha256", show: bool = False) -> str:
    """Return the checksum of a file in hexadecimal digits; ``kind`` is a name that hashlib knows."""
    digest, size = hashlib.new(kind), path.stat().st_size
    bar = progress(total=size, description=f"Checking {path.name}", unit="B", disable=not show or size < LONG_CHECK)
    with path.open("rb") as file, bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def write_sums(path: Path, files: Mapping[str, Path], show: bool = False) -> None:
    """Write the SHA-256 of files, each under the name that it is to have, as sha256sum does."""
    lines = [f"{hash_file(file, show=show)}  {name}\n" for name, file in files.items()]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf8")


def is_web_address(url: str) -> bool:
    """Return whether ``url`` is http or https and names a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
