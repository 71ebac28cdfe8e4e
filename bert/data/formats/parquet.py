"""Parquet shards as LDDL writes and reads them: word pieces as text, joined by blanks.

====================  ========  ===================================================================
A, B                  string    the two segments without [CLS] and [SEP]; masked where masks are static
is_random_next        bool
num_tokens            uint16    of A, B and three specials; optional when reading
masked_lm_positions   binary    static masks: a .npy file of uint16, positions in [CLS] A [SEP] B [SEP]
masked_lm_labels      string    static masks: the original pieces
bin_id                int64     written where the suffix names a bin of lengths; not read
====================  ========  ===================================================================

Whole columns are decoded at once: one search for blanks, one look-up in a hash table, no Python code per row.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bert.data.shard import Limits, RowRange, Shard, ShardInfo, check_values, naming
from bert.errors import UsageError
from bert.ragged import offsets_of, ranges

# pyarrow.compute creates its functions at import, so a type checker does not see them.
# pyright: reportAttributeAccessIssue=false

REQUIRED = ("A", "B", "is_random_next")
STATIC = ("masked_lm_positions", "masked_lm_labels")
BOUNDARY = "[A|B]"  # stands for the [SEP] between the segments while decoding: a segment may hold a [SEP] of its own
ROWS_AT_ONCE = 65536  # rows of a row group, or decoded at once from a larger one: bounds the memory
BATCH = 8192  # rows copied at once
HEADER = 128  # bytes before the values in a .npy file of one short dimension
WORD = 2  # bytes of a uint16

# Against Parquet's defaults (snappy, dictionaries of whole texts): 30 % smaller and read in two thirds of the time.
COMPRESSION: Any = {"compression": "zstd", "use_dictionary": ["num_tokens", "bin_id"]}

Columns = dict[str, pa.Array]


def inspect(path: Path) -> ShardInfo:
    """Read the footer: rows, and the largest num_tokens where the writer kept statistics."""
    with pq.ParquetFile(path) as file:
        _columns_of(file, path)
        return ShardInfo(file.metadata.num_rows, _largest(file, "num_tokens"), None)


def read(path: Path, vocab: Mapping[str, int] | None, start: int, stop: int | None) -> Shard:
    """Decode rows ``start`` to ``stop``; pieces are looked up in ``vocab``."""
    if vocab is None:
        raise UsageError(f"{path}: a Parquet shard holds word pieces as text and needs --vocab_file")
    with pq.ParquetFile(path) as file:
        columns = _read_rows(file, _columns_of(file, path), start, file.metadata.num_rows if stop is None else stop)
    labels = columns["is_random_next"].to_numpy()
    check_values(labels, (-1, 1), "is_random_next", path, start)
    words = _words(tuple(vocab))
    text = _join_rows("[CLS]", columns["A"], BOUNDARY, columns["B"], "[SEP]")
    tokens, offsets = _look_up(text, words, path)
    boundaries = np.flatnonzero(tokens == len(vocab))
    tokens[boundaries] = vocab["[SEP]"]
    return Shard(
        tokens=tokens,
        offsets=offsets,
        segment_starts=(boundaries + 1 - offsets[:-1]).astype(np.int32),
        next_sentence_labels=labels,
        **(_static_masks(columns, words, path, start) if STATIC[0] in columns else {}),
    )


def write(path: Path, shard: Shard, limits: Limits, vocab: Mapping[str, int] | None) -> None:
    """Write ``shard`` as LDDL's loader expects it; raises UsageError where a second segment or a label is missing."""
    if vocab is None:
        raise UsageError(f"{path}: a Parquet shard holds word pieces as text and needs --vocab_file")
    lacking = {"one segment": shard.segment_starts >= shard.lengths, "no label": shard.next_sentence_labels < 0}
    for what, rows in lacking.items():
        if rows.any():
            raise UsageError(f"{path}: sequence {int(rows.argmax())} has {what}, LDDL's Parquet holds labelled pairs")
    words = _joinable(tuple(vocab))
    columns: dict[str, pa.Array] = {
        **dict(zip("AB", _segments(shard, words), strict=True)),
        "is_random_next": pa.array(shard.next_sentence_labels.astype(bool)),
        "num_tokens": pa.array(shard.lengths.astype(np.uint16)),
    }
    if shard.masks is not None:
        positions, labels, bounds = shard.masks
        columns["masked_lm_positions"] = _pack_positions(positions, bounds)
        columns["masked_lm_labels"] = _join(labels, bounds, words)
    bin_id = path.suffix.partition("_")[2]
    if bin_id:
        columns["bin_id"] = pa.array(np.full(shard.num_samples, int(bin_id), np.int64))
    pq.write_table(pa.table(columns), path, row_group_size=ROWS_AT_ONCE, **COMPRESSION)


