"""TFRecord and OFRecord against the protobuf library and TensorBoard's own reader and writer of the framing."""

import gzip
import os
import struct

import numpy as np
import pytest
from crc32c import crc32c

import bert.data.formats.examples
import bert.data.formats.records
from bert.data.dataset import Dataset, LoaderConfig
from bert.data.formats.protobuf import LENGTH, Malformed, Spans, field, integers, packed_integers, read_fields
from bert.data.formats.table import (
    Shard,
    find_shards,
    inspect_shard,
    read_shard,
    splice_shards,
    write_shard,
)
from bert.data.loader import PretrainingLoader
from bert.data.shard import RowRange, ShardInfo, concatenate
from bert.errors import UsageError

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
tensorflow = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")

from google.protobuf import descriptor_pool, message_factory  # noqa: E402
from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: E402

NAMES = ["a.tfrecord", "part-0"]
KINDS = {"bytes": "BYTES", "float": "FLOAT", "double": "DOUBLE", "int32": "INT32", "int64": "INT64"}


def build_schema(package: str, kinds: list[str], packed: bool = True):
    """Return (Example, OFRecord, Int64List) of the published .proto files; ``kinds`` number the lists of Feature."""
    proto = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto
    for kind in kinds:
        values = proto.message_type.add(name=f"{kind.title()}List").field.add(name="value", number=1)
        values.type, values.label = getattr(types, f"TYPE_{KINDS[kind]}"), types.LABEL_REPEATED
        if kind != "bytes":
            values.options.packed = packed
    feature = proto.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(kinds, 1):
        name = f".{package}.{kind.title()}List"
        feature.field.add(name=f"{kind}_list", number=number, type=11, type_name=name, label=1, oneof_index=0)
    for name in ("Features", "OFRecord"):
        features = proto.message_type.add(name=name)
        entry = features.nested_type.add(name="FeatureEntry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=9, label=1)
        entry.field.add(name="value", number=2, type=11, type_name=f".{package}.Feature", label=1)
        entry_name = f".{package}.{name}.FeatureEntry"
        features.field.add(name="feature", number=1, type=11, type_name=entry_name, label=3)
    example = proto.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=11, type_name=f".{package}.Features", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    found = (pool.FindMessageTypeByName(f"{package}.{name}") for name in ("Example", "OFRecord", "Int64List"))
    return tuple(message_factory.GetMessageClass(each) for each in found)


Example, _, Int64List = build_schema("tensorflow", ["bytes", "float", "int64"])
LooseExample, _, _ = build_schema("loose", ["bytes", "float", "int64"], packed=False)
_, OFRecord, _ = build_schema("oneflow", ["bytes", "float", "double", "int32", "int64"])
_, LooseOFRecord, _ = build_schema("looseflow", ["bytes", "float", "double", "int32", "int64"], packed=False)


def message_of(row: dict, name: str, loose: bool = False):
    """Return the message of a file of this name with the lists of ``row``, made by the protobuf library."""
    if name == "part-0":
        message, kind = (LooseOFRecord if loose else OFRecord)(), "int32_list"
        features = message.feature
    else:
        message, kind = (LooseExample if loose else Example)(), "int64_list"
        features = message.features.feature
    for key, values in row.items():
        if isinstance(values, bytes):
            features[key].bytes_list.value.append(values)
        else:
            getattr(features[key], "float_list" if isinstance(values[0], float) else kind).value.extend(values)
    return message


def write_file(path, records: list[bytes]) -> None:
    """Frame ``records`` as TensorBoard does, or as OneFlow does where the name says so."""
    with path.open("wb") as file:
        for record in records:
            if path.name.startswith("part"):
                file.write(struct.pack("<q", len(record)) + record)
            else:
                RecordWriter(file).write(record)


def read_file(path) -> list[bytes]:
    """Return the records of a file, taken out of their frames by TensorBoard or as OneFlow does."""
    if not path.name.startswith("part"):
        reader, records = tensorflow.PyRecordReader_New(str(path)), []
        while True:
            try:
                reader.GetNext()
            except tensorflow.errors.OutOfRangeError:
                return records
            records.append(reader.record())
    records, content = [], path.read_bytes()
    while content:
        (length,) = struct.unpack("<q", content[:8])
        records.append(content[8 : 8 + length])
        content = content[8 + length :]
    return records


def write_rows(path, rows: list[dict]) -> None:
    write_file(path, [message_of(row, path.name).SerializeToString() for row in rows])


def rows_of(shard: Shard, length: int, predictions: int) -> list[dict]:
    """What the published scripts store of each sequence, padded one by one."""
    rows = []
    for i in range(shard.num_samples):
        tokens = shard.tokens[shard.offsets[i] : shard.offsets[i + 1]].tolist()
        second, pad = len(tokens) - int(shard.segment_starts[i]), [0] * (length - len(tokens))
        row = {
            "input_ids": tokens + pad,
            "input_mask": [1] * len(tokens) + pad,
            "segment_ids": [0] * (len(tokens) - second) + [1] * second + pad,
            "next_sentence_labels": [int(shard.next_sentence_labels[i])],
        }
        if shard.masks is not None:
            masked = slice(*shard.masked_offsets[i : i + 2])
            places = shard.masked_positions[masked].tolist()
            pad = [0] * (predictions - len(places))
            row["masked_lm_positions"] = places + pad
            row["masked_lm_ids"] = shard.masked_labels[masked].tolist() + pad
            row["masked_lm_weights"] = [1.0] * len(places) + [0.0] * len(pad)
        rows.append(row)
    return rows


def assert_same(one: Shard, other: Shard) -> None:
    for name, left in vars(one).items():
        right = getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)


