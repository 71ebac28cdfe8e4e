import json
import threading
from collections import Counter
from itertools import pairwise

import h5py
import pytest
import torch

import bert.data.dataset
from bert.config import parse_args
from bert.data.dataset import Dataset, LoaderConfig
from bert.data.formats.table import find_shards, read_shard, write_shard
from bert.data.loader import PretrainingLoader, Share, eval_batches
from bert.errors import UsageError


@pytest.fixture
def open_folder(vocab):
    def open_dataset(folder, longest: int = 20, predictions: int = 5, **options) -> Dataset:
        return Dataset.open(LoaderConfig(str(folder), longest, predictions, **options), vocab)

    return open_dataset


def sequences(batch) -> list[tuple]:
    """Each sequence of a batch, without reference to its place: (ids, types, masked places, labels, next-sentence)."""
    found = []
    for index, (low, high) in enumerate(pairwise(batch.cu_seqlens.tolist())):
        mine = (batch.masked_positions >= low) & (batch.masked_positions < high)
        found.append(
            (
                tuple(batch.input_ids[low:high].tolist()),
                tuple(batch.token_type_ids[low:high].tolist()),
                tuple((batch.masked_positions[mine] - low).tolist()),
                tuple(batch.masked_labels[mine].tolist()),
                int(batch.next_sentence_labels[index]),
            )
        )
    return found


def stored(folder, vocab) -> list[tuple]:
    """The same of all sequences in a folder, read row by row."""
    found = []
    for path in find_shards(folder):
        shard = read_shard(path, vocab)
        for i in range(shard.num_samples):
            low, high = shard.offsets[i : i + 2]
            first, last = shard.masked_offsets[i : i + 2] if shard.masks else (0, 0)
            second = int(shard.segment_starts[i])
            found.append(
                (
                    tuple(shard.tokens[low:high].tolist()),
                    (0,) * second + (1,) * (int(high - low) - second),
                    tuple(shard.masked_positions[first:last].tolist() if shard.masks else ()),
                    tuple(shard.masked_labels[first:last].tolist() if shard.masks else ()),
                    int(shard.next_sentence_labels[i]),
                )
            )
    return found


def steps_of(loader: PretrainingLoader, count: int) -> list[list[tuple]]:
    """The sequences of the next ``count`` steps."""
    return [[s for batch in next(loader) for s in sequences(batch)] for _ in range(count)]


def global_steps(dataset, size, world_size, count, state=None, **options) -> tuple[list[Counter], dict]:
    """The sequences of each step over all ranks, and the state after the last one."""
    loaders = [
        PretrainingLoader(dataset, size, Share(rank, world_size, **options), seed=4, num_workers=0, state=state)
        for rank in range(world_size)
    ]
    parts = [steps_of(loader, count) for loader in loaders]
    states = [loader.state_dict() for loader in loaders]
    assert all(other == states[0] for other in states)
    return [Counter(s for part in parts for s in part[i]) for i in range(count)], states[0]


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet", ".parquet_1"])
def test_an_epoch_is_what_the_shards_hold(make_folder, open_folder, vocab, suffix):
    folder = make_folder([30, 1, 49], suffix)
    steps, _ = global_steps(open_folder(folder), 8, 2, 10)
    assert sum(steps, Counter()) == Counter(stored(folder, vocab))


def test_worker_threads_change_nothing(make_folder, open_folder):
    dataset = open_folder(make_folder([30, 20, 51]))
    runs = []
    for workers in (0, 1, 3):
        with PretrainingLoader(dataset, 12, Share(micro_batches=3), seed=1, num_workers=workers) as loader:
            runs.append(steps_of(loader, 40))
    assert runs[0] == runs[1] == runs[2]