def splice(path: Path, parts: Sequence[RowRange]) -> None:
    """Write the rows of ``parts`` with all their columns; the bytes depend on the rows alone."""
    first = parts[0].path
    with naming(first):
        schema = pq.read_schema(first).remove_metadata()  # where pandas stores the number of rows
    batches = (batch for part in parts for batch in _batches_of(part, schema, first))
    with pq.ParquetWriter(path, schema, **COMPRESSION) as writer:
        for table in _regrouped(batches):
            writer.write_table(table, row_group_size=ROWS_AT_ONCE)


def _columns_of(file: pq.ParquetFile, path: Path) -> list[str]:
    """Return the columns to read; others are ignored."""
    present = file.schema_arrow.names
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise UsageError(f"{path}: no column {', '.join(missing)}, expected {', '.join(REQUIRED)}")
    static = [name for name in STATIC if name in present]
    if len(static) == 1:
        raise UsageError(f"{path}: a column {static[0]} alone, expected {' and '.join(STATIC)} or neither")
    return [*REQUIRED, *static]


def _largest(file: pq.ParquetFile, name: str) -> int | None:
    if name not in file.schema_arrow.names:
        return None
    column = file.schema.names.index(name)
    groups = [file.metadata.row_group(g).column(column).statistics for g in range(file.metadata.num_row_groups)]
    if not groups or any(s is None or not s.has_min_max for s in groups):
        return None
    return max(int(s.max) for s in groups)


def _read_rows(file: pq.ParquetFile, names: list[str], start: int, stop: int) -> Columns:
    """Read rows ``start`` to ``stop`` into plain arrays (neither large nor dictionary-encoded)."""
    schema = file.schema_arrow.empty_table().select(names).schema
    table = pa.Table.from_batches(list(_batches(file, names, start, stop, ROWS_AT_ONCE)), schema)
    kinds = {"is_random_next": pa.int8(), "masked_lm_positions": pa.binary()}
    columns = {name: table[name].cast(kinds.get(name, pa.string())).combine_chunks() for name in names}
    empty = [name for name, column in columns.items() if column.null_count]
    if empty:
        raise ValueError(f"null values in column {', '.join(empty)}")
    return columns


def _batches(file: pq.ParquetFile, names: list[str], start: int, stop: int, size: int) -> Iterator[pa.RecordBatch]:
    """Yield rows ``start`` to ``stop`` from the row groups that hold them, at most ``size`` at a time."""
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    firsts = offsets_of(np.array(sizes, np.int64))
    groups = [g for g in range(len(sizes)) if firsts[g] < stop and firsts[g + 1] > start]
    position = int(firsts[groups[0]]) if groups else 0
    # One thread: the loader decodes several shards in parallel.
    for batch in file.iter_batches(size, row_groups=groups, columns=names, use_threads=False):
        low, high = max(start - position, 0), min(stop - position, batch.num_rows)
        if low < high:
            yield batch.slice(low, high - low)
        position += batch.num_rows
        if position >= stop:
            break


def _batches_of(part: RowRange, schema: pa.Schema, first: Path) -> Iterator[pa.RecordBatch]:
    """Yield rows of a file that must have the columns of the ``first``, of the same types."""
    path, start, stop = part
    with naming(path), pq.ParquetFile(path) as file:
        own = file.schema_arrow.remove_metadata()
        if own != schema:
            columns = " and ".join(", ".join(f"{field.name} {field.type}" for field in s) for s in (own, schema))
            raise UsageError(f"{path}: other columns than in {first} ({columns})")
        if stop > file.metadata.num_rows:
            raise UsageError(f"{path}: {file.metadata.num_rows} rows, expected at least {stop}")
        yield from _batches(file, schema.names, start, stop, BATCH)


def _regrouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of ROWS_AT_ONCE; the last one may be smaller."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= ROWS_AT_ONCE:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, ROWS_AT_ONCE).combine_chunks()
            waiting = table.slice(ROWS_AT_ONCE).to_batches()
    if any(part.num_rows for part in waiting):
        yield pa.Table.from_batches(waiting).combine_chunks()


@lru_cache(maxsize=2)
def _words(pieces: tuple[str, ...]) -> pa.Array:
    """Return the pieces by id, then BOUNDARY, then an empty piece, each followed by a blank."""
    return pa.array([f"{piece} " for piece in (*pieces, BOUNDARY, "")], pa.string())


