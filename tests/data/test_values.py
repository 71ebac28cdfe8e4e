"""Values out of range in shards are named by file and row, in every format that can hold them; a label -1 is none."""

import dataclasses
import io
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from bert.data.dataset import Dataset
from bert.data.formats.table import Shard, format_of, read_shard, write_shard
from bert.data.loader import eval_batches
from bert.data.shard import Limits
from bert.errors import UsageError
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.shards.checks import Rules, Subject, examine

ROWS = 9
SUFFIXES = [".hdf5", ".tfrecord", ".ofrecord"]


def write(path: Path, shard: Shard, vocab: dict[str, int], labels: dict[int, int]) -> Path:
    """Write ``shard`` with other next-sentence labels, unchecked."""
    changed = shard.next_sentence_labels.copy()
    for row, label in labels.items():
        changed[row] = label
    limits = Limits(20, 5, len(vocab))
    format_of(path).load().write(path, dataclasses.replace(shard, next_sentence_labels=changed), limits, vocab)
    return path


def refused(path: Path, vocab: dict[str, int]) -> str:
    """Return what is said of the last rows of a shard, which reading, training and verifying agree on."""
    with pytest.raises(UsageError) as raised:
        Limits(20, 5, len(vocab)).check(read_shard(path, vocab, 2, ROWS), path, 2)
    with pytest.raises(UsageError) as training:
        list(eval_batches(Dataset(path, vocab, Limits(20, 5, len(vocab)), 1e9), 4))
    assert str(training.value) == str(raised.value)
    vocab_file = path.with_name("vocab.txt")
    vocab_file.write_text("".join(f"{piece}\n" for piece in vocab))
    (problem,) = examine(Subject(path, None, Rules(str(vocab_file), len(vocab), 20, 5))).problems
    assert str(raised.value) == f"{path}: {problem}"
    return problem


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("label", [2, -2])
def test_a_label_of_no_class_is_named(tmp_path, make_shard, vocab, suffix, label):
    path = write(tmp_path / f"a{suffix}", make_shard([9] * ROWS), vocab, {1: -1, 7: label})
    assert refused(path, vocab) == f"row 7 has {label} in next_sentence_labels, expected -1 to 1"


@pytest.mark.parametrize(
    ("table", "dtype", "value", "message"),
    [
        ("next_sentence_labels", np.int64, 256, "row 7 has 256 in next_sentence_labels, expected -1 to 1"),
        ("next_sentence_labels", np.uint8, 255, "row 7 has 255 in next_sentence_labels, expected -1 to 1"),
        ("next_sentence_labels", np.float32, 1, "next_sentence_labels is of type float32, expected integers"),
        ("segment_ids", np.int8, 2, "row 7 has 2 in segment_ids, expected 0 to 1"),
        ("segment_ids", np.int8, -1, "row 7 has -1 in segment_ids, expected 0 to 1"),
        ("input_mask", np.int16, 7, "row 7 has 7 in input_mask, expected 0 to 1"),
        ("input_ids", np.int64, 2**32 + 6, f"row 7 has {2**32 + 6} in input_ids, expected {-(2**31)} to {2**31 - 1}"),
        ("input_ids", np.float64, 6, "input_ids is of type float64, expected integers"),
        ("input_ids", np.int32, 100, "sequence 7 has token id 100, outside the vocabulary of 100 pieces"),
        ("input_ids", np.int32, -1, "sequence 7 has token id -1, outside the vocabulary of 100 pieces"),
        ("masked_lm_ids", np.int32, 100, "sequence 7 has masked label 100, outside the vocabulary of 100 pieces"),
        ("masked_lm_ids", np.uint32, 2**32 - 1, f"row 7 has {2**32 - 1} in masked_lm_ids, expected {-(2**31)} to "),
        ("masked_lm_positions", np.int32, 15, "sequence 7 has 9 tokens and a masked position 15"),
        ("masked_lm_positions", np.int32, -4, "sequence 7 has 9 tokens and a masked position -4"),
    ],
)
def test_values_of_hdf5_that_mean_nothing(tmp_path, make_shard, vocab, table, dtype, value, message):
    path = write(tmp_path / "a.hdf5", make_shard([9] * ROWS), vocab, {})
    with h5py.File(path, "r+") as file:
        values = file[table][:].astype(dtype)
        values.reshape(ROWS, -1)[7, 0] = value
        del file[table]
        file[table] = values
    assert refused(path, vocab).startswith(message)


