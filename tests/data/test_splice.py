import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert.data.formats import hdf5, parquet
from bert.data.formats.table import read_shard, splice_shards, write_shard
from bert.data.shard import RowRange, concatenate, select
from bert.errors import UsageError

FIELDS = (
    "tokens",
    "offsets",
    "segment_starts",
    "next_sentence_labels",
    "masked_positions",
    "masked_labels",
    "masked_offsets",
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writing beyond ``size`` bytes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_same(one, other) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".parquet", ".parquet_3"])
@pytest.mark.parametrize("static", [True, False])
def test_rows_of_several_files_come_one_after_another(tmp_path, make_shard, vocab, suffix, static):
    shards = [make_shard([5, 17, 20, 6, 12] * 20, static, seed) for seed in range(3)]
    paths = [tmp_path / f"part.{i}{suffix}" for i in range(3)]
    for path, shard in zip(paths, shards, strict=True):
        write_shard(path, shard, 20, 5, vocab)
    rows = [(0, 90, 100), (1, 0, 100), (2, 0, 7), (0, 3, 4), (1, 5, 5)]
    splice_shards(tmp_path / f"shard-0{suffix}", [RowRange(paths[i], start, stop) for i, start, stop in rows])
    expected = concatenate(
        [
            select(shards[0], np.arange(90, 100)),
            shards[1],
            select(shards[2], np.arange(7)),
            select(shards[0], np.array([3])),
        ]
    )
    assert_same(read_shard(tmp_path / f"shard-0{suffix}", vocab), expected)
    assert {p.name for p in tmp_path.iterdir()} == {*(p.name for p in paths), f"shard-0{suffix}"}


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_the_bytes_depend_on_the_rows_alone(tmp_path, make_shard, vocab, suffix, monkeypatch):
    """However the rows were laid out, and in blocks and row groups of any size."""
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 32)
    monkeypatch.setattr(parquet, "BATCH", 10)
    monkeypatch.setattr(hdf5, "ROWS_AT_ONCE", 16)
    shard = make_shard([5, 17, 20, 6, 12] * 20)
    write_shard(tmp_path / f"whole{suffix}", shard, 20, 5, vocab)
    cuts = [0, 1, 33, 50, 98, 100]
    parts = []
    for low, high in pairwise(cuts):
        path = tmp_path / f"part.{low}{suffix}"
        write_shard(path, select(shard, np.arange(low, high)), 20, 5, vocab)
        parts.append(RowRange(path, 0, high - low))
    splice_shards(tmp_path / f"one{suffix}", [RowRange(tmp_path / f"whole{suffix}", 0, 100)])
    splice_shards(tmp_path / f"many{suffix}", parts)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"many{suffix}").read_bytes()
    assert_same(read_shard(tmp_path / f"many{suffix}", vocab), shard)
    if suffix == ".parquet":
        assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        groups = pq.ParquetFile(tmp_path / "many.parquet").metadata
        assert [groups.row_group(g).num_rows for g in range(groups.num_row_groups)] == [32, 32, 32, 4]


def test_parquet_keeps_every_column_and_type(tmp_path):
    def table(first: int) -> pa.Table:
        rows = range(first, first + 10)
        columns = {
            "A": pa.array([f"a{i}" for i in rows], pa.large_string()),
            "B": pa.array(["b"] * 10).dictionary_encode(),
            "is_random_next": [i % 2 == 0 for i in rows],
            "ids": pa.array([[i, i + 1] for i in rows], pa.list_(pa.uint16())),
            "source": [None if i % 3 else "wiki" for i in rows],
        }
        return pa.table(columns).replace_schema_metadata({"pandas": f"rows {first}"})

    for i, codec in enumerate(("snappy", "zstd")):
        pq.write_table(table(10 * i), tmp_path / f"part.{i}.parquet", compression=codec, row_group_size=3)
    parts = [RowRange(tmp_path / "part.0.parquet", 4, 10), RowRange(tmp_path / "part.1.parquet", 0, 5)]
    splice_shards(tmp_path / "a.parquet", parts)
    expected = pa.concat_tables([table(0).slice(4), table(10).slice(0, 5)])
    found = pq.read_table(tmp_path / "a.parquet")
    assert found.schema.equals(expected.schema)
    assert found.schema.metadata is None
    assert found.to_pylist() == expected.to_pylist()
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
    assert (column.compression, column.has_dictionary_page) == ("ZSTD", False)