def _look_up(text: pa.Array, words: pa.Array, path: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids in ``words`` of all pieces end to end, and where each row of ``text`` begins.

    A piece includes the blank that follows it, here and in ``words``: so the text serves as the list of pieces, and
    only the blanks must be found.
    """
    if not len(text):
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    _, ends, data = text.buffers()
    row_bounds = np.frombuffer(ends, np.int32, len(text) + 1)
    blanks = np.flatnonzero(np.frombuffer(data, np.uint8, row_bounds[-1]) == ord(" "))
    bounds = np.zeros(len(blanks) + 1, np.int32)
    np.add(blanks, 1, out=bounds[1:], casting="same_kind")
    pieces = pa.StringArray.from_buffers(len(blanks), pa.py_buffer(bounds), data)
    found = pc.index_in(pieces, value_set=words)
    if found.null_count:
        unknown = pieces[pc.index(found.is_null(), True).as_py()].as_py().rstrip(" ")
        raise UsageError(f"{path}: word piece {unknown!r} is not in --vocab_file ({len(words) - 2} pieces)")
    ids, offsets = found.to_numpy().copy(), np.searchsorted(bounds, row_bounds)
    is_piece = ids != len(words) - 1
    if is_piece.all():
        return ids, offsets
    return ids[is_piece], offsets_of(is_piece)[offsets]  # two blanks in a row: an empty segment


def _join_rows(*columns: pa.Array | str) -> pa.Array:
    """Join element by element, with a blank after each."""
    return pc.binary_join_element_wise(*columns, "", " ")


def _static_masks(columns: Columns, words: pa.Array, path: Path, first_row: int) -> dict[str, NDArray]:
    positions, counts = _unpack_positions(columns["masked_lm_positions"], path, first_row)
    labels, offsets = _look_up(_join_rows(columns["masked_lm_labels"]), words, path)
    found = np.diff(offsets)
    if (found != counts).any():
        row = int((found != counts).argmax())
        raise UsageError(f"{path}: row {first_row + row} has {counts[row]} masked positions and {found[row]} labels")
    return {"masked_positions": positions, "masked_labels": labels, "masked_offsets": offsets}


def _unpack_positions(blobs: pa.Array, path: Path, first_row: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the values of all .npy files end to end, and how many each has."""
    bounds = np.frombuffer(blobs.buffers()[1], np.int32)[blobs.offset : blobs.offset + len(blobs) + 1].astype(np.int64)
    data = np.frombuffer(blobs.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]]
    bounds, sizes = bounds - bounds[0], np.diff(bounds)
    if len(sizes) and sizes.min() >= HEADER and not (sizes % WORD).any():
        values, starts, counts = data.view("<u2"), bounds[:-1] // WORD, (sizes - HEADER) // WORD
        headers = values[starts[:, None] + np.arange(HEADER // WORD)]
        if (headers == _headers(int(counts.max()))[counts]).all():
            return values[ranges(starts + HEADER // WORD, counts)].astype(np.int32), counts
    rows = [np.load(io.BytesIO(blob.as_py()), allow_pickle=False).reshape(-1) for blob in blobs]
    for row, values in enumerate(rows, first_row):
        check_values(values, (0, 2**31 - 1), f"masked_lm_positions of row {row}", path, row)
    counts = np.array([len(row) for row in rows], np.int64)
    return np.concatenate([np.zeros(0, np.int32), *rows], dtype=np.int32, casting="unsafe"), counts


def _pack_positions(positions: NDArray, offsets: NDArray[np.int64]) -> pa.Array:
    headers = [header.tobytes() for header in _headers(int(np.diff(offsets).max(initial=0)))]
    values = positions.astype("<u2")
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return pa.array([headers[high - low] + values[low:high].tobytes() for low, high in bounds], pa.binary())


def _headers(largest: int) -> NDArray[np.uint16]:
    """Return the first 128 bytes of .npy files of 0, 1, ... ``largest`` values, as rows of uint16."""
    rows = []
    for count in range(largest + 1):
        file = io.BytesIO()
        np.save(file, np.zeros(count, "<u2"))
        rows.append(np.frombuffer(file.getvalue()[:HEADER], "<u2"))
    return np.stack(rows)


def _segments(shard: Shard, words: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the texts of A and of B, without the three special tokens of every sequence."""
    starts, middles, ends = shard.offsets[:-1], shard.offsets[:-1] + shard.segment_starts, shard.offsets[1:]
    inner = np.ones(len(shard.tokens), bool)
    for specials in (starts, middles - 1, ends - 1):
        inner[specials] = False
    counts = np.stack([middles - starts - 2, ends - middles - 1], axis=1)
    texts = _join(shard.tokens[inner], offsets_of(counts.reshape(-1)), words)
    rows = np.arange(0, len(texts), 2, dtype=np.int32)
    return texts.take(pa.array(rows)), texts.take(pa.array(rows + 1))


def _join(ids: NDArray, offsets: NDArray[np.int64], words: pa.Array) -> pa.Array:
    """Return one row from each offset to the next: its pieces, joined by blanks.

    Laid end to end, the ``words`` of :func:`_joinable` are the text already; only the ends of the rows are missing.
    """
    last = offsets[1:][np.diff(offsets) > 0] - 1
    chosen = ids.astype(np.int32)
    chosen[last] += len(words) // 2
    pieces = words.take(pa.array(chosen))
    _, bounds, data = pieces.buffers()
    ends = np.frombuffer(bounds, np.int32, len(pieces) + 1)[offsets]
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(ends), data)


@lru_cache(maxsize=2)
def _joinable(pieces: tuple[str, ...]) -> pa.Array:
    """Return the pieces by id, each followed by a blank, then again without it, for the last piece of a row."""
    return pa.array([*(f"{piece} " for piece in pieces), *pieces], pa.string())