def test_resume_at_other_world_sizes_loses_and_doubles_nothing(make_folder, open_folder, vocab):
    folder = make_folder([37, 5, 120, 38], ".parquet")
    expected, _ = global_steps(open_folder(folder), 16, 4, 28)
    resumed, state = [], None
    for world_size in (4, 2, 1, 8):
        steps, state = global_steps(open_folder(folder), 16, world_size, 7, json.loads(json.dumps(state)))
        resumed += steps
    assert resumed == expected
    epoch = sum(expected[:12], Counter())  # 192 of 200 sequences
    assert set(epoch.values()) == {1}
    assert not epoch - Counter(stored(folder, vocab))


def test_state_is_that_of_the_last_step_drawn(make_folder, open_folder):
    """Steps assembled ahead by the workers do not count."""
    dataset = open_folder(make_folder([40]))
    with PretrainingLoader(dataset, 8, seed=1, num_workers=2) as loader:
        assert loader.state_dict()["consumed"] == 0
        steps_of(loader, 3)
        state = loader.state_dict()
        rest = steps_of(loader, 5)
        assert loader.epoch == 64 / 40
    assert state["consumed"] == 3 * 8 // state["lanes"]
    assert {type(value) for value in state.values()} <= {int, str}
    with PretrainingLoader(dataset, 8, seed=99, num_workers=2, state=state) as loader:
        assert steps_of(loader, 5) == rest


def test_resume_with_another_batch_size(make_folder, open_folder, vocab):
    folder = make_folder([64, 32])
    before, state = global_steps(open_folder(folder), 16, 1, 3)  # 48 of 96
    after, _ = global_steps(open_folder(folder), 48, 3, 1, state)
    assert sum(before + after, Counter()) == Counter(stored(folder, vocab))


def test_resume_of_other_data_is_refused(make_folder, open_folder):
    _, state = global_steps(open_folder(make_folder([40], name="one")), 8, 1, 1)
    other = open_folder(make_folder([41], name="two"))
    with pytest.raises(UsageError, match=r"--input_dir: 41 sequences, .* the checkpoint was trained on 40"):
        PretrainingLoader(other, 8, seed=1, state=state)


def test_resume_with_a_batch_that_lanes_do_not_divide_is_refused(make_folder, open_folder):
    dataset = open_folder(make_folder([40]))
    _, state = global_steps(dataset, 8, 1, 1)
    with pytest.raises(UsageError, match="global batch size 12 is not divisible by the 8 lanes"):
        PretrainingLoader(dataset, 12, seed=1, state=state)


def test_a_data_set_may_move(make_folder, open_folder, tmp_path):
    folder = make_folder([40, 2])
    before = open_folder(folder).fingerprint
    folder.rename(tmp_path / "elsewhere")
    assert open_folder(tmp_path / "elsewhere").fingerprint == before
    (tmp_path / "elsewhere" / "shard-1.hdf5").rename(tmp_path / "elsewhere" / "shard-2.hdf5")
    assert open_folder(tmp_path / "elsewhere").fingerprint != before


def test_micro_batches_are_equal_work_of_equal_lengths(make_folder, open_folder):
    dataset = open_folder(make_folder([100, 100]))
    loader = PretrainingLoader(dataset, 60, Share(1, 2, micro_batches=4), seed=1, num_workers=0)
    for _ in range(10):
        batches = next(loader)
        assert sum(b.num_sequences for b in batches) == 30
        lengths = [b.cu_seqlens.diff().tolist() for b in batches]
        flat = [n for part in lengths for n in part]
        assert flat == sorted(flat)
        tokens = [b.num_tokens for b in batches]
        assert max(tokens) - min(tokens) <= 20  # the longest sequence
        assert [b.max_seqlen for b in batches] == [max(part) for part in lengths]


def test_more_micro_batches_than_sequences_are_refused(make_folder, open_folder):
    dataset = open_folder(make_folder([40]))
    with pytest.raises(UsageError, match=r"--gradient_accumulation_steps 3: 8 sequences .* 2 to each of 4 devices"):
        PretrainingLoader(dataset, 8, Share(world_size=4, micro_batches=3), seed=1)


