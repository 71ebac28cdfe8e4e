"""HDF5 shards in the layout of NVIDIA's ``create_pretraining_data.py``: padded rows, gzip.

==========================  ======  ======  =======================================================
input_ids                   int32   [n, S]
input_mask                  int8    [n, S]  1 = a token, 0 = padding
segment_ids                 int8    [n, S]  1 = segment B
masked_lm_positions         int32   [n, P]  ends at the first 0: position 0 is [CLS], never masked
masked_lm_ids               int32   [n, P]
next_sentence_labels        int8    [n]     1 = segment B is random
==========================  ======  ======  =======================================================

Without the two ``masked_lm`` tables the sequences are masked while loading.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bert.data.formats.padded import REQUIRED, STATIC, shard_of, tables_of
from bert.data.shard import Limits, RowRange, Shard, ShardInfo, naming
from bert.errors import UsageError

ROWS_AT_ONCE = 8192  # rows copied at once: 16 MB at 512 ids
TABLES = (*REQUIRED, *STATIC[:2])


def inspect(path: Path) -> ShardInfo:
    """Read the shapes of the tables."""
    with _open(path) as file:
        missing = [name for name in REQUIRED if name not in file]
        if missing:
            raise UsageError(f"{path}: no table {', '.join(missing)}, expected {', '.join(REQUIRED)}")
        rows = {name: file[name].shape[0] for name in REQUIRED}
        if len(set(rows.values())) > 1:
            raise UsageError(f"{path}: tables of different lengths ({', '.join(f'{k} {v}' for k, v in rows.items())})")
        predictions = file["masked_lm_positions"].shape[1] if "masked_lm_positions" in file else None
        return ShardInfo(rows["input_ids"], file["input_ids"].shape[1], predictions)


def read(path: Path, vocab: Mapping[str, int] | None, start: int, stop: int | None) -> Shard:
    """Decode rows ``start`` to ``stop``; ids are stored, so ``vocab`` is not needed."""
    with _open(path) as file:
        tables = {name: file[name][start:stop] for name in TABLES if name in file}
    if STATIC[0] in tables:
        tables["masked_lm_weights"] = np.logical_and.accumulate(tables["masked_lm_positions"] != 0, axis=1)
    return shard_of(tables, path, start)


def write(path: Path, shard: Shard, limits: Limits, vocab: Mapping[str, int] | None) -> None:
    """Write ``shard`` zero-padded to the limits; compression and chunks are those of the published files."""
    tables = tables_of(shard, limits)
    with _create(path) as file:
        for name in TABLES:
            if name in tables:
                # An empty table cannot be chunked, so it cannot be compressed.
                options = {"compression": "gzip"} if tables[name].size else {}
                file.create_dataset(name, data=tables[name], **options)


def splice(path: Path, parts: Sequence[RowRange]) -> None:
    """Write the rows of ``parts`` in all tables of the first file."""
    first = parts[0].path
    layout = _layout(parts[0])
    for part in parts[1:]:
        own = _layout(part)
        for name in sorted(own.keys() | layout.keys()):
            if own.get(name) != layout.get(name):
                both = " and ".join(f"{t[name][1]} {list(t[name][0])}" if name in t else "none" for t in (own, layout))
                raise UsageError(f"{part.path}: another table {name} than in {first} ({both} a row)")
    rows = sum(part.stop - part.start for part in parts)
    with _create(path) as file:
        for name, (width, dtype) in layout.items():
            shape = (rows, *width)
            table = file.create_dataset(name, shape, dtype, compression="gzip" if 0 not in shape else None)
            # Whole chunks: one that is written twice is compressed twice, and its first copy stays in the file unused.
            chunk = table.chunks[0] if table.chunks else 1
            written = 0
            for block in _blocks(name, parts, max(ROWS_AT_ONCE // chunk, 1) * chunk):
                table[written : written + len(block)] = block
                written += len(block)


def _layout(part: RowRange) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return the shape of a row and the type of every table, by name; raises UsageError where rows are missing."""
    with naming(part.path), _open(part.path) as file:
        inspect(part.path)
        tables = {name: table for name, table in file.items() if isinstance(table, h5py.Dataset)}
        least = min(len(table) for table in tables.values())
        if least < part.stop:
            raise UsageError(f"{part.path}: {least} rows, expected at least {part.stop}")
        return {name: (table.shape[1:], table.dtype) for name, table in tables.items()}


def _blocks(name: str, parts: Sequence[RowRange], size: int) -> Iterator[NDArray]:
    """Yield the rows of a table of all ``parts`` in blocks of ``size``; the last one may be smaller."""
    waiting: list[NDArray] = []
    missing = size
    for path, start, stop in parts:
        with naming(path), _open(path) as file:
            while start < stop:
                waiting.append(file[name][start : min(start + missing, stop)])
                start += len(waiting[-1])
                missing -= len(waiting[-1])
                if not missing:
                    yield np.concatenate(waiting)
                    waiting, missing = [], size
    if waiting:
        yield np.concatenate(waiting)


@contextmanager
def _create(path: Path) -> Iterator[Any]:
    """Open a new file for writing; raises OSError where the disk is full."""
    with _Disk(path, "wb+") as disk:
        with h5py.File(disk, "w") as file:
            yield file
        if disk.failure:
            raise disk.failure


class _Disk(io.FileIO):
    """Keeps the first error for later: the HDF5 library crashes when it closes a file that it failed to write."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = self.failure or error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


def _open(path: Path) -> Any:
    """Open for reading; untyped, because a member of a file is a table, a group or a type."""
    return h5py.File(path)