# [CLS] a b [SEP] c [SEP]     and     [CLS] d [SEP] e [MASK] [SEP]
BY_HAND = Shard(
    tokens=np.array([101, 5, 128, 102, 30521, 102, 101, 127, 102, 16384, 103, 102], np.int32),
    offsets=np.array([0, 6, 12]),
    segment_starts=np.array([4, 3], np.int32),
    next_sentence_labels=np.array([1, 0], np.int8),
    masked_positions=np.array([2, 1, 4], np.int32),
    masked_labels=np.array([128, 9, 2097152], np.int32),
    masked_offsets=np.array([0, 1, 3]),
)
ROWS = [
    {
        "input_ids": [101, 5, 128, 102, 30521, 102, 0, 0],
        "input_mask": [1, 1, 1, 1, 1, 1, 0, 0],
        "segment_ids": [0, 0, 0, 0, 1, 1, 0, 0],
        "masked_lm_positions": [2, 0, 0],
        "masked_lm_ids": [128, 0, 0],
        "masked_lm_weights": [1.0, 0.0, 0.0],
        "next_sentence_labels": [1],
    },
    {
        "input_ids": [101, 127, 102, 16384, 103, 102, 0, 0],
        "input_mask": [1, 1, 1, 1, 1, 1, 0, 0],
        "segment_ids": [0, 0, 0, 1, 1, 1, 0, 0],
        "masked_lm_positions": [1, 4, 0],
        "masked_lm_ids": [9, 2097152, 0],
        "masked_lm_weights": [1.0, 1.0, 0.0],
        "next_sentence_labels": [0],
    },
]


def changed(row: dict, **changes) -> dict:
    """Return ``row`` with other features; None leaves one out."""
    return {key: values for key, values in {**row, **changes}.items() if values is not None}


# Reading and writing


def test_the_checksum_has_its_published_value():
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_protobuf_library_are_read(tmp_path, name):
    write_rows(tmp_path / name, ROWS)
    assert inspect_shard(tmp_path / name) == ShardInfo(2, 8, 3)
    assert_same(read_shard(tmp_path / name), BY_HAND)


