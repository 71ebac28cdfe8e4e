import io
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert.data.formats.table import (
    Limits,
    Shard,
    find_shards,
    format_of,
    inspect_shard,
    read_shard,
    write_shard,
)
from bert.errors import UsageError

ARRAYS = ("tokens", "offsets", "segment_starts", "next_sentence_labels")
MASKS = ("masked_positions", "masked_labels", "masked_offsets")


def assert_same(one: Shard, other: Shard) -> None:
    for name in ARRAYS + MASKS:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)


def npy(values, dtype="<u2") -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return file.getvalue()


# [CLS] the ##s [SEP] , [SEP]     and     [CLS] w0 [SEP] naïve [MASK] [SEP]
BY_HAND = Shard(
    tokens=np.array([2, 5, 6, 3, 7, 3, 2, 10, 3, 8, 4, 3], np.int32),
    offsets=np.array([0, 6, 12]),
    segment_starts=np.array([4, 3], np.int32),
    next_sentence_labels=np.array([1, 0], np.int8),
    masked_positions=np.array([2, 4], np.int32),
    masked_labels=np.array([6, 9], np.int32),
    masked_offsets=np.array([0, 1, 2]),
)


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".parquet", ".parquet_3"])
@pytest.mark.parametrize("static", [True, False])
def test_what_is_written_is_read_again(tmp_path, make_shard, vocab, suffix, static):
    shard = make_shard([5, 17, 20, 6, 12] * 20, static)
    path = tmp_path / f"part{suffix}"
    write_shard(path, shard, 20, 5, vocab)
    assert_same(read_shard(path, vocab), shard)
    assert inspect_shard(path).num_samples == 100
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_a_range_of_rows_is_that_part_of_the_whole(tmp_path, make_shard, vocab, suffix):
    path = tmp_path / f"part{suffix}"
    write_shard(path, make_shard([5, 17, 20, 6, 12] * 20), 20, 5, vocab)
    whole, part = read_shard(path, vocab), read_shard(path, vocab, 7, 12)
    assert part.lengths.tolist() == [20, 6, 12, 5, 17]
    np.testing.assert_array_equal(part.tokens, whole.tokens[whole.offsets[7] : whole.offsets[12]])
    np.testing.assert_array_equal(
        part.masked_labels, whole.masked_labels[whole.masked_offsets[7] : whole.masked_offsets[12]]
    )


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_an_empty_shard_has_no_samples(tmp_path, make_shard, vocab, suffix):
    path = tmp_path / f"empty{suffix}"
    write_shard(path, make_shard([]), 20, 5, vocab)
    assert inspect_shard(path).num_samples == 0
    assert read_shard(path, vocab).num_samples == 0


def write_nvidia(path, rows: int = 2) -> None:
    """The layout of the published script, table by table."""
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip"}
        ids = np.array([[2, 5, 6, 3, 7, 3, 0, 0], [2, 10, 3, 8, 4, 3, 0, 0]])[:rows]
        file.create_dataset("input_ids", data=ids, dtype="i4", **options)
        file.create_dataset("input_mask", data=ids > 0, dtype="i1", **options)
        segments = np.array([[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0]])[:rows]
        file.create_dataset("segment_ids", data=segments, dtype="i1", **options)
        file.create_dataset("masked_lm_positions", data=[[2, 0, 0], [4, 0, 0]][:rows], dtype="i4", **options)
        file.create_dataset("masked_lm_ids", data=[[6, 0, 0], [9, 0, 0]][:rows], dtype="i4", **options)
        file.create_dataset("next_sentence_labels", data=[1, 0][:rows], dtype="i1", **options)


def test_hdf5_of_the_published_script_is_read(tmp_path):
    write_nvidia(tmp_path / "nvidia.hdf5")
    assert_same(read_shard(tmp_path / "nvidia.hdf5"), BY_HAND)


def test_hdf5_is_written_as_the_published_script_does(tmp_path):
    write_nvidia(tmp_path / "nvidia.hdf5")
    write_shard(tmp_path / "ours.hdf5", BY_HAND, max_seq_length=8, max_predictions_per_seq=3)
    with h5py.File(tmp_path / "nvidia.hdf5") as theirs, h5py.File(tmp_path / "ours.hdf5") as ours:
        assert set(ours) == set(theirs)
        for name in theirs:
            assert ours[name].dtype == theirs[name].dtype, name
            assert ours[name].compression == "gzip", name
            np.testing.assert_array_equal(ours[name][:], theirs[name][:], err_msg=name)


