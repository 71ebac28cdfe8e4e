"""Record files whose records map names to lists of numbers: TensorFlow's Example and OneFlow's OFRecord.

The names and widths are those of :mod:`bert.data.formats.padded`; other features are ignored. A format is an instance
of :class:`Examples`, whose methods are those that :mod:`bert.data.formats.table` expects. A record::

    {"input_ids": [2, 71, 3, 9, 3, 0], "input_mask": [1, 1, 1, 1, 1, 0], "segment_ids": [0, 0, 0, 1, 1, 0], ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bert.data.formats.padded import REQUIRED, STATIC, shard_of, tables_of
from bert.data.formats.protobuf import (
    FIXED32,
    LENGTH,
    VARINT,
    Malformed,
    Spans,
    field,
    floats,
    integers,
    packed_floats,
    packed_integers,
    read_fields,
)
from bert.data.formats.records import OFRECORD as OFRECORD_FRAMING
from bert.data.formats.records import TFRECORD as TFRECORD_FRAMING
from bert.data.formats.records import Framing, RecordFile, write_records
from bert.data.shard import Limits, RowRange, Shard, ShardInfo, concatenate, naming, select
from bert.errors import UsageError

BATCH = 4096  # records decoded at once, so that their arrays stay in the processor's cache
WEIGHTS = "masked_lm_weights"
DTYPES = {
    "input_ids": np.dtype(np.int32),
    "input_mask": np.dtype(np.bool_),
    "segment_ids": np.dtype(np.bool_),
    "next_sentence_labels": np.dtype(np.int8),
    "masked_lm_positions": np.dtype(np.int32),
    "masked_lm_ids": np.dtype(np.int32),
    WEIGHTS: np.dtype(np.bool_),
}

# Numbers of fields.
FEATURES = 1  # of Example
ENTRIES = 1  # of Features, and of OFRecord: a map is a list of messages
KEY, VALUE = 1, 2  # of an entry
FLOATS = 2  # of Feature
VALUES = 1  # of a list


@dataclass(frozen=True)
class Examples:
    """A kind of record file."""

    framing: Framing
    integers: tuple[int, ...]  # fields of Feature that are lists of integers; the first one is written
    is_wrapped: bool  # the map is a message within the record, not the record itself

    def inspect(self, path: Path) -> ShardInfo:
        """Count the records; the widths are those of the first one."""
        file = RecordFile(path, self.framing)
        widths = self._widths(file)
        return ShardInfo(file.index.count, widths[REQUIRED[0]], widths.get(STATIC[0]))

    def read(self, path: Path, vocab: Mapping[str, int] | None, start: int, stop: int | None) -> Shard:
        """Decode the records ``start`` to ``stop``; ids are stored, so ``vocab`` is not needed."""
        file = RecordFile(path, self.framing)
        widths, count = self._widths(file), file.index.count
        stop = count if stop is None else min(stop, count)
        shards, first = [], start
        for records in file.read(start, stop, BATCH) if start < stop else [[]]:
            shards.append(shard_of(_Batch(self, path, records, first).tables(widths), path, first))
            first += len(records)
        return concatenate(shards)

    def write(self, path: Path, shard: Shard, limits: Limits, vocab: Mapping[str, int] | None) -> None:
        """Write ``shard`` zero-padded to ``limits``."""
        write_records(path, self._encode(shard, limits), self.framing)

    def splice(self, path: Path, parts: Sequence[RowRange]) -> None:
        """Write the records of ``parts``, which all have the widths of the first."""
        filled = [part.path for part in parts if part.start < part.stop]
        for source in filled:
            own, others = self._layout(source), self._layout(filled[0])
            if own != others:
                raise UsageError(f"{source}: {own} in a record, but {others} in {filled[0]}")
        with path.open("wb") as file:
            for part in parts:
                file.writelines(RecordFile(part.path, self.framing).copy(part.start, part.stop))

    def _layout(self, path: Path) -> str:
        with naming(path):
            info = self.inspect(path)
        return f"{info.max_length} tokens and {info.max_predictions or 'no'} predictions"

    def _widths(self, file: RecordFile) -> dict[str, int]:
        """Return how many values each feature has in the first record."""
        if not file.index.count:
            return dict.fromkeys(REQUIRED, 0)
        ((record,),) = file.read(0, 1)
        batch = _Batch(self, file.path, [record], 0)
        counts = {name: int(batch.column(name)[1][0]) for name in (*REQUIRED, *STATIC) if batch.has(name)}
        missing = [name for name in REQUIRED if not counts.get(name)]
        if missing:
            raise UsageError(f"{file.path}: record 0 has no {', '.join(missing)}, expected {', '.join(REQUIRED)}")
        static = [name for name in STATIC if name in counts]
        if static and len(static) < len(STATIC):
            raise UsageError(f"{file.path}: record 0 has {', '.join(static)}, expected {', '.join(STATIC)} or none")
        tokens, predictions = counts[REQUIRED[0]], counts.get(STATIC[0], 0)
        return {**dict.fromkeys(REQUIRED, tokens), "next_sentence_labels": 1, **dict.fromkeys(static, predictions)}

    def _encode(self, shard: Shard, limits: Limits) -> Iterator[bytes]:
        for start in range(0, shard.num_samples, BATCH):
            rows = np.arange(start, min(start + BATCH, shard.num_samples))
            tables = tables_of(select(shard, rows), limits)
            for entries in zip(*(self._entries(name, table) for name, table in tables.items()), strict=True):
                features = b"".join(entries)
                yield field(FEATURES, features) if self.is_wrapped else features

    def _entries(self, name: str, table: NDArray) -> Iterator[bytes]:
        """Yield for every row of ``table`` the entry of a map that holds it."""
        table = table.reshape(len(table), -1)
        kind, rows = (FLOATS, packed_floats(table)) if name == WEIGHTS else (self.integers[0], packed_integers(table))
        key = field(KEY, name.encode())
        for values in rows:
            yield field(ENTRIES, key + field(VALUE, field(kind, field(VALUES, values))))


class _Batch:
    """Consecutive records of a file, beginning with number ``first``."""

    def __init__(self, kind: Examples, path: Path, records: Sequence[bytes], first: int) -> None:
        self.kind, self.path, self.first, self.size = kind, path, first, len(records)
        self.data, messages = Spans.of(records)
        with self._locating():
            if kind.is_wrapped:
                messages = read_fields(self.data, messages).of(FEATURES, LENGTH)
            self.entries = read_fields(self.data, messages).of(ENTRIES, LENGTH)
            self.parts = read_fields(self.data, self.entries)

    def tables(self, widths: Mapping[str, int]) -> dict[str, NDArray]:
        """Return the features as padded tables of these widths."""
        for name in STATIC:
            if name not in widths and self.has(name):
                raise UsageError(f"{self._shown(self.named(name).records[0])} has {name}, but record 0 does not")
        return {name: self._table(name, width) for name, width in widths.items()}

    def has(self, name: str) -> bool:
        """Tell whether a record has a feature of this name."""
        return len(self.named(name).records) > 0

    def named(self, name: str) -> Spans:
        """Return the features of this name."""
        keys = self.parts.having(KEY, LENGTH)
        is_named = np.zeros(len(self.entries.records), bool)
        is_named[self.parts.messages[keys][self.parts.values[keys].equal(self.data, name.encode())]] = True
        return self.parts.values[self.parts.having(VALUE, LENGTH) & is_named[self.parts.messages]]

    def column(self, name: str) -> tuple[NDArray, NDArray[np.int64]]:
        """Return all values of a feature, and how many each record has; a list of another type has none."""
        is_float = name == WEIGHTS
        with self._locating():
            lists = read_fields(self.data, self.named(name)).of(FLOATS if is_float else self.kind.integers, LENGTH)
            spans = read_fields(self.data, lists).of(VALUES, LENGTH, FIXED32 if is_float else VARINT)
            values, counts = (floats if is_float else integers)(self.data, spans)
        return values, np.bincount(spans.records, counts, self.size).astype(np.int64)

    def _table(self, name: str, width: int) -> NDArray:
        values, counts = self.column(name)
        wrong = counts != width
        if wrong.any():
            row = int(wrong.argmax())
            raise UsageError(f"{self._shown(row)} has {counts[row]} values in {name}, expected {width}")
        table = values.astype(DTYPES[name])
        wrong = table != values
        if wrong.any():
            place = int(wrong.argmax())
            raise UsageError(f"{self._shown(place // width)} has {values[place]} in {name}, expected {table.dtype}")
        return table.reshape(self.size, width)

    @contextmanager
    def _locating(self) -> Iterator[None]:
        """Name the file and the record where the bytes are not a message."""
        try:
            yield
        except Malformed as error:
            raise UsageError(f"{self._shown(error.record)} is damaged or not {self.kind.framing.name}") from error

    def _shown(self, row: int) -> str:
        return f"{self.path}: record {self.first + row}"


# As google-research/bert's create_pretraining_data.py writes them. Files whose records lack the three ``masked_lm``
# features hold sequences that are masked while loading.
TFRECORD = Examples(TFRECORD_FRAMING, integers=(3,), is_wrapped=True)
# As OneFlow's BERT reads them, under the names part-0, part-1, ... or part-00000, ...: int32, though int64 is read too.
OFRECORD = Examples(OFRECORD_FRAMING, integers=(4, 5), is_wrapped=False)