def test_batch_tensors_have_the_types_of_the_model(make_folder, open_folder):
    (batch,) = next(PretrainingLoader(open_folder(make_folder([40])), 8, seed=1, num_workers=0))
    kinds = {name: value.dtype for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert kinds.pop("cu_seqlens") == torch.int32
    assert set(kinds.values()) == {torch.int64}
    assert batch.cu_seqlens[0] == 0
    assert batch.cu_seqlens[-1] == batch.num_tokens


@pytest.mark.parametrize("sizes", [[1], [3], [2, 900], [1, 1, 1]])
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_few_or_uneven_shards_feed_any_world(make_folder, open_folder, vocab, sizes, world_size):
    """All ranks draw equally many full shares, and every sequence is seen."""
    folder = make_folder(sizes)
    steps, _ = global_steps(open_folder(folder), 24, world_size, -(-sum(sizes) // 24) + 1)
    assert {sum(step.values()) for step in steps} == {24}
    assert set(sum(steps, Counter())) == set(stored(folder, vocab))


def test_an_empty_shard_is_skipped_and_named(make_folder, open_folder):
    dataset = open_folder(make_folder([10, 0, 5]))
    assert dataset.num_samples == 15
    assert dataset.notices == ["1 of 3 shards hold no sequence and are skipped: shard-1.hdf5"]
    assert open_folder(make_folder([10], name="full")).notices == []


def test_nothing_but_empty_shards_is_an_error(make_folder, open_folder):
    with pytest.raises(UsageError, match="2 shards without a sequence"):
        open_folder(make_folder([0, 0]))


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_a_corrupt_shard_is_found_before_the_first_step(make_folder, open_folder, suffix):
    folder = make_folder([10, 10, 10], suffix)
    path = folder / f"shard-1{suffix}"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match=f"shard-1{suffix}: unreadable shard"):
        open_folder(folder)


@pytest.mark.parametrize("suffix", [".hdf5", ".parquet"])
def test_a_shard_of_another_length_is_found_before_the_first_step(make_folder, open_folder, make_shard, vocab, suffix):
    folder = make_folder([10, 10], suffix)
    write_shard(folder / f"other{suffix}", make_shard([6, 32]), 32, 5, vocab)
    with pytest.raises(UsageError, match=f"other{suffix}: sequences of up to 32 tokens, --max_seq_length is 20"):
        open_folder(folder)


def test_wrong_predictions_per_sequence_are_found_before_the_first_step(make_folder, open_folder):
    with pytest.raises(UsageError, match=r"shard-0.hdf5: up to 5 masked .*--max_predictions_per_seq is 4"):
        open_folder(make_folder([10]), predictions=4)


def test_too_many_predictions_in_parquet_are_found_when_decoded(make_folder, open_folder):
    dataset = open_folder(make_folder([10], ".parquet"), predictions=1)
    with pytest.raises(UsageError, match=r"shard-0.parquet: up to 2 masked .*--max_predictions_per_seq is 1"):
        next(PretrainingLoader(dataset, 10, seed=1, num_workers=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_token_id_beyond_the_vocabulary_stops_the_first_step(make_folder, open_folder, workers):
    folder = make_folder([10, 10])
    with h5py.File(folder / "shard-1.hdf5", "r+") as file:
        file["input_ids"][3, 1] = 30522
    with (
        PretrainingLoader(open_folder(folder), 20, seed=1, num_workers=workers) as loader,
        pytest.raises(
            UsageError, match=r"shard-1.hdf5: sequence \d+ has token id 30522, outside the vocabulary of 100 pieces"
        ),
    ):
        next(loader)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_damage_behind_an_intact_footer_reaches_the_consumer(make_folder, open_folder, workers):
    """The error comes out of next(), the threads end, and nobody waits for ever."""
    folder = make_folder([400, 400, 400], ".parquet")
    path = folder / "shard-2.parquet"
    content = bytearray(path.read_bytes())
    content[200:1500] = bytes(1300)
    path.write_bytes(content)
    loader = PretrainingLoader(open_folder(folder), 8, seed=1, num_workers=workers)
    with pytest.raises(UsageError, match="shard-2.parquet"):
        steps_of(loader, 150)
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_any_error_of_a_worker_reaches_the_consumer(make_folder, open_folder, monkeypatch):
    loader = PretrainingLoader(open_folder(make_folder([40])), 8, seed=1, num_workers=2)

    def fail(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(bert.data.dataset, "read_shard", fail)
    with pytest.raises(MemoryError, match="no room"):
        next(loader)


def test_closing_joins_the_threads(make_folder, open_folder):
    loader = PretrainingLoader(open_folder(make_folder([40])), 8, seed=1, num_workers=3)
    next(loader)
    assert [t for t in threading.enumerate() if t.name.startswith("loader")]
    loader.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]
    with pytest.raises(RuntimeError):
        steps_of(loader, 20)


def count_reads(monkeypatch) -> Counter:
    reads: Counter = Counter()
    read = bert.data.dataset.read_shard

    def counted(path, vocab, start, stop):
        reads[path.name, start] += 1
        return read(path, vocab, start, stop)

    monkeypatch.setattr(bert.data.dataset, "read_shard", counted)
    return reads


def test_threads_decode_a_shard_once(make_folder, open_folder, monkeypatch):
    dataset = open_folder(make_folder([50] * 6))
    reads = count_reads(monkeypatch)
    with PretrainingLoader(dataset, 30, seed=1, num_workers=4) as loader:
        steps_of(loader, 40)
    assert len(reads) == 6
    assert set(reads.values()) == {1}


def test_the_cache_is_bounded_and_changes_nothing(make_folder, open_folder, monkeypatch):
    folder = make_folder([50] * 6)
    expected, _ = global_steps(open_folder(folder), 8, 1, 50)
    dataset = open_folder(folder, shard_cache_gb=10e-6)  # 10 kB, a shard has about 4
    reads = count_reads(monkeypatch)
    assert global_steps(dataset, 8, 1, 50)[0] == expected
    assert max(reads.values()) > 1
    assert sum(f.result().nbytes for f in dataset._decoded.values()) <= 10e3


def test_large_shards_are_decoded_in_chunks(make_folder, open_folder, vocab, monkeypatch):
    monkeypatch.setattr(bert.data.dataset, "CHUNK", 7)
    folder = make_folder([30, 6, 14], ".parquet")
    dataset = open_folder(folder)
    assert dataset.chunk_sizes.tolist() == [6, 6, 6, 6, 6, 6, 7, 7]
    reads = count_reads(monkeypatch)
    steps, _ = global_steps(dataset, 10, 1, 5)
    assert sum(steps, Counter()) == Counter(stored(folder, vocab))
    assert ("shard-0.parquet", 24) in reads


def test_dynamic_masks_depend_on_sample_and_epoch_only(make_folder, open_folder, vocab):
    folder = make_folder([40, 24], ".parquet", static=False)
    one, _ = global_steps(open_folder(folder), 16, 1, 8, micro_batches=1)
    four, _ = global_steps(open_folder(folder), 16, 4, 8, micro_batches=3)
    assert one == four
    epochs = [sum(one[:4], Counter()), sum(one[4:], Counter())]
    assert unmasked(epochs[0]) == unmasked(epochs[1]) == Counter(s[:2] for s in stored(folder, vocab))
    assert len(epochs[0] & epochs[1]) < 32  # of 64: masked anew
    for _ids, _types, places, labels, _next in epochs[0]:
        assert 1 <= len(places) <= 5
        assert min(labels) >= 5


def unmasked(found: Counter) -> Counter:
    """Ids and types with the labels put back."""
    originals: Counter = Counter()
    for (ids, types, places, labels, _), count in found.items():
        put_back = dict(zip(places, labels, strict=True))
        originals[tuple(put_back.get(i, token) for i, token in enumerate(ids)), types] += count
    return originals


def test_unmasked_hdf5_is_masked_while_loading(make_folder, open_folder):
    dataset = open_folder(make_folder([16], static=False))
    (batch,) = next(PretrainingLoader(dataset, 16, seed=1, num_workers=0))
    assert batch.masked_labels.numel() >= 16


def test_masking_while_loading_needs_a_vocabulary(make_folder):
    folder = make_folder([16], static=False)
    dataset = Dataset.open(LoaderConfig(str(folder), 20, 5), vocab=None)
    with pytest.raises(UsageError, match=r"shard-0.hdf5: .* need --vocab_file"):
        next(PretrainingLoader(dataset, 16, seed=1, num_workers=0))


def test_masked_and_unmasked_shards_do_not_mix(make_folder, open_folder, make_shard, vocab):
    folder = make_folder([16])
    write_shard(folder / "unmasked.parquet", make_shard([10] * 16, static=False), 20, 5, vocab)
    with pytest.raises(UsageError, match=r"shard-0.hdf5 holds masked sequences and .*unmasked.parquet unmasked"):
        next(PretrainingLoader(open_folder(folder), 32, seed=1, num_workers=0))


def test_a_batch_without_a_masked_token(make_folder, open_folder):
    folder = make_folder([8])
    with h5py.File(folder / "shard-0.hdf5", "r+") as file:
        file["masked_lm_positions"][:] = 0
        file["masked_lm_ids"][:] = 0
    (batch,) = next(PretrainingLoader(open_folder(folder), 8, seed=1, num_workers=0))
    assert batch.masked_positions.shape == batch.masked_labels.shape == (0,)
    assert batch.loss_weights() == {"mlm_loss": 0, "nsp_loss": 8}


@pytest.mark.parametrize("filler", [0, -1, -100])
def test_fillers_behind_the_predictions_are_ignored(make_folder, open_folder, vocab, filler):
    folder = make_folder([8])
    expected = stored(folder, vocab)
    with h5py.File(folder / "shard-0.hdf5", "r+") as file:
        ids = file["masked_lm_ids"][:]
        ids[file["masked_lm_positions"][:] == 0] = filler
        file["masked_lm_ids"][:] = ids
    (batch,) = next(PretrainingLoader(open_folder(folder), 8, seed=1, num_workers=0))
    assert Counter(sequences(batch)) == Counter(expected)


@pytest.mark.parametrize("world_size", [1, 3, 8])
@pytest.mark.parametrize("sizes", [[30, 0, 21], [1], [21]])
def test_evaluation_sees_each_sequence_once_in_order(make_folder, open_folder, vocab, world_size, sizes):
    folder = make_folder(sizes)
    dataset = open_folder(folder)
    parts = [list(eval_batches(dataset, 4, rank, world_size)) for rank in range(world_size)]
    assert all(1 <= batch.num_sequences <= 4 for part in parts for batch in part)
    seen = [Counter(s for batch in part for s in sequences(batch)) for part in parts]
    assert sum(seen, Counter()) == Counter(stored(folder, vocab))
    if sizes != [1]:
        assert len({len(part) for part in parts}) == 1  # ranks take part in the same number of collectives


def test_evaluation_of_unmasked_shards_repeats_itself(make_folder, open_folder):
    dataset = open_folder(make_folder([30], static=False))
    runs = [[s for batch in eval_batches(dataset, 4) for s in sequences(batch)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_flags_are_those_of_the_field():
    config = parse_args(LoaderConfig, ["--input_dir", "x", "--num_workers=0"])
    assert (config.max_seq_length, config.max_predictions_per_seq, config.num_workers) == (512, 80, 0)
    with pytest.raises(SystemExit):
        parse_args(LoaderConfig, [])
    with pytest.raises(SystemExit):
        parse_args(LoaderConfig, ["--input_dir", "x", "--num_workers", "-1"])
