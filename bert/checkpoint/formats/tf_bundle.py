"""TensorFlow's checkpoints (the V2 format: ``X.index`` and ``X.data-00000-of-00001``), without TensorFlow.

The index is a sorted table from a variable's name to a protobuf message with its type, shape and the place of its
bytes; the entry "" is a header. Everything read is checked against the checksum written with it::

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.checkpoint.formats.sstable import read_table, read_varint, write_table
from bert.data.formats.protobuf import FIXED32, FIXED64, LENGTH, VARINT, field, number_field
from bert.data.formats.records import masked_crc
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing

DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8"), 19: np.dtype("<f2")}
NUMBER_OF = {dtype: number for number, dtype in DTYPES.items()}
# Fields of the messages BundleEntryProto, TensorShapeProto (its dims, and their sizes) and BundleHeaderProto.
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CRC, SLICES = 1, 2, 3, 4, 5, 6, 7
DIMENSION, LENGTH_OF_DIMENSION = 2, 1
NUM_SHARDS, ENDIANNESS, VERSION, PRODUCER = 1, 2, 3, 1
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}  # bytes
Fields = dict[tuple[int, int], list[Any]]  # (number, wire type) -> int of a VARINT, bytes of the others


@dataclass(frozen=True)
class Entry:
    """Type, shape and place of a variable."""

    dtype: int  # of TensorFlow's enumeration
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: bytes  # masked
    sliced: bool  # its parts are stored as separate variables


class Bundle:
    """A checkpoint open for reading. Raises UsageError that names the file."""

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self.index = Path(f"{prefix}.index")
        with naming_os_errors(str(self.index)):
            content = self.index.read_bytes()
        try:
            table = read_table(content)
            header = _read_message(table.pop(b"", b""))
            self.entries = {key.decode(): _parse_entry(message) for key, message in table.items()}
        except ValueError as error:
            raise UsageError(f"{self.index}: {error}") from error
        if _integer(header, ENDIANNESS):
            raise UsageError(f"{self.index}: written on a big-endian machine, expected little-endian")
        self.num_shards = _integer(header, NUM_SHARDS)

    def read(self, name: str) -> NDArray:
        """Return a variable; raises UsageError if its bytes are missing or damaged."""
        entry = self.entries[name]
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self.num_shards:05d}")
        dtype = DTYPES.get(entry.dtype)
        if dtype is None or entry.sliced or math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise UsageError(f"{self.index}: {name} is not a plain array of numbers (type {entry.dtype})")
        with naming_os_errors(str(path)):
            if path.stat().st_size < entry.offset + entry.size:
                raise UsageError(f"{path}: truncated, it ends before {name} does")
            array = np.fromfile(path, dtype, entry.size // dtype.itemsize, offset=entry.offset)
        if masked_crc(_raw(array)) != entry.crc:
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


def _read_message(message: bytes) -> Fields:
    """Return the values of a protobuf message's fields by number and wire type. Raises ValueError."""
    fields: Fields = {}
    at = 0
    try:
        while at < len(message):
            tag, at = read_varint(message, at)
            number, wire = tag >> 3, tag & 7
            value, at = read_varint(message, at) if wire in (VARINT, LENGTH) else (FIXED_SIZES[wire], at)
            if wire != VARINT:  # the number read is the length of the value
                value, at = message[at : at + value], at + value
            fields.setdefault((number, wire), []).append(value)
    except LookupError as error:
        raise ValueError("damaged entries") from error
    if at > len(message):
        raise ValueError("damaged entries")
    return fields


def _integer(fields: Fields, number: int) -> int:
    return fields.get((number, VARINT), [0])[-1]


def _parse_entry(message: bytes) -> Entry:
    fields = _read_message(message)
    shape = _read_message(fields.get((SHAPE, LENGTH), [b""])[-1])
    dims = tuple(_integer(_read_message(dim), LENGTH_OF_DIMENSION) for dim in shape.get((DIMENSION, LENGTH), []))
    dtype, shard, offset, size = (_integer(fields, number) for number in (DTYPE, SHARD, OFFSET, SIZE))
    crc = fields.get((CRC, FIXED32), [b""])[-1]
    return Entry(dtype, dims, shard, offset, size, crc, (SLICES, LENGTH) in fields)


def _encode_entry(array: NDArray, offset: int) -> bytes:
    dims = b"".join(field(DIMENSION, number_field(LENGTH_OF_DIMENSION, length)) for length in array.shape)
    kind = number_field(DTYPE, NUMBER_OF[array.dtype]) + field(SHAPE, dims)
    place = number_field(OFFSET, offset) + number_field(SIZE, array.nbytes)
    return kind + place + bytes((CRC << 3 | FIXED32,)) + masked_crc(_raw(array))


def _raw(array: NDArray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
