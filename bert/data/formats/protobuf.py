"""Protobuf's wire format for thousands of messages of one kind: every step reads one field of all of them.

A message is a range of bytes in a buffer that holds many; reading one gives the ranges of its fields. A nested message
is read in the same way, so a path into all records costs a few numpy calls per level and none per record::

    data, records = Spans.of([b"\\x08\\x96\\x01", b"\\x08\\x07"])     # two messages {field 1: 150}, {field 1: 7}
    fields = read_fields(data, records)
    values, counts = integers(data, fields.of(1, VARINT))           # [150, 7], [1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bert.ragged import offsets_of, ranges

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types: how a field's value is laid out
LONGEST = 10  # bytes of a varint
MORE = 0x80  # set in all bytes of a varint but the last
BITS = 0x7F


class Malformed(ValueError):
    """The bytes of ``record`` are not a message."""

    def __init__(self, record: int) -> None:
        super().__init__(f"record {record} is not a protobuf message")
        self.record = record


@dataclass(frozen=True)
class Spans:
    """Byte ranges of a buffer in ascending order, and the record that each lies in."""

    records: NDArray[np.int64]  # [m]
    starts: NDArray[np.int64]  # [m]
    stops: NDArray[np.int64]  # [m]

    @classmethod
    def of(cls, messages: Sequence[bytes]) -> tuple[NDArray[np.uint8], Spans]:
        """Lay ``messages`` end to end; returns the buffer and where each lies in it."""
        bounds = offsets_of(np.fromiter(map(len, messages), np.int64, len(messages)))
        # Zeros at the end: a truncated number ends in them, not beyond the buffer.
        data = np.frombuffer(b"".join((*messages, bytes(LONGEST))), np.uint8)
        return data, cls(np.arange(len(messages)), bounds[:-1], bounds[1:])

    def __getitem__(self, chosen: NDArray) -> Spans:
        return Spans(self.records[chosen], self.starts[chosen], self.stops[chosen])

    def equal(self, data: NDArray[np.uint8], text: bytes) -> NDArray[np.bool_]:
        """Tell which ranges hold ``text``."""
        equal = self.stops - self.starts == len(text)
        same_length = np.flatnonzero(equal)
        window = self.starts[same_length, None] + np.arange(len(text))
        equal[same_length] = (data[window] == np.frombuffer(text, np.uint8)).all(1)
        return equal


@dataclass(frozen=True)
class Fields:
    """The fields of some messages, in the order of their bytes."""

    values: Spans
    messages: NDArray[np.int64]  # [m], which of the messages read
    numbers: NDArray[np.int64]  # [m]
    wires: NDArray[np.int64]  # [m]

    def having(self, numbers: int | Sequence[int], *wires: int) -> NDArray[np.bool_]:
        """Tell which fields have one of these numbers and wire types; others are unknown and ignored."""
        return np.isin(self.numbers, numbers) & np.isin(self.wires, wires)

    def of(self, numbers: int | Sequence[int], *wires: int) -> Spans:
        """Return the values of those fields."""
        return self.values[self.having(numbers, *wires)]


def read_fields(data: NDArray[np.uint8], messages: Spans) -> Fields:
    """Find all fields of ``messages``; raises Malformed naming a record whose bytes are not a message."""
    parts: list[tuple[NDArray, ...]] = [(np.zeros(0, np.int64),) * 5]
    cursors = messages.starts.copy()
    active = np.flatnonzero(cursors < messages.stops)
    while len(active):
        tags, at, tag_ended = _varints_at(data, cursors[active])
        lengths, behind, ended = _varints_at(data, at)  # meaningless where the value has a fixed size
        wires = tags & 7
        kinds = [wires == VARINT, wires == LENGTH, wires == FIXED64, wires == FIXED32]
        starts = np.where(kinds[1], behind, at)
        stops = np.select(kinds, [behind, behind + lengths, at + 8, at + 4], -1)
        good = tag_ended & (ended | ~(kinds[0] | kinds[1])) & (stops >= starts) & (stops <= messages.stops[active])
        if not good.all():
            raise Malformed(int(messages.records[active[~good][0]]))
        parts.append((active, tags >> 3, wires, starts, stops))
        cursors[active] = stops
        active = active[stops < messages.stops[active]]
    owners, numbers, wires, starts, stops = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(starts, kind="stable")
    owners = owners[order]
    return Fields(Spans(messages.records[owners], starts[order], stops[order]), owners, numbers[order], wires[order])


def _varints_at(data: NDArray[np.uint8], at: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Decode the varint at each place; returns values, the places after them, and whether each one ends in time."""
    first = data[at]
    values, ends = (first & BITS).astype(np.int64), at + 1
    unfinished = np.flatnonzero(first & MORE)
    for index in range(1, LONGEST):
        if not len(unfinished):
            break
        byte = data[ends[unfinished]]
        values[unfinished] |= (byte & BITS).astype(np.int64) << 7 * index
        ends[unfinished] += 1
        unfinished = unfinished[byte & MORE != 0]
    ended = np.ones(len(at), bool)
    ended[unfinished] = False
    return values, ends, ended


