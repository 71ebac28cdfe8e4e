"""Sorted string tables, the index files of TensorFlow's checkpoints: bytes ⇄ {key: value}.

A table is a sequence of blocks and a footer that gives the place of the index block. A block is a list of entries whose
keys omit the prefix they share with the preceding key, then the places of the entries with a whole key ("restarts"); a
type and a checksum follow it::

    block ... block  (block of the meta index, empty)  block of (last key, place of block)  footer, 48 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import takewhile

from bert.data.formats.protobuf import varint
from bert.data.formats.records import masked_crc

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER = 48  # two places, zero-filled to 40 bytes, and the magic number
PLAIN = b"\0"  # type of an uncompressed block; the masked CRC-32C of block and type follows
TRAILER = 5  # bytes
RESTART_INTERVAL = 16  # entries


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return the entries of a whole table; raises ValueError with what is wrong."""
    footer = data[-FOOTER:]
    if len(footer) < FOOTER or not footer.endswith(MAGIC):
        raise ValueError("truncated, or not an index of TensorFlow: the end is wrong")
    try:
        _, at = _place(footer, 0)
        index, _ = _place(footer, at)
        places = [_place(value, 0)[0] for _, value in _entries(_block(data, index))]
        return {key: value for place in places for key, value in _entries(_block(data, place))}
    except (IndexError, struct.error) as error:
        raise ValueError("damaged blocks") from error


def write_table(entries: dict[bytes, bytes]) -> bytes:
    """Return the table of ``entries``: a single block, sorted by key."""
    keys = sorted(entries)
    data, index = bytearray(), []
    for block in (_build_block([(key, entries[key]) for key in keys]), _build_block([])):
        index.append(varint(len(data)) + varint(len(block)))
        data += _sealed(block)
    top = _build_block([(keys[-1], index[0])])
    footer = index[1] + varint(len(data)) + varint(len(top))
    return bytes(data + _sealed(top) + footer.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)


def _block(data: bytes, place: tuple[int, int]) -> bytes:
    offset, size = place
    typed, crc = data[offset : offset + size + 1], data[offset + size + 1 : offset + size + TRAILER]
    if masked_crc(typed) != crc:
        raise ValueError("damaged, the checksum of a block is wrong")
    if typed[-1:] != PLAIN:
        raise ValueError("compressed blocks, expected uncompressed ones")
    return typed[:-1]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        fresh, at = read_varint(block, at)
        size, at = read_varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size


def _build_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries):
        if number and number % RESTART_INTERVAL == 0:
            restarts.append(len(block))
            before = b""
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, key, strict=False)))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return bytes(block) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _sealed(block: bytes) -> bytes:
    return block + PLAIN + masked_crc(block + PLAIN)


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (number, the place after it)."""
    number = shift = 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1