@pytest.mark.parametrize("name", NAMES)
def test_written_files_are_read_by_the_protobuf_library(tmp_path, name):
    write_shard(tmp_path / name, BY_HAND, max_seq_length=8, max_predictions_per_seq=3)
    records = read_file(tmp_path / name)
    parsed = [type(message_of({}, name)).FromString(record) for record in records]
    assert parsed == [message_of(row, name) for row in ROWS]
    # Not packed, or with fields that the library does not know, they would be longer or shorter than its own.
    assert list(map(len, records)) == [message.ByteSize() for message in parsed]


def test_frames_are_those_of_tensorboard(tmp_path):
    write_shard(tmp_path / "ours.tfrecord", BY_HAND, 8, 3)
    write_file(tmp_path / "theirs.tfrecord", read_file(tmp_path / "ours.tfrecord"))
    assert (tmp_path / "ours.tfrecord").read_bytes() == (tmp_path / "theirs.tfrecord").read_bytes()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("name", ["a.tfrecord", "a.tf_record-00003-of-00010", "part-00017", "a.ofrecord"])
def test_what_is_written_is_read_again(tmp_path, make_shard, name, static):
    shard = make_shard([5, 17, 20, 6, 12] * 20, static)
    write_shard(tmp_path / name, shard, 20, 5)
    assert_same(read_shard(tmp_path / name), shard)
    assert inspect_shard(tmp_path / name) == ShardInfo(100, 20, 5 if static else None)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("static", [True, False])
def test_all_formats_of_padded_rows_hold_the_same(tmp_path, make_shard, static):
    shard = make_shard([20, 5, 11, 19] * 8, static, seed=3)
    write_shard(tmp_path / "a.hdf5", shard, 24, 6)
    write_shard(tmp_path / "a.tfrecord", read_shard(tmp_path / "a.hdf5"), 24, 6)
    write_rows(tmp_path / "part-0", rows_of(read_shard(tmp_path / "a.tfrecord"), 24, 6))
    for name in ("a.hdf5", "a.tfrecord", "part-0"):
        assert_same(read_shard(tmp_path / name), shard)


@pytest.mark.parametrize("name", NAMES)
def test_a_range_of_rows_is_that_part_of_the_whole(tmp_path, make_shard, monkeypatch, name):
    monkeypatch.setattr(bert.data.formats.records, "STRIDE", 4)
    monkeypatch.setattr(bert.data.formats.examples, "BATCH", 3)
    shard = make_shard([5, 17, 20, 6, 12] * 4)
    path = tmp_path / name
    write_shard(path, shard, 20, 5)
    assert_same(read_shard(path), shard)
    for start in (0, 3, 4, 6, 13, 20):
        for stop in {start, min(start + 1, 20), 14, 20} - set(range(start)):
            part = read_shard(path, None, start, stop)
            assert part.lengths.tolist() == shard.lengths[start:stop].tolist()
            assert part.tokens.tolist() == shard.tokens[shard.offsets[start] : shard.offsets[stop]].tolist()
            masked = slice(*shard.masked_offsets[[start, stop]])
            assert part.masked_labels.tolist() == shard.masked_labels[masked].tolist()
    assert read_shard(path, None, 18, 30).num_samples == 2
    assert read_shard(path, None, 30, 40).num_samples == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_has_no_records(tmp_path, make_shard, name):
    (tmp_path / name).touch()
    assert inspect_shard(tmp_path / name).num_samples == 0
    assert read_shard(tmp_path / name).num_samples == 0
    (tmp_path / name).unlink()
    write_shard(tmp_path / name, make_shard([]), 20, 5)
    assert (tmp_path / name).read_bytes() == b""