def integers(data: NDArray[np.uint8], spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decode the varints that lie end to end in each range; returns all values, and how many each range has.

    This reads both forms of a repeated field: one range with all values (packed), and one range per value.
    """
    sizes = spans.stops - spans.starts
    encoded = data[ranges(spans.starts, sizes)]
    is_last = encoded < MORE
    bounds = offsets_of(sizes)
    cut_off = (sizes > 0) & ~is_last[np.maximum(bounds[1:] - 1, 0)] if len(encoded) else sizes > 0
    if cut_off.any():
        raise Malformed(int(spans.records[cut_off.argmax()]))
    if is_last.all():
        return encoded.astype(np.int64), sizes
    ends = np.flatnonzero(is_last)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts
    values = (encoded[starts] & BITS).astype(np.int64)
    for index in range(1, int(lengths.max()) + 1):
        longer = np.flatnonzero(lengths >= index)
        if index >= LONGEST:
            raise Malformed(int(spans.records[np.searchsorted(bounds, starts[longer[0]], "right") - 1]))
        values[longer] |= (encoded[starts[longer] + index] & BITS).astype(np.int64) << 7 * index
    return values, np.diff(np.searchsorted(ends, bounds))


def floats(data: NDArray[np.uint8], spans: Spans) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the 32-bit floats that lie end to end in each range; returns all values, and how many each range has."""
    sizes = spans.stops - spans.starts
    odd = sizes % 4 != 0
    if odd.any():
        raise Malformed(int(spans.records[odd.argmax()]))
    return data[ranges(spans.starts, sizes)].view("<f4"), sizes // 4


def field(number: int, body: bytes) -> bytes:
    """Encode a field that holds text, a message or packed values; field numbers up to 15."""
    return bytes((number << 3 | LENGTH,)) + varint(len(body)) + body


def number_field(number: int, value: int) -> bytes:
    """Encode a field that holds one integer of at least 0; field numbers up to 15."""
    return bytes((number << 3 | VARINT,)) + varint(value)


def packed_integers(table: NDArray) -> list[bytes]:
    """Encode every row of ``table`` [n, width] as varints end to end."""
    values = np.ascontiguousarray(table, np.int64).view(np.uint64).reshape(-1)
    if not values.size or values.max() < MORE:
        return [row.tobytes() for row in values.astype(np.uint8).reshape(table.shape)]
    sizes = np.ones(len(values), np.int64)
    for index in range(1, LONGEST):
        sizes += values >> np.uint64(7 * index) > 0
    bounds = offsets_of(sizes)
    encoded = np.empty(bounds[-1], np.uint8)
    for index in range(int(sizes.max())):
        longer = np.flatnonzero(sizes > index)
        byte = (values[longer] >> np.uint64(7 * index)).astype(np.uint8) & BITS
        encoded[bounds[longer] + index] = byte | np.where(sizes[longer] > index + 1, MORE, 0).astype(np.uint8)
    whole, rows = encoded.tobytes(), bounds[:: table.shape[1]].tolist()
    return [whole[low:high] for low, high in pairwise(rows)]


def packed_floats(table: NDArray) -> list[bytes]:
    """Encode every row of ``table`` [n, width] as 32-bit floats end to end."""
    return [row.tobytes() for row in table.astype("<f4")]


def varint(number: int) -> bytes:
    """Encode a number of at least 0."""
    encoded = bytearray()
    while number > BITS:
        encoded.append(number & BITS | MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