def test_full_rows_of_predictions_have_no_end_mark(tmp_path):
    write_nvidia(tmp_path / "full.hdf5")
    with h5py.File(tmp_path / "full.hdf5", "r+") as file:
        file["masked_lm_positions"][0] = [1, 2, 4]
        file["masked_lm_positions"][1] = [0, 0, 0]
    assert read_shard(tmp_path / "full.hdf5").masked_offsets.tolist() == [0, 3, 3]


def parquet_by_hand(vocab, **changes):
    columns = {
        "A": ["the ##s", "w0"],
        "B": [",", "naïve [MASK]"],
        "is_random_next": [True, False],
        "num_tokens": pa.array([6, 6], pa.uint16()),
        "masked_lm_positions": [npy([2]), npy([4])],
        "masked_lm_labels": ["##s", "北"],
    }
    columns.update(changes)
    return pa.table({name: column for name, column in columns.items() if column is not None})


PARQUET_VARIANTS = {
    "plain": ({}, {}),
    "zstd, a row group per row": ({}, {"compression": "zstd", "row_group_size": 1}),
    "no num_tokens, no statistics": ({"num_tokens": None}, {"write_statistics": False}),
    "more columns": ({"bin_id": [1, 1], "source": ["wiki", "books"]}, {}),
    "large strings": ({"A": pa.array(["the ##s", "w0"], pa.large_string())}, {}),
    "coded strings": ({"B": pa.array([",", "naïve [MASK]"]).dictionary_encode()}, {}),
    "positions in another integer type": ({"masked_lm_positions": [npy([2], "<i8"), npy([4], "<i8")]}, {}),
    "a second blank": ({"A": ["the  ##s ", " w0"]}, {}),
}


@pytest.mark.parametrize("variant", PARQUET_VARIANTS)
def test_variants_of_lddl_parquet_are_read(tmp_path, vocab, variant):
    changes, options = PARQUET_VARIANTS[variant]
    pq.write_table(parquet_by_hand(vocab, **changes), tmp_path / "part.0.parquet", **options)
    assert_same(read_shard(tmp_path / "part.0.parquet", vocab), BY_HAND)


def test_parquet_has_the_schema_of_lddl(tmp_path, vocab):
    write_shard(tmp_path / "a.parquet", BY_HAND, 8, 3, vocab)
    written = pq.ParquetFile(tmp_path / "a.parquet").read()
    assert {f.name: str(f.type) for f in written.schema} == {
        "A": "string",
        "B": "string",
        "is_random_next": "bool",
        "num_tokens": "uint16",
        "masked_lm_positions": "binary",
        "masked_lm_labels": "string",
    }
    assert written.to_pydict() == parquet_by_hand(vocab).to_pydict()
    write_shard(tmp_path / "a.parquet_7", BY_HAND, 8, 3, vocab)
    assert pq.ParquetFile(tmp_path / "a.parquet_7").read(["bin_id"]).to_pydict() == {"bin_id": [7, 7]}


def test_a_segment_may_be_empty_or_hold_a_separator(tmp_path, vocab):
    table = pa.table({"A": ["", "the [SEP] w0"], "B": ["the", ""], "is_random_next": [True, False]})
    pq.write_table(table, tmp_path / "odd.parquet")
    shard = read_shard(tmp_path / "odd.parquet", vocab)
    assert shard.tokens.tolist() == [2, 3, 5, 3, 2, 5, 3, 10, 3, 3]
    assert shard.offsets.tolist() == [0, 4, 10]
    assert shard.segment_starts.tolist() == [2, 5]


