import numpy as np
import pytest

from bert.finetune.loader import TaskLoader, steps_of
from bert.sequences import from_rows
from bert.train.batch_geometry import BatchGeometry


def make_sequences(count: int, seed: int = 0):
    """Sequences of different lengths; every token and the label are the sequence's number."""
    lengths = np.random.default_rng(seed).integers(3, 12, count)
    rows = [[index] * length for index, length in enumerate(lengths)]
    return from_rows(rows, [2] * count, {"label": np.arange(count)})


def load(sequences, global_batch: int, seed: int, rank: int = 0, world: int = 1, micro: int = 1, state=None):
    """A rank's loader, its share of a global batch cut into ``micro`` micro-batches."""
    geometry = BatchGeometry(global_batch // world // micro, micro, world)
    return TaskLoader(sequences, geometry, seed, rank, state=state)


def numbers(batches) -> list[int]:
    return [number for batch in batches for number in batch.labels["label"].tolist()]


def test_a_batch_holds_whole_sequences_in_a_stream():
    sequences = make_sequences(20)
    (batch,) = next(load(sequences, 6, seed=0))
    assert batch.num_sequences == 6
    for row, label in enumerate(batch.labels["label"].tolist()):
        start, stop = batch.cu_seqlens[row : row + 2].tolist()
        assert set(batch.input_ids[start:stop].tolist()) == {label}
        assert batch.token_type_ids[start:stop].tolist() == [0, 0, *[1] * (stop - start - 2)]
    assert batch.max_seqlen == int(batch.cu_seqlens.diff().max())


def test_epochs_lie_end_to_end_without_a_remainder():
    loader = load(make_sequences(10), 4, seed=3)
    drawn = [number for _ in range(5) for number in numbers(next(loader))]
    assert not set(drawn[:4]) & set(drawn[4:8])  # nothing comes twice in an epoch
    assert all(drawn.count(number) == 2 for number in range(10))
    assert loader.epoch == 2.0


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("micro", [1, 2])
def test_global_batches_do_not_depend_on_world_size_or_micro_batches(world, micro):
    sequences = make_sequences(50)
    whole = load(sequences, 12, seed=1)
    ranks = [load(sequences, 12, seed=1, rank=rank, world=world, micro=micro) for rank in range(world)]
    for _ in range(6):
        parts = [next(loader) for loader in ranks]
        assert all(len(part) == micro for part in parts)
        assert sorted(number for part in parts for number in numbers(part)) == sorted(numbers(next(whole)))


def test_a_resumed_loader_goes_on_where_it_was():
    sequences = make_sequences(30)
    loader = load(sequences, 8, seed=1)
    for _ in range(3):
        next(loader)
    resumed = load(sequences, 8, seed=1, state=loader.state_dict())
    for _ in range(5):
        assert numbers(next(resumed)) == numbers(next(loader))


def test_another_seed_is_another_order():
    sequences = make_sequences(30)
    first, second = (numbers(next(load(sequences, 30, seed=seed))) for seed in (1, 2))
    assert sorted(first) == sorted(second)
    a, b = (numbers(next(load(sequences, 8, seed=seed))) for seed in (1, 2))
    assert sorted(a) != sorted(b)


@pytest.mark.parametrize(
    ("sequences", "batch", "epochs", "most", "steps"),
    [(3668, 32, 3.0, -1, 343), (88641, 32, 3.0, -1, 8310), (10, 32, 1.0, -1, 1), (100, 10, 3.0, 7, 7)],
)
def test_steps(sequences, batch, epochs, most, steps):
    """The first two are the published runs of MRPC and SQuAD."""
    assert steps_of(sequences, batch, epochs, most) == steps