def test_hdf5_keeps_every_table_and_type(tmp_path, make_shard, vocab):
    for i in range(2):
        path = tmp_path / f"part.{i}.hdf5"
        write_shard(path, make_shard([5, 17, 20] * 5, seed=i), 20, 5, vocab)
        with h5py.File(path, "r+") as file:
            file.create_dataset("weights", data=np.full((15, 2, 3), i, np.float16))
    splice_shards(tmp_path / "a.hdf5", [RowRange(tmp_path / f"part.{i}.hdf5", 5 * i, 10) for i in range(2)])
    with h5py.File(tmp_path / "part.0.hdf5") as part, h5py.File(tmp_path / "a.hdf5") as spliced:
        assert set(spliced) == set(part)
        for name in part:
            assert (spliced[name].dtype, spliced[name].shape[1:]) == (part[name].dtype, part[name].shape[1:]), name
            assert (spliced[name].shape[0], spliced[name].compression) == (15, "gzip"), name
        assert spliced["weights"][:, 1, 2].tolist() == [0] * 10 + [1] * 5


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_no_rows_make_an_empty_shard(tmp_path, make_shard, vocab, suffix):
    write_shard(tmp_path / f"part{suffix}", make_shard([9, 9]), 20, 5, vocab)
    splice_shards(tmp_path / f"empty{suffix}", [RowRange(tmp_path / f"part{suffix}", 1, 1)])
    assert read_shard(tmp_path / f"empty{suffix}", vocab).num_samples == 0


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_files_of_another_layout_are_named(tmp_path, make_shard, vocab, suffix):
    write_shard(tmp_path / f"static{suffix}", make_shard([9] * 4), 20, 5, vocab)
    write_shard(tmp_path / f"dynamic{suffix}", make_shard([9] * 4, static=False), 20, 5, vocab)
    parts = [RowRange(tmp_path / f"{kind}{suffix}", 0, 4) for kind in ("static", "dynamic")]
    with pytest.raises(
        UsageError, match=rf"dynamic{suffix}: (other columns|another table masked_lm_ids) than in .*/stat"
    ):
        splice_shards(tmp_path / f"a{suffix}", parts)
    assert not (tmp_path / f"a{suffix}").exists()


def test_hdf5_of_another_width_is_named(tmp_path, make_shard, vocab):
    for width in (20, 24):
        write_shard(tmp_path / f"{width}.hdf5", make_shard([9] * 4), width, 5, vocab)
    with pytest.raises(
        UsageError, match=r"24.hdf5: another table input_ids than .*20.hdf5 \(int32 \[24\] and int32 \[20\]"
    ):
        splice_shards(tmp_path / "a.hdf5", [RowRange(tmp_path / f"{width}.hdf5", 0, 4) for width in (20, 24)])


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_a_part_that_is_too_short_or_damaged_is_named(tmp_path, make_shard, vocab, suffix):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    for path in (good, bad):
        write_shard(path, make_shard([9] * 4), 20, 5, vocab)
    with pytest.raises(UsageError, match=f"bad{suffix}: 4 rows, expected at least 5"):
        splice_shards(tmp_path / f"a{suffix}", [RowRange(good, 0, 4), RowRange(bad, 3, 5)])
    bad.write_bytes(bad.read_bytes()[:-1000])
    with pytest.raises(UsageError, match=f"bad{suffix}: unreadable shard"):
        splice_shards(tmp_path / f"a{suffix}", [RowRange(good, 0, 4), RowRange(bad, 0, 4)])


def test_damage_in_the_middle_of_a_part_is_named(tmp_path, make_shard, vocab):
    path = tmp_path / "bad.parquet"
    write_shard(path, make_shard([20] * 500), 20, 5, vocab)
    content = bytearray(path.read_bytes())
    content[200:2000] = bytes(1800)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad.parquet: unreadable shard"):
        splice_shards(tmp_path / "a.parquet", [RowRange(path, 0, 500)])


def test_formats_are_not_mixed(tmp_path, make_shard, vocab):
    write_shard(tmp_path / "a.hdf5", make_shard([9]), 20, 5, vocab)
    write_shard(tmp_path / "b.h5", make_shard([9]), 20, 5, vocab)
    splice_shards(tmp_path / "c.hdf5", [RowRange(tmp_path / name, 0, 1) for name in ("a.hdf5", "b.h5")])
    with pytest.raises(UsageError, match=r"a.hdf5: expected shards of one format, such as d.parquet"):
        splice_shards(tmp_path / "d.parquet", [RowRange(tmp_path / "a.hdf5", 0, 1)])
    with pytest.raises(UsageError, match=r"d.txt: unknown kind of shard"):
        splice_shards(tmp_path / "d.txt", [RowRange(tmp_path / "a.hdf5", 0, 1)])


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, make_shard, vocab, suffix):
    path = tmp_path / f"part{suffix}"
    write_shard(path, make_shard([20] * 3000), 20, 5, vocab)
    with largest_file(path.stat().st_size // 2):
        with pytest.raises(UsageError, match=rf"b{suffix}: .*File too large"):
            write_shard(tmp_path / f"b{suffix}", make_shard([20] * 3000), 20, 5, vocab)
        with pytest.raises(UsageError, match=rf"a{suffix}: .*File too large"):
            splice_shards(tmp_path / f"a{suffix}", [RowRange(path, 0, 3000)])
    assert list(tmp_path.iterdir()) == [path]
