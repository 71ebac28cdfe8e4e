"""TensorFlow's files: what is written is read, damage is named. tests/interop has TensorFlow itself as the oracle."""

import struct
from pathlib import Path

import numpy as np
import pytest

from bert.checkpoint.formats.sstable import MAGIC, read_table, write_table
from bert.checkpoint.formats.tf_bundle import Bundle, write_bundle
from bert.errors import UsageError

PREFIX = "model.ckpt"


def test_a_table_keeps_its_entries_and_shares_prefixes():
    entries = {f"bert/encoder/layer_{i}/output/dense/kernel".encode(): bytes([i]) * i for i in range(50)} | {b"": b"x"}
    table = write_table(entries)
    assert read_table(table) == entries
    assert list(read_table(table)) == sorted(entries)
    assert len(table) < sum(len(key) + len(value) for key, value in entries.items())


def test_the_bytes_of_a_table_with_one_entry():
    """By hand: entry (0 shared, 1 fresh, 2 of value), one restart at 0; CRC of "no compression" behind each block."""
    table = write_table({b"k": b"vv"})
    assert table[:14] == b"\0\x01\x02kvv" + struct.pack("<II", 0, 1)[:8]
    assert table.endswith(MAGIC) and table[-8:] == bytes.fromhex("57fb808b247547db")


@pytest.fixture
def arrays():
    draw = np.random.default_rng(0)
    return {
        "bert/a/kernel": draw.normal(size=(5, 300)).astype(np.float32),
        "bert/a/bias": draw.normal(size=300).astype(np.float32),
        "half": draw.normal(size=(2, 3, 4)).astype(np.float16),
        "global_step": np.array(1_000_000, np.int64),
        **{f"many/v{i}": np.full(i, i, np.float32) for i in range(40)},
    }


@pytest.fixture
def prefix(tmp_path, arrays) -> Path:
    write_bundle(tmp_path / PREFIX, arrays)
    return tmp_path / PREFIX


def test_arrays_come_back_bitwise(prefix, arrays):
    bundle = Bundle(prefix)
    assert set(bundle.entries) == set(arrays)
    for name, array in arrays.items():
        found = bundle.read(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


def read_all(prefix: Path) -> None:
    bundle = Bundle(prefix)
    for name in bundle.entries:
        bundle.read(name)


def files(prefix: Path) -> tuple[Path, Path]:
    return Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")


@pytest.mark.parametrize("which", [0, 1], ids=["index", "data"])
def test_every_flipped_bit_and_every_cut_is_found(prefix, which):
    path = files(prefix)[which]
    content = path.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 60)):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        # 14 bytes of the footer are filling: nothing is stored there.
        if which == 0 and len(content) - 44 <= at < len(content) - 8:
            continue
        with pytest.raises(UsageError, match=path.name):
            read_all(prefix)
    for size in range(0, len(content), max(1, len(content) // 20)):
        path.write_bytes(content[:size])
        with pytest.raises(UsageError, match=path.name):
            read_all(prefix)


def test_a_missing_file_is_named(prefix):
    index, data = files(prefix)
    data.unlink()
    with pytest.raises(UsageError, match=f"{data}: No such file"):
        read_all(prefix)
    index.unlink()
    with pytest.raises(UsageError, match=f"{index}: No such file"):
        Bundle(prefix)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):  # no such type in the table
        write_bundle(tmp_path / PREFIX, {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.complex64)})
    assert list(tmp_path.iterdir()) == []
