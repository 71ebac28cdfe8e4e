"""TensorFlow's checkpoints (the V2 format: ``X.index`` and ``X.data-00000-of-00001``), without TensorFlow.

The index is a sorted table from a variable's name to a protobuf that says its type, its shape and where its bytes lie;
its entry "" is a header. Everything read is checked against the checksum that was written with it::

    bundle = Bundle("uncased_L-12_H-768_A-12/bert_model.ckpt")
    bundle.entries["bert/pooler/dense/bias"].shape                  # (768,)
    bundle.read("bert/pooler/dense/bias")                           # the array
    write_bundle("made/bert_model.ckpt", {"bert/pooler/dense/bias": array})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bert.checkpoint.formats.sstable import read_table, write_table
from bert.data.formats.protobuf import (
    FIXED32,
    LENGTH,
    VARINT,
    Fields,
    Malformed,
    Spans,
    field,
    floats,
    integers,
    number_field,
    read_fields,
)
from bert.data.formats.records import masked_crc
from bert.errors import UsageError
from bert.files import replacing

DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8"), 19: np.dtype("<f2")}
NUMBER_OF = {dtype: number for number, dtype in DTYPES.items()}
# Fields of the messages BundleEntryProto, TensorShapeProto (its dims, and their sizes) and BundleHeaderProto.
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CRC, SLICES = 1, 2, 3, 4, 5, 6, 7
DIMENSION, LENGTH_OF_DIMENSION = 2, 1
NUM_SHARDS, ENDIANNESS, VERSION, PRODUCER = 1, 2, 3, 1


@dataclass(frozen=True)
class Entry:
    """Where a variable lies."""

    dtype: int  # of TensorFlow's enumeration
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int  # masked
    sliced: bool  # its parts are variables of their own


class Bundle:
    """A checkpoint open for reading. Raises UsageError that names the file."""

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self.index = Path(f"{prefix}.index")
        try:
            table = read_table(self.index.read_bytes())
            self.num_shards = _shards(table.pop(b"", b""))
            names = [key.decode() for key in table]
            self.entries: dict[str, Entry] = dict(zip(names, _parse_entries(list(table.values())), strict=True))
        except OSError as error:
            raise UsageError(f"{self.index}: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"{self.index}: {error}") from error

    def read(self, name: str) -> NDArray:
        """Return a variable; raises UsageError where its bytes are missing or are not those that were written."""
        entry = self.entries[name]
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self.num_shards:05d}")
        dtype = DTYPES.get(entry.dtype)
        if dtype is None or entry.sliced or math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise UsageError(f"{self.index}: {name} is not a plain array of numbers (type {entry.dtype})")
        try:
            with path.open("rb") as file:
                array = np.fromfile(file, dtype, entry.size // dtype.itemsize, offset=entry.offset)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        if array.nbytes != entry.size:
            raise UsageError(f"{path}: truncated, it ends before {name} does")
        if masked_crc(_raw(array)) != entry.crc.to_bytes(4, "little"):
            raise UsageError(f"{path}: damaged, the checksum of {name} is wrong")
        return array.reshape(entry.shape)


def write_bundle(prefix: str | Path, arrays: Mapping[str, NDArray]) -> None:
    """Write a checkpoint; its index appears last, when everything else is on the disk. Raises OSError."""
    data = Path(f"{prefix}.data-00000-of-00001")
    entries = {b"": number_field(NUM_SHARDS, 1) + field(VERSION, number_field(PRODUCER, 1))}
    with replacing(Path(f"{prefix}.index")) as index, replacing(data) as temporary:
        with temporary.open("wb") as file:
            for name in sorted(arrays, key=str.encode):
                array = np.asarray(arrays[name], order="C")
                entries[name.encode()] = _encode_entry(array, file.tell())
                array.tofile(file)
        index.write_bytes(write_table(entries))


def _shards(header: bytes) -> int:
    data, messages = Spans.of([header])
    fields = read_fields(data, messages)
    if _numbers(data, fields, ENDIANNESS, 1)[0]:
        raise ValueError("it was written on a big-endian machine, expected little-endian")
    return int(_numbers(data, fields, NUM_SHARDS, 1)[0])


def _parse_entries(messages: list[bytes]) -> list[Entry]:
    data, spans = Spans.of(messages)
    try:
        fields = read_fields(data, spans)
        shapes: list[list[int]] = [[] for _ in messages]
        dims = read_fields(data, fields.of(SHAPE, LENGTH)).of(DIMENSION, LENGTH)
        lengths = _numbers(data, read_fields(data, dims), LENGTH_OF_DIMENSION, len(dims.starts))
        for record, length in zip(dims.records.tolist(), lengths.tolist(), strict=True):
            shapes[record].append(length)
        columns = [_numbers(data, fields, number, len(messages)) for number in (DTYPE, SHARD, OFFSET, SIZE)]
        crcs = np.zeros(len(messages), np.uint32)
        checked = fields.having(CRC, FIXED32)
        crcs[fields.messages[checked]] = floats(data, fields.values[checked])[0].view(np.uint32)
    except Malformed as error:
        raise ValueError("its entries are damaged") from error
    sliced = set(fields.messages[fields.having(SLICES, LENGTH)].tolist())
    rows = zip(*(column.tolist() for column in columns), crcs.tolist(), strict=True)
    return [
        Entry(dtype, tuple(shapes[i]), shard, offset, size, crc, i in sliced)
        for i, (dtype, shard, offset, size, crc) in enumerate(rows)
    ]


def _numbers(data: NDArray[np.uint8], fields: Fields, number: int, count: int) -> NDArray[np.int64]:
    """Return one integer of each of ``count`` messages, 0 where it is left out."""
    values = np.zeros(count, np.int64)
    present = fields.having(number, VARINT)
    values[fields.messages[present]] = integers(data, fields.values[present])[0]
    return values


def _encode_entry(array: NDArray, offset: int) -> bytes:
    dims = b"".join(field(DIMENSION, number_field(LENGTH_OF_DIMENSION, length)) for length in array.shape)
    numbers = {DTYPE: NUMBER_OF[array.dtype], OFFSET: offset, SIZE: array.nbytes}
    encoded = {number: number_field(number, value) for number, value in numbers.items()}
    crc = bytes((CRC << 3 | FIXED32,)) + masked_crc(_raw(array))
    return encoded[DTYPE] + field(SHAPE, dims) + encoded[OFFSET] + encoded[SIZE] + crc


def _raw(array: NDArray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
