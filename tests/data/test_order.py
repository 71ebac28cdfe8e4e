from collections import Counter

import numpy as np
import pytest

from bert.data.hashing import below, hash64, mix64, uniform
from bert.data.order import BLOCK, GlobalOrder, choose_lanes
from bert.errors import UsageError


def drawn(order: GlobalOrder, consumed: int, ranks, world_size: int) -> list[tuple[int, int, int]]:
    parts = [order.samples(consumed, rank, world_size) for rank in ranks]
    return [t for p in parts for t in zip(p.epoch.tolist(), p.shard.tolist(), p.row.tolist(), strict=True)]


def batch(order: GlobalOrder, step: int, world_size: int = 1) -> list[tuple[int, int, int]]:
    return drawn(order, step * order.samples_per_lane, range(world_size), world_size)


# shard sizes, global batch, lanes
GEOMETRIES = {
    "even": ([50, 50, 50, 50], 8, 4),
    "uneven": ([1, 200, 3, 0, 77, 0], 12, 6),
    "one shard": ([103], 8, 8),
    "more lanes than samples": ([3, 2], 16, 16),
    "one sample": ([1], 4, 4),
    "one lane": ([40, 30], 6, 1),
    "batch beyond the epoch": ([7, 6], 64, 16),
    "more ranks than shards": ([9, 9], 32, 16),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_epoch_reads_every_sample_once(geometry):
    sizes, size, lanes = GEOMETRIES[geometry]
    order = GlobalOrder(sizes, size, lanes, seed=1)
    everything = {(shard, row) for shard, n in enumerate(sizes) for row in range(n)}
    epochs = 3
    steps = -(-(epochs * sum(sizes) + lanes * len(sizes)) // size) + 1
    seen = Counter(sample for step in range(steps) for sample in batch(order, step))
    for epoch in range(epochs):
        assert {(s, r): n for (e, s, r), n in seen.items() if e == epoch} == dict.fromkeys(everything, 1)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_ranks_share_the_batch_of_one_process(geometry, world_size):
    order = GlobalOrder(*GEOMETRIES[geometry], seed=1)
    for step in range(20):
        assert batch(order, step, world_size) == batch(order, step)
    shares = [len(order.slots(rank, world_size)) for rank in range(world_size)]
    assert sum(shares) == order.global_batch_size
    assert max(shares) - min(shares) <= 1


def test_world_size_may_change_between_steps():
    """4 ranks, then 2, 1, 8: nothing is lost or doubled, whatever the step at which they change."""
    sizes, steps_each = [37, 5, 120, 38], 7
    order = GlobalOrder(sizes, 16, 8, seed=3)
    changing = [
        sample
        for index, world_size in enumerate((4, 2, 1, 8))
        for step in range(index * steps_each, (index + 1) * steps_each)
        for sample in batch(GlobalOrder(sizes, 16, 8, seed=3), step, world_size)
    ]
    assert changing == [sample for step in range(4 * steps_each) for sample in batch(order, step)]
    first_epoch = Counter(s[1:] for s in changing if s[0] == 0)
    assert len(first_epoch) == 200
    assert set(first_epoch.values()) == {1}


def test_batch_size_may_change_with_the_same_lanes():
    sizes, lanes = [60, 40], 4
    small, large = GlobalOrder(sizes, 8, lanes, seed=5), GlobalOrder(sizes, 20, lanes, seed=5)
    before = [s for step in range(10) for s in batch(small, step)]  # 20 samples of each lane
    after = [s for step in range(1) for s in drawn(large, 20 + 5 * step, [0], 1)]
    assert len(before + after) == 100
    assert {s[1:] for s in before + after if s[0] == 0} == {(0, r) for r in range(60)} | {(1, r) for r in range(40)}


def test_an_epoch_of_whole_batches_does_not_blend():
    order = GlobalOrder([48, 16], 8, 4, seed=2)
    for step in range(24):
        assert {sample[0] for sample in batch(order, step)} == {step // 8}


def test_lanes_are_at_most_one_sample_apart_at_the_end_of_an_epoch():
    order = GlobalOrder([103], 8, 8, seed=2)  # segments of 12 and 13
    for epoch in range(1, 30):
        before, after = epoch * 103 // 8 - 1, -(-epoch * 103 // 8) + 1
        assert {sample[0] for sample in drawn(order, before - 1, [0], 1)} == {epoch - 1}
        assert {sample[0] for sample in drawn(order, after, [0], 1)} == {epoch}


def test_any_position_is_reached_at_once():
    """Position 10**12 needs no walk: its samples are those of a lane that wraps around a known number of times."""
    order = GlobalOrder([30, 34], 16, 16, seed=2)
    samples = order.samples(10**12)
    assert set(samples.epoch.tolist()) == {10**12 // 4}  # every lane takes 4 samples an epoch
    assert len(set(zip(samples.shard.tolist(), samples.row.tolist(), strict=True))) == 16


def test_epochs_and_seeds_differ():
    sizes = [100] * 10
    orders = {seed: [batch(GlobalOrder(sizes, 100, 10, seed), step) for step in range(30)] for seed in (0, 1)}

    def rows(seed, epoch):
        return [s[1:] for step in range(10 * epoch, 10 * (epoch + 1)) for s in orders[seed][step]]

    for one, other in (((0, 0), (0, 1)), ((0, 1), (0, 2)), ((0, 0), (1, 0))):
        same = sum(a == b for a, b in zip(rows(*one), rows(*other), strict=True))
        assert same < 20  # 1 of 1000 is expected


def test_a_shuffled_block_is_uniform():
    """The mean place of the first 100 of 1000 samples, over 200 epochs, is that of a fair shuffle."""
    order = GlobalOrder([1000], 1000, 1, seed=9)
    places = np.concatenate([np.argsort(order.samples(1000 * e).row)[:100] for e in range(200)])
    deviation = 1000 / np.sqrt(12) / np.sqrt(len(places))
    assert abs(places.mean() - 499.5) < 4 * deviation
    assert abs((places < 500).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(places))


def test_a_block_bounds_how_far_a_sample_moves():
    n = 5 * BLOCK + 17
    order = GlobalOrder([n], 1, 1, seed=0)
    rows = np.concatenate([order.samples(i).row for i in range(0, n, 997)])
    moved = np.abs(rows - np.arange(0, n, 997))
    assert 1 < moved.max() < BLOCK


def test_a_rank_reads_few_shards():
    """With as many lanes as ranks or more, a rank's steps stay within its own lanes' shards."""
    order = GlobalOrder([1000] * 64, 64, 16, seed=0)
    for rank in range(8):
        shards = {s for step in range(20) for s in order.samples(step * 4, rank, 8).shard.tolist()}
        assert len(shards) <= 2 * 4  # two lanes, each in a segment of four shards


def test_lanes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UsageError, match="global batch size 20 is not divisible by the 16 lanes"):
        GlobalOrder([100], 20, 16, seed=0)


@pytest.mark.parametrize(
    ("global_batch", "samples", "world", "lanes"),
    [
        (256, 10**6, 1, 16),
        (256, 10**6, 8, 16),
        (256, 10**6, 64, 64),
        (64, 10**6, 1, 16),
        (192, 10**6, 6, 12),  # two whole lanes a rank rather than 16 shared ones
        (8, 10**6, 1, 8),
        (1, 10**6, 1, 1),
        (17, 10**6, 1, 17),
        (1021, 10**6, 1, 1),  # prime: 1021 lanes would keep 1021 shards in memory
        (64, 5, 1, 4),
        (64, 1, 8, 1),
        (65536, 10**8, 1536, 2048),
    ],
)
def test_number_of_lanes(global_batch, samples, world, lanes):
    assert choose_lanes(global_batch, samples, world) == lanes


def test_hash_is_splitmix64():
    """First numbers of the published generator from the states 0 and 1234567."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([gamma, (1234567 + gamma) % 2**64, (1234567 + 2 * gamma) % 2**64], np.uint64)
    assert mix64(states).tolist() == [16294208416658607535, 6457827717110365317, 3203168211198807973]
    assert hash64(0).tolist() == [16294208416658607535]


def test_hash_tells_keys_and_their_order_apart():
    keys = [(0,), (1,), (-1,), (0, 0), (0, 1), (1, 0), (2**62, 5), (0, 0, 0)]
    assert len({int(hash64(*key)[0]) for key in keys}) == len(keys)
    np.testing.assert_array_equal(hash64(7, np.arange(5)), np.concatenate([hash64(7, i) for i in range(5)]))


def test_draws_stay_in_their_range():
    bits = np.array([0, 2**63, 2**64 - 1], np.uint64)
    assert uniform(bits).tolist() == [0.0, 0.5, 1 - 2**-53]
    assert below(bits, 10).tolist() == [0, 5, 9]