def test_a_changed_file_is_counted_anew(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_rows(path, ROWS)
    assert inspect_shard(path).num_samples == 2
    write_rows(path, ROWS * 3)
    assert inspect_shard(path).num_samples == 6
    write_rows(path, ROWS[::-1] * 3)  # as long as before
    os.utime(path, (1, 1))
    assert read_shard(path).segment_starts.tolist() == [3, 4] * 3


# What the wire format leaves to the writer


UNKNOWN = field(15, b"abc") + b"\x70\x96\x01" + b"\x6d\xff\xff\xff\xff" + b"\x61\xff\xff\xff\xff\xff\xff\xff\xff"


def encode(row: dict, name: str, swapped: bool = False, pieces: int = 1, unknown: bytes = b"") -> bytes:
    """Encode a row by hand: values before keys, lists in several packed pieces, unknown fields in messages."""
    features = b""
    for key, values in row.items():
        if isinstance(values[0], float):
            kind, parts = 2, [np.array(part, "<f4").tobytes() for part in np.array_split(values, pieces)]
        else:
            kind = 4 if name == "part-0" else 3
            parts = [packed_integers(part[None])[0] for part in np.array_split(values, pieces)]
        value = field(2, field(kind, b"".join(field(1, part) for part in parts) + unknown) + unknown)
        entry = value + field(1, key.encode()) if swapped else field(1, key.encode()) + value
        features += field(1, entry)  # the library gives up an entry that has an unknown field
    return features + unknown if name == "part-0" else field(1, features + unknown) + unknown


VARIANTS = {
    "not packed": lambda row, name: message_of(row, name, loose=True).SerializeToString(),
    "features in another order": lambda row, name: encode(dict(reversed(row.items())), name),
    "values before keys": lambda row, name: encode(row, name, swapped=True),
    "lists in pieces": lambda row, name: encode(row, name, pieces=3),
    "unknown fields": lambda row, name: encode(row, name, unknown=UNKNOWN),
    "messages in pieces": lambda row, name: b"".join(encode({key: row[key]}, name) for key in row),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_forms_of_a_message_are_read(tmp_path, name, variant):
    records = [VARIANTS[variant](row, name) for row in ROWS]
    ordinary = [message_of(row, name) for row in ROWS]
    for record, message in zip(records, ordinary, strict=True):
        assert record != message.SerializeToString(deterministic=True)
        parsed = type(message).FromString(record)
        parsed.DiscardUnknownFields()
        assert parsed == message
    write_file(tmp_path / name, [*records, ordinary[0].SerializeToString()])
    assert_same(read_shard(tmp_path / name, None, 0, 2), BY_HAND)
    assert read_shard(tmp_path / name).num_samples == 3


@pytest.mark.parametrize("name", NAMES)
def test_more_features_ride_along(tmp_path, name):
    more = {"aaa": b"\xff" * 300, "input_id": [-1, 2**31 - 1], "input_ids_": [0.5], "": [3]}
    write_rows(tmp_path / name, [{**more, **ROWS[0]}, {**ROWS[1], **more}])
    assert_same(read_shard(tmp_path / name), BY_HAND)


def test_ofrecord_with_int64_lists_is_read(tmp_path):
    messages = [message_of(row, "part-0") for row in ROWS]
    for message in messages:
        for feature in message.feature.values():
            if feature.int32_list.value:
                feature.int64_list.value.extend(list(feature.int32_list.value))
    write_file(tmp_path / "part-0", [message.SerializeToString() for message in messages])
    assert_same(read_shard(tmp_path / "part-0"), BY_HAND)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_the_places_of_weight_one(tmp_path, name):
    row = changed(ROWS[1], masked_lm_weights=[0.0, 1.0, 0.0])
    none = changed(ROWS[1], masked_lm_weights=[0.0, 0.0, 0.0])
    write_rows(tmp_path / name, [row, none])
    shard = read_shard(tmp_path / name)
    assert shard.masked_positions.tolist() == [4]
    assert shard.masked_labels.tolist() == [2097152]
    assert shard.masked_offsets.tolist() == [0, 1, 1]


def test_numbers_of_all_sizes_are_decoded_and_encoded():
    rng = np.random.default_rng(0)
    rows = [rng.integers(-(2**63), 2**63, 40) >> rng.integers(0, 64, 40) for _ in range(20)]
    rows.append(np.array([0, 127, 128, 2**14 - 1, 2**14, 2**63 - 1, -(2**63), -1] * 5))
    encoded = [Int64List(value=row.tolist()).SerializeToString() for row in rows]
    data, messages = Spans.of(encoded)
    values, counts = integers(data, read_fields(data, messages).of(1, LENGTH))
    assert counts.tolist() == [40] * len(rows)
    np.testing.assert_array_equal(values, np.concatenate(rows))
    assert [field(1, row) for row in packed_integers(np.stack(rows))] == encoded


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x0a",  # no length
        b"\x0a\x05abcd",  # shorter than its length
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a length beyond all files
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a negative length
        b"\x08\x80",  # a number that does not end
        b"\x08" + b"\xff" * 10 + b"\x01",  # a number of 11 bytes
        b"\xff" * 10 + b"\x01",  # a tag of 11 bytes
        b"\x0d\x01\x02\x03",  # three of four bytes
        b"\x09\x01\x02\x03\x04\x05\x06\x07",  # seven of eight
        b"\x0b",  # a group
        b"\x0f",  # no wire type
    ],
)
def test_bytes_that_are_not_a_message_are_refused(damaged):
    data, messages = Spans.of([b"", b"\x08\x01", damaged, b"\x08\x01"])
    with pytest.raises(Malformed) as raised:
        read_fields(data, messages)
    assert raised.value.record == 2