def test_rows_without_a_masked_token(tmp_path, vocab):
    table = parquet_by_hand(vocab, masked_lm_positions=[npy([]), npy([4])], masked_lm_labels=["", "北"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_shard(tmp_path / "a.parquet", vocab).masked_offsets.tolist() == [0, 0, 1]


def test_pickled_positions_are_refused(tmp_path, vocab):
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    table = parquet_by_hand(vocab, masked_lm_positions=[file.getvalue(), npy([4])])
    pq.write_table(table, tmp_path / "evil.parquet")
    with pytest.raises(UsageError, match=r"evil\.parquet: unreadable shard .*pickle"):
        read_shard(tmp_path / "evil.parquet", vocab)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": ["the ##s", "unheard"]}, "word piece 'unheard' is not in --vocab_file"),
        ({"masked_lm_labels": ["##s", "unheard"]}, "word piece 'unheard' is not in --vocab_file"),
        ({"masked_lm_labels": ["##s", "北 the"]}, "row 1 has 1 masked positions and 2 labels"),
        ({"masked_lm_labels": None}, "a column masked_lm_positions alone"),
        ({"B": None}, "no column B"),
        ({"B": [",", None]}, "null values in column B"),
        ({"masked_lm_positions": [b"nonsense", npy([4])]}, "unreadable shard"),
    ],
)
def test_wrong_parquet_is_named(tmp_path, vocab, changes, message):
    pq.write_table(parquet_by_hand(vocab, **changes), tmp_path / "bad.parquet")
    with pytest.raises(UsageError, match=f"bad.parquet: .*{message}"):
        read_shard(tmp_path / "bad.parquet", vocab)


def test_parquet_needs_a_vocabulary(tmp_path, vocab):
    write_shard(tmp_path / "a.parquet", BY_HAND, 8, 3, vocab)
    with pytest.raises(UsageError, match="needs --vocab_file"):
        read_shard(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
@pytest.mark.parametrize("damage", ["zero bytes", "first half", "other bytes", "missing"])
def test_a_damaged_shard_is_named(tmp_path, vocab, suffix, damage):
    path = tmp_path / f"bad{suffix}"
    write_shard(path, BY_HAND, 8, 3, vocab)
    content = path.read_bytes()
    changed = {"zero bytes": b"", "first half": content[: len(content) // 2], "other bytes": b"x" * len(content)}
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    for action in (lambda: read_shard(path, vocab), lambda: inspect_shard(path)):
        with pytest.raises(UsageError, match=f"bad{suffix}: unreadable shard"):
            action()


def test_data_damaged_behind_an_intact_footer_are_named(tmp_path, make_shard, vocab):
    path = tmp_path / "bad.parquet"
    write_shard(path, make_shard([20] * 500), 20, 5, vocab)
    content = bytearray(path.read_bytes())
    content[200:2000] = bytes(1800)
    path.write_bytes(content)
    assert inspect_shard(path).num_samples == 500
    with pytest.raises(UsageError, match="bad.parquet"):
        read_shard(path, vocab)


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("input_mask", [1, 0, 1, 1, 1, 1, 0, 0], "input_mask of row 1"),
        ("segment_ids", [0, 1, 0, 1, 1, 1, 0, 0], "segment_ids of row 1"),
    ],
)
def test_rows_that_are_not_a_token_stream_are_refused(tmp_path, table, value, message):
    write_nvidia(tmp_path / "odd.hdf5")
    with h5py.File(tmp_path / "odd.hdf5", "r+") as file:
        file[table][1] = value
    with pytest.raises(UsageError, match=f"odd.hdf5: {message}"):
        read_shard(tmp_path / "odd.hdf5")


def test_a_missing_hdf5_table_is_named(tmp_path):
    write_nvidia(tmp_path / "odd.hdf5")
    with h5py.File(tmp_path / "odd.hdf5", "r+") as file:
        del file["segment_ids"]
    with pytest.raises(UsageError, match=r"odd.hdf5: no table segment_ids"):
        inspect_shard(tmp_path / "odd.hdf5")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(5, 3), "up to 6 tokens, --max_seq_length is 5"),
        (Limits(8, 0), "up to 1 masked tokens in a sequence, --max_predictions_per_seq is 0"),
        (Limits(8, 3, 10), r"token id 10, outside the vocabulary of 10 pieces .*--vocab_file.*--config_file"),
    ],
)
def test_limits_name_file_value_and_flag(limits, message):
    Limits(6, 1, 11).check(BY_HAND, "a.hdf5")
    with pytest.raises(UsageError, match=f"a.hdf5: .*{message}"):
        limits.check(BY_HAND, "a.hdf5")