def test_values_in_the_padding_do_not_count(tmp_path, make_shard, vocab):
    path = write(tmp_path / "a.hdf5", make_shard([9] * ROWS), vocab, {})
    before = read_shard(path)
    with h5py.File(path, "r+") as file:
        file["segment_ids"][:, 12:] = 2
        file["input_ids"][:, 12:] = -100
    after = read_shard(path)
    assert (before.tokens == after.tokens).all() and (before.segment_starts == after.segment_starts).all()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_values_of_parquet_that_mean_nothing(tmp_path, make_shard, vocab):
    path = tmp_path / "a.parquet"
    shard = make_shard([9] * ROWS)
    write_shard(path, shard, 20, 5, vocab)
    good = pq.read_table(path)

    def change(name: str, values: list, kind: pa.DataType) -> None:
        column = good[name].to_pylist()
        column[7:8] = values
        column = [int(value) for value in column] if kind == pa.int64() else column
        pq.write_table(good.set_column(good.schema.get_field_index(name), name, pa.array(column, kind)), path)

    change("is_random_next", [2], pa.int64())
    assert refused(path, vocab) == "row 7 has 2 in is_random_next, expected -1 to 1"
    change("is_random_next", [-1], pa.int64())
    labels = read_shard(path, vocab).next_sentence_labels
    assert labels[7] == -1 and (labels[:7] == shard.next_sentence_labels[:7]).all()
    change("masked_lm_positions", [npy(np.array([1.5, 7.0]))], pa.binary())
    assert refused(path, vocab) == "masked_lm_positions of row 7 is of type float64, expected integers"
    change("masked_lm_positions", [npy(np.array([1, 9], np.uint16))], pa.binary())
    assert refused(path, vocab) == "sequence 7 has 9 tokens and a masked position 9"
    unknown = dataclasses.replace(shard, next_sentence_labels=np.array([0, -1] + [1] * 7, np.int8))
    with pytest.raises(UsageError, match="a.parquet: sequence 1 has no label, LDDL's Parquet holds labelled pairs"):
        write_shard(path, unknown, 20, 5, vocab)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unknown_labels_are_no_term_of_the_loss(tmp_path, make_shard, vocab, suffix):
    path = write(tmp_path / f"a{suffix}", make_shard([9] * ROWS), vocab, {0: 0, 1: -1, 2: 1, 5: -1})
    (batch,) = eval_batches(Dataset(path, vocab, Limits(20, 5, len(vocab)), 1e9), ROWS)
    assert sorted(batch.next_sentence_labels.tolist())[:3] == [-1, -1, 0]
    assert batch.loss_weights()["nsp_loss"] == ROWS - 2
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    torch.manual_seed(0)
    theirs = transformers.BertForPreTraining(transformers.BertConfig(vocab_size=104, **sizes)).eval()
    ours = BertForPreTraining(BertConfig(vocab_size=104, **sizes), "reference").eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    found = PreTrainingObjective(ours)(batch)
    ids, types = batch.input_ids.view(ROWS, 9), batch.token_type_ids.view(ROWS, 9)
    labels = torch.full((ROWS * 9,), -100)
    labels[batch.masked_positions] = batch.masked_labels
    wanted = batch.next_sentence_labels.where(batch.next_sentence_labels >= 0, -100)
    with torch.no_grad():
        mean = theirs(ids, token_type_ids=types, labels=labels.view(ROWS, 9), next_sentence_label=wanted).loss
    weights = batch.loss_weights()
    torch.testing.assert_close(sum(loss / weights[name] for name, loss in found.items()), mean, rtol=1e-5, atol=1e-6)
    assert not examine(Subject(path, None, Rules())).problems