@pytest.mark.parametrize("damaged", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
def test_packed_numbers_that_do_not_end_are_refused(damaged):
    data, spans = Spans.of([b"\x01\x96\x01", damaged, b"\x05"])
    with pytest.raises(Malformed) as raised:
        integers(data, spans)
    assert raised.value.record == 1


# Wrong files


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": [101, 5, 102]}, "has 3 values in input_ids, expected 8"),
        ({"input_mask": [1] * 9}, "has 9 values in input_mask, expected 8"),
        ({"segment_ids": None}, "has 0 values in segment_ids, expected 8"),
        ({"next_sentence_labels": [0, 1]}, "has 2 values in next_sentence_labels, expected 1"),
        ({"masked_lm_ids": [9, 16384]}, "has 2 values in masked_lm_ids, expected 3"),
        ({"masked_lm_weights": None}, "has 0 values in masked_lm_weights, expected 3"),
        ({"masked_lm_weights": [1, 1, 0]}, "has 0 values in masked_lm_weights, expected 3"),
        ({"input_ids": [1.0] * 8}, "has 0 values in input_ids, expected 8"),
        ({"input_ids": b"12345678"}, "has 0 values in input_ids, expected 8"),
        ({"masked_lm_weights": [1.0, 0.5, 0.0]}, r"has 0\.5 in masked_lm_weights, expected bool"),
        ({"masked_lm_weights": [1.0, float("nan"), 0.0]}, r"has nan in masked_lm_weights, expected bool"),
        ({"input_mask": [1, 1, 1, 1, 1, 2, 0, 0]}, "has 2 in input_mask, expected bool"),
        ({"next_sentence_labels": [300]}, "has 300 in next_sentence_labels, expected int8"),
        ({"input_mask": [1, 0, 1, 1, 1, 1, 0, 0]}, "input_mask of row 1 is not one run of ones"),
        ({"segment_ids": [0, 1, 0, 1, 1, 1, 0, 0]}, "segment_ids of row 1 is not one run of ones"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, name, changes, message):
    path = tmp_path / name
    write_rows(path, [ROWS[0], changed(ROWS[1], **changes), ROWS[0]])
    assert inspect_shard(path).num_samples == 3
    with pytest.raises(UsageError, match=rf"{name}: (record 1 )?{message}"):
        read_shard(path)
    assert read_shard(path, None, 2, 3).num_samples == 1


def test_ids_beyond_32_bits_are_not_cut(tmp_path):
    write_rows(
        tmp_path / "a.tfrecord", [ROWS[0], changed(ROWS[1], input_ids=[101, 2**32 + 5, *ROWS[1]["input_ids"][2:]])]
    )
    with pytest.raises(UsageError, match="a.tfrecord: record 1 has 4294967301 in input_ids, expected int32"):
        read_shard(tmp_path / "a.tfrecord")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"label": [1]}, "record 0 has no input_ids, input_mask, segment_ids, next_sentence_labels, expected"),
        (changed(ROWS[0], segment_ids=None), "record 0 has no segment_ids, expected input_ids, input_mask"),
        (changed(ROWS[0], input_ids=[0.5]), "record 0 has no input_ids, expected"),
        (
            changed(ROWS[0], masked_lm_ids=None),
            "record 0 has masked_lm_positions, masked_lm_weights, expected .* or none",
        ),
    ],
)
def test_records_of_something_else_are_refused_when_counted(tmp_path, name, first, message):
    write_rows(tmp_path / name, [first, ROWS[1]])
    with pytest.raises(UsageError, match=f"{name}: {message}"):
        inspect_shard(tmp_path / name)


