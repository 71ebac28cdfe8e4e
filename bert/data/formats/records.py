"""Files of records end to end, as TFRecord and OFRecord frame them.

=======================================  ======  ===============
length of the data, little-endian        8       bytes
masked CRC-32C of these 8 bytes          4       TFRecord alone
data                                     length
masked CRC-32C of the data               4       TFRecord alone
=======================================  ======  ===============

There is no index: a file is scanned once from length to length, and every 1024th offset is remembered::

    file = RecordFile(path, TFRECORD)
    ((first,),) = file.read(0, 1)       # the data of record 0
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from crc32c import crc32c

from bert.data.shard import naming
from bert.errors import UsageError

STRIDE = 1024  # records from one remembered offset to the next
BUFFER = 1 << 20  # bytes read at once: records are small, so skipping their data would not save a read
LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class Framing:
    """What surrounds the data of a record."""

    name: str
    has_checksums: bool

    @property
    def header(self) -> int:
        """Bytes before the data."""
        return LENGTH.size + self.trailer

    @property
    def trailer(self) -> int:
        """Bytes after the data."""
        return CHECKSUM.size * self.has_checksums


TFRECORD = Framing("TFRecord", True)
OFRECORD = Framing("OFRecord", False)


@dataclass(frozen=True)
class Index:
    """Where to find the records of a file."""

    count: int
    places: tuple[int, ...]  # byte offsets of the records 0, STRIDE, 2 STRIDE, ... up to ``count``, which is the end


@dataclass(frozen=True)
class RecordFile:
    """A file to read. All methods raise UsageError naming the record where it is damaged or of another kind."""

    path: Path
    framing: Framing

    @property
    def index(self) -> Index:
        """Find the records and check that they fill the file; cached until the file changes."""
        state = self.path.stat()
        return _index(self, state.st_ino, state.st_size, state.st_mtime_ns)

    def read(self, start: int, stop: int, at_once: int = 1) -> Iterator[list[bytes]]:
        """Yield the data of the records ``start`` to ``stop``, which must exist, in lists of up to ``at_once``."""
        with _Walk(self) as walk:
            walk.go_to(start, self.index)
            for first in range(start, stop, at_once):
                yield [walk.read() for _ in range(first, min(first + at_once, stop))]

    def copy(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of the records ``start`` to ``stop``, including their frames, in blocks."""
        with naming(self.path), _Walk(self) as walk:
            if stop > self.index.count:
                raise UsageError(f"{self.path}: {self.index.count} rows, expected at least {stop}")
            end = walk.go_to(stop, self.index)
            place = walk.go_to(start, self.index)
            while place < end:
                block = walk.file.read(min(BUFFER, end - place))
                if not block:
                    walk.fail("is cut off")
                place += len(block)
                yield block


def write_records(path: Path, records: Iterable[bytes], framing: Framing) -> None:
    """Write ``records`` to a new file."""
    with path.open("wb", BUFFER) as file:
        for data in records:
            length = LENGTH.pack(len(data))
            parts = (length, masked_crc(length), data, masked_crc(data)) if framing.has_checksums else (length, data)
            file.write(b"".join(parts))


class _Walk:
    """An open file and the offset of the next record in it."""

    def __init__(self, source: RecordFile) -> None:
        self.path, self.framing = source.path, source.framing
        self.header, self.trailer = self.framing.header, self.framing.trailer
        self.file = self.path.open("rb", BUFFER)
        self.size = os.fstat(self.file.fileno()).st_size
        self.record, self.place = 0, 0

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def go_to(self, record: int, index: Index) -> int:
        """Make ``record`` the next one; returns its offset."""
        self.record = record // STRIDE * STRIDE
        self.place = index.places[record // STRIDE]
        self.file.seek(self.place)
        for _ in range(record - self.record):
            self.skip()
        return self.place

    def skip(self) -> None:
        """Skip the next record."""
        self.file.seek(self._next() + self.trailer, os.SEEK_CUR)

    def read(self) -> bytes:
        """Return the data of the next record."""
        data = self.file.read(self._next())
        if self.framing.has_checksums and self.file.read(CHECKSUM.size) != masked_crc(data):
            self.record -= 1
            self.fail("does not match its checksum, so it is damaged")
        return data

    def _next(self) -> int:
        """Read the length of the next record."""
        header = self.file.read(self.header)
        if len(header) < self.header:
            self.fail("is cut off")
        length = _length(header)
        if length is None:
            self.fail(f"has a length that does not match its checksum: damaged, or not a {self.framing.name} file")
        self.place += self.header + length + self.trailer
        if self.place > self.size:
            self.fail(f"ends {self.place - self.size} bytes after the file: cut off, or not a {self.framing.name} file")
        self.record += 1
        return length

    def fail(self, what: str) -> NoReturn:
        """Raise UsageError about the next record."""
        raise UsageError(f"{self.path}: record {self.record} {what}")


@lru_cache(maxsize=4096)
def _index(file: RecordFile, *version: int) -> Index:
    """Scan ``file``; ``version`` changes with its content."""
    places = []
    with _Walk(file) as walk:
        while walk.place < walk.size:
            if walk.record % STRIDE == 0:
                places.append(walk.place)
            walk.skip()
        if walk.record % STRIDE == 0:
            places.append(walk.place)
        return Index(walk.record, tuple(places))


@lru_cache(maxsize=4096)  # records of one file have few different lengths
def _length(header: bytes) -> int | None:
    """Return the length in a header; None if its checksum does not match."""
    length, checksum = header[: LENGTH.size], header[LENGTH.size :]
    return None if checksum and checksum != masked_crc(length) else LENGTH.unpack(length)[0]


def masked_crc(data: bytes | memoryview) -> bytes:
    """Return the CRC-32C of ``data``, rotated and offset as in TensorFlow, so that data may hold CRCs themselves."""
    crc = crc32c(data)
    return CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
