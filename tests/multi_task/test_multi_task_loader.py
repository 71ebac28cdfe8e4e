"""The order in which several tasks are read: streams of epochs, world size, micro-batches, resume."""

import numpy as np
import pytest

from bert.multi_task.loader import MultiTaskLoader
from bert.multi_task.sampling import Sampler
from bert.sequences import from_rows
from bert.train.batch_geometry import BatchGeometry

SIZES = (7, 20, 40)
MIXED = pytest.mark.parametrize("mixed", [False, True])


def make_sequences():
    """Sequences of different lengths; the label is the sequence's number."""
    count = sum(SIZES)
    lengths = np.random.default_rng(0).integers(3, 12, count)
    labels = {"label": np.arange(count, dtype=np.float32), "task": np.repeat(np.arange(3), SIZES)}
    return from_rows([[index] * length for index, length in enumerate(lengths)], [2] * count, labels)


def load(mixed: bool, sample: str = "sqrt", rank: int = 0, world: int = 1, micro: int = 1, state=None):
    sampler = Sampler(sample, SIZES, steps_per_epoch=5, epochs=4, seed=1, mixed=mixed)
    return MultiTaskLoader(
        make_sequences(), BatchGeometry(12 // world // micro, micro, world), sampler, rank, state=state
    )


def read(batches, name: str = "label") -> list[int]:
    return [int(value) for batch in batches for value in batch.labels[name]]


def test_a_step_holds_one_task_and_a_pass_holds_every_example_once():
    loader, seen = load(mixed=False), {0: [], 1: [], 2: []}
    for _ in range(60):
        batches = next(loader)
        (task,) = set(read(batches, "task"))
        seen[task] += read(batches)
    for task, size in enumerate(SIZES):
        assert len(seen[task]) == loader.drawn[task] > 2 * size
    first, second = (sorted(seen[1][start : start + 12]) for start in (0, 20))
    assert len({*seen[1][:12], *seen[1][12:24]}) == 20  # 20 = 12 + 8: nothing comes twice in a pass
    assert first != second  # another order in the second pass


@MIXED
def test_the_tasks_of_a_micro_batch_are_neighbours(mixed):
    loader = load(mixed, micro=2)
    for _ in range(10):
        parts = next(loader)
        assert [sorted(read([part], "task")) for part in parts] == [read([part], "task") for part in parts]
        assert abs(parts[0].num_tokens - parts[1].num_tokens) <= 12
        assert all(label < 7 for label, task in zip(read(parts), read(parts, "task"), strict=True) if task == 0)


@MIXED
@pytest.mark.parametrize(("world", "micro"), [(1, 3), (2, 1), (3, 2), (6, 2)])
def test_steps_do_not_depend_on_world_size_or_micro_batches(mixed, world, micro):
    whole, ranks = load(mixed), [load(mixed, rank=rank, world=world, micro=micro) for rank in range(world)]
    for _ in range(8):
        parts = [next(loader) for loader in ranks]
        assert sorted(number for part in parts for number in read(part)) == sorted(read(next(whole)))
    assert all(rank.state_dict() == whole.state_dict() for rank in ranks)


@MIXED
@pytest.mark.parametrize("sample", ["anneal", "rr"])
def test_a_loader_resumed_at_any_step_reads_the_same(mixed, sample):
    loader = load(mixed, sample)
    states, steps = [], []
    for _ in range(15):
        states.append(loader.state_dict())
        steps.append(read(next(loader)))
    for start, state in enumerate(states):
        resumed = load(mixed, sample, state=state)
        assert [read(next(resumed)) for _ in range(start, 15)] == steps[start:]
    assert loader.epoch == 3.0
    assert sum(loader.drawn) == 15 * 12