def test_masks_in_some_records_alone_are_refused(tmp_path, make_shard):
    path = tmp_path / "a.tfrecord"
    write_rows(path, [{key: row[key] for key in row if not key.startswith("masked")} for row in ROWS] + ROWS)
    with pytest.raises(UsageError, match="a.tfrecord: record 2 has masked_lm_positions, but record 0 does not"):
        read_shard(path)


def test_every_changed_byte_of_a_tfrecord_is_noticed(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_rows(path, ROWS)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(UsageError, match=r"a.tfrecord: record [01] "):
            read_shard(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
    path = tmp_path / name
    write_rows(path, ROWS)
    content = path.read_bytes()
    write_rows(path, ROWS[:1])
    middle = path.stat().st_size
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        if size != middle:
            with pytest.raises(UsageError, match=f"{name}: record {int(size > middle)} .*cut off"):
                inspect_shard(path)


def test_a_damaged_ofrecord_is_an_error_or_another_shard(tmp_path):
    """There are no checksums: what is certain is that nothing but UsageError is raised."""
    path = tmp_path / "part-0"
    write_rows(path, ROWS)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([rng.integers(256)]) + content[place + 1 :])
        try:
            read_shard(path)
        except UsageError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(content) // 3


@pytest.mark.parametrize("name", [*NAMES, "part-00000-of-00500"])
@pytest.mark.parametrize(
    "content",
    [
        b"One sentence a line, as many tools write to files of such names.\n" * 20,
        b"PAR1" + bytes(100) + b"PAR1",
        gzip.compress(b"x" * 100, mtime=0),  # the name of the test holds it
        bytes(64),
        b"\x10" + bytes(7) + b"\xff" * 16,
        b"\x89HDF\r\n\x1a\n" + bytes(88),
        b"x",
    ],
)
def test_a_foreign_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for action in (inspect_shard, read_shard):
        with pytest.raises(UsageError, match=rf"{name}: record 0 ") as raised:
            action(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    (tmp_path / "part-7").mkdir()
    for name in ("a.tfrecord", "part-7"):
        with pytest.raises(UsageError, match=f"{name}: unreadable shard"):
            inspect_shard(tmp_path / name)


# Names


def test_names_tell_the_formats(tmp_path, make_shard, vocab):
    shard = make_shard([5, 9])
    names = [
        "part-0",
        "part-00017",
        "part-00000-of-00500",
        "wiki.ofrecord",
        "a.tfrecord",
        "a.tf_record",
        "a.tfrecords",
        "train.tfrecord-00000-of-00010",
        "part.0.parquet",
        "part-1.parquet",
        "part-2.hdf5",
    ]
    for name in names:
        write_shard(tmp_path / name, shard, 20, 5, vocab)
    for name in ("part-x", "part-", "my-part-0", "part-0.crc", "part-0-of", "_SUCCESS", "a.tfrecord.gz", ".part-0"):
        (tmp_path / name).write_text("something else")
    assert [path.name for path in find_shards(tmp_path)] == sorted(names)
    for name in names:
        assert_same(read_shard(tmp_path / name, vocab), shard)
    starts = {name: (tmp_path / name).read_bytes()[:4] for name in names}
    assert {name for name in names if starts[name] == b"PAR1"} == {"part.0.parquet", "part-1.parquet"}
    assert {name for name in names if starts[name] == b"\x89HDF"} == {"part-2.hdf5"}


@pytest.mark.parametrize("static", [True, False])
def test_the_loader_draws_the_same_batches_from_all_formats(tmp_path, make_shard, vocab, static):
    patterns = {"hdf5": "part-{}.hdf5", "tfrecord": "part-{}-of-3", "ofrecord": "part-{}"}
    batches = {}
    for folder, pattern in patterns.items():
        (tmp_path / folder).mkdir()
        for index, count in enumerate((7, 12, 5)):
            shard = make_shard([5 + i for i in range(count)], static, index)
            write_shard(tmp_path / folder / pattern.format(index), shard, 20, 5)
        dataset = Dataset.open(LoaderConfig(str(tmp_path / folder), 20, 5), vocab)
        with PretrainingLoader(dataset, 8, seed=3, num_workers=0) as loader:
            batches[folder] = [vars(batch) for _ in range(6) for batch in next(loader)]
    for folder in ("tfrecord", "ofrecord"):
        for one, other in zip(batches["hdf5"], batches[folder], strict=True):
            assert {k: np.asarray(v).tolist() for k, v in one.items()} == {
                k: np.asarray(v).tolist() for k, v in other.items()
            }


# Splicing


@pytest.mark.parametrize("name", ["{}.tfrecord", "part-{}"])
def test_spliced_records_are_copied_byte_by_byte(tmp_path, make_shard, monkeypatch, name):
    monkeypatch.setattr(bert.data.formats.records, "STRIDE", 4)
    monkeypatch.setattr(bert.data.formats.records, "BUFFER", 100)
    one, two, empty, target = (tmp_path / name.format(i) for i in range(4))
    write_rows(one, [{**row, "origin": [i]} for i, row in enumerate(rows_of(make_shard([5, 17, 20, 6] * 3), 20, 5))])
    write_shard(two, make_shard([9, 8, 7]), 20, 5)
    empty.touch()
    parts = [RowRange(*part) for part in ((one, 3, 11), (empty, 0, 0), (two, 0, 3), (one, 0, 1), (one, 12, 12))]
    splice_shards(target, parts)
    assert read_file(target) == read_file(one)[3:11] + read_file(two) + read_file(one)[:1]
    assert_same(
        read_shard(target), concatenate([read_shard(path, None, *rows) for path, *rows in parts[:1] + parts[2:]])
    )
    splice_shards(target, [RowRange(empty, 0, 0)])
    assert target.read_bytes() == b""


def test_parts_that_do_not_fit_are_refused(tmp_path, make_shard):
    paths = [tmp_path / f"{i}.tfrecord" for i in range(5)]
    write_shard(paths[0], make_shard([9, 8, 7]), 20, 5)
    write_shard(paths[1], make_shard([9, 8, 7]), 24, 5)
    write_shard(paths[2], make_shard([9, 8, 7], static=False), 20, 5)
    paths[3].write_bytes(paths[0].read_bytes()[:-1])
    for part, message in (
        ((paths[1], 0, 3), "1.tfrecord: 24 tokens and 5 predictions in a record, but 20 tokens and 5 predictions in"),
        ((paths[2], 0, 3), "2.tfrecord: 20 tokens and no predictions in a record"),
        ((paths[3], 0, 1), "3.tfrecord: record 2 ends 1 bytes after the file"),
        ((paths[0], 2, 4), "0.tfrecord: 3 rows, expected at least 4"),
    ):
        with pytest.raises(UsageError, match=message):
            splice_shards(paths[4], [RowRange(paths[0], 0, 3), RowRange(*part)])
        assert not paths[4].exists()