def test_limits_check_masks(tmp_path):
    for change, message in (
        ({"masked_positions": np.array([2, 6])}, "sequence 1 has 6 tokens and a masked position 6"),
        ({"masked_positions": np.array([-1, 2])}, "sequence 0 has 6 tokens and a masked position -1"),
        ({"masked_labels": np.array([6, -1])}, "masked label -1"),
        ({"masked_labels": np.array([6, 30522])}, "masked label 30522"),
    ):
        with pytest.raises(UsageError, match=message):
            Limits(8, 3, 30522).check(Shard(**{**vars(BY_HAND), **change}), "a.hdf5")


def test_a_shard_beyond_its_limits_is_not_written(tmp_path, vocab):
    with pytest.raises(UsageError, match="--max_predictions_per_seq is 0"):
        write_shard(tmp_path / "a.hdf5", BY_HAND, 8, 0, vocab)
    single = Shard(**{**vars(BY_HAND), "segment_starts": np.array([4, 6], np.int32)})
    with pytest.raises(UsageError, match="sequence 1 has one segment"):
        write_shard(tmp_path / "a.parquet", single, 8, 3, vocab)
    assert list(tmp_path.iterdir()) == []


def test_hdf5_holds_single_segments(tmp_path):
    single = Shard(**{**vars(BY_HAND), "segment_starts": np.array([4, 6], np.int32)})
    write_shard(tmp_path / "a.hdf5", single, 8, 3)
    assert_same(read_shard(tmp_path / "a.hdf5"), single)


def test_a_failed_write_leaves_the_old_file(tmp_path, vocab, monkeypatch):
    path = tmp_path / "a.parquet"
    write_shard(path, BY_HAND, 8, 3, vocab)
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(UsageError, match=r"a.parquet: No space left on device"):
        write_shard(path, BY_HAND, 8, 3, vocab)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_shards_are_found_by_suffix(tmp_path):
    names = ["b.parquet_1", "a.parquet", "sub/c.hdf5", "d.h5", ".num_samples.json", ".7.a.parquet", "e.txt", "f.hdf"]
    (tmp_path / "sub").mkdir()
    for name in names:
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_shards(tmp_path)] == [
        "a.parquet",
        "b.parquet_1",
        "d.h5",
        "sub/c.hdf5",
    ]
    assert find_shards(tmp_path / "d.h5") == [tmp_path / "d.h5"]
    assert [p.name for p in find_shards(f"{tmp_path}/*.parquet*")] == ["a.parquet", "b.parquet_1"]


def test_shards_behind_a_link_are_found_and_a_broken_link_is_said(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "real").mkdir()
    for name in ("shards/a.parquet", "real/b.parquet", "real/part-00000"):
        (tmp_path / name).touch()
    for link, target in (("more", "../real"), ("loop", "."), ("gone.h5", "nowhere")):
        (tmp_path / "shards" / link).symlink_to(target)
    said: list[str] = []
    found = find_shards(tmp_path / "shards", notice=said.append)
    names = [path.relative_to(tmp_path / "shards").as_posix() for path in found]
    assert names == ["a.parquet", "more/b.parquet", "more/part-00000"]
    assert [line.partition("passed")[0] for line in said] == [f"--input_dir {tmp_path}/shards: 2 links or folders "]


def test_test_shards_beside_training_shards_are_left_out(tmp_path):
    for name in ("wiki_training_0.hdf5", "wiki_training_1.hdf5", "wiki_test_0.hdf5"):
        (tmp_path / name).touch()
    assert [p.name for p in find_shards(tmp_path)] == ["wiki_training_0.hdf5", "wiki_training_1.hdf5"]
    assert [p.name for p in find_shards(tmp_path / "*_test_*")] == ["wiki_test_0.hdf5"]


def test_a_folder_without_shards_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match=r"--input_dir .*: no shards, expected .*\.hdf5.*\.parquet"):
            find_shards(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"a.hdf6: .*\*\.hdf5, \*\.h5, \*\.parquet.*, part-<n>$"):
        format_of(Path("a.hdf6"))
