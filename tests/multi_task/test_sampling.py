"""Which tasks a step trains: shares against the published formula, and draws that depend on seed and step alone."""

import numpy as np
import pytest

from bert.multi_task.sampling import Sampler, probabilities

# The published constants are 25/32 of the training sets: cola, mrpc, mnli, rte, sts, sst, qqp, qnli.
PUBLISHED = (6680, 2865, 306798, 1945, 4491, 52616, 284257, 84715)
TRUE = (8551, 3668, 392702, 2490, 5749, 67349, 363849, 108436)


@pytest.mark.parametrize(
    ("sample", "sizes", "epoch", "epochs", "expected"),
    [
        ("prop", (1, 4, 15), 2, 5, (0.05, 0.2, 0.75)),
        ("sqrt", (1, 4, 9), 2, 5, (1 / 6, 2 / 6, 3 / 6)),
        ("anneal", (1, 4, 15), 0, 5, (0.05, 0.2, 0.75)),  # as prop
        ("anneal", (1, 4, 15), 0, 1, (0.05, 0.2, 0.75)),  # a run of one epoch
        ("anneal", (1, 32, 243), 4, 5, (1 / 6, 2 / 6, 3 / 6)),  # the fifth root
        ("anneal", (1, 2**5, 2**10), 2, 5, (1 / 73, 8 / 73, 64 / 73)),  # α = 0.6
        ("rr", (1, 4, 15), 0, 5, (1 / 3, 1 / 3, 1 / 3)),
        # By hand, of a sum of 744,367.
        ("prop", PUBLISHED, 0, 1, (0.008974, 0.003849, 0.412160, 0.002613, 0.006033, 0.070686, 0.381877, 0.113808)),
    ],
)
def test_probabilities(sample, sizes, epoch, epochs, expected):
    np.testing.assert_allclose(probabilities(sample, sizes, epoch, epochs), expected, atol=1e-6)


@pytest.mark.parametrize("sample", ["prop", "sqrt", "anneal"])
def test_the_published_constants_are_the_sizes(sample):
    for epoch in (0, 12, 24):
        ours, published = (probabilities(sample, sizes, epoch, 25) for sizes in (TRUE, PUBLISHED))
        np.testing.assert_allclose(ours, published, rtol=2e-3)


def shares(sampler: Sampler, steps: range, count: int = 1) -> list[float]:
    drawn = np.concatenate([sampler.tasks(step, count) for step in steps])
    return [float(np.mean(drawn == task)) for task in range(len(sampler.sizes))]


def test_draws_follow_the_probabilities_of_their_epoch():
    sampler = Sampler("anneal", (1, 32, 243), steps_per_epoch=2000, epochs=3, seed=7)
    # 5 standard deviations of 2,000 draws are at most 0.056.
    assert shares(sampler, range(2000)) == pytest.approx([1 / 276, 32 / 276, 243 / 276], abs=0.056)
    assert shares(sampler, range(4000, 6000)) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.056)
    assert shares(sampler, range(6000, 8000)) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.056)  # skipped steps


def test_mixed_batches_draw_for_each_sequence():
    sampler = Sampler("sqrt", (1, 4, 9), steps_per_epoch=10, epochs=1, seed=0, mixed=True)
    assert shares(sampler, range(200), count=10) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.056)
    assert len(set(sampler.tasks(0, 100).tolist())) == 3


def test_rr_goes_round():
    one = Sampler("rr", (5, 5, 5), steps_per_epoch=3, epochs=1, seed=0)
    assert [one.tasks(step, 2).tolist() for step in range(4)] == [[0, 0], [1, 1], [2, 2], [0, 0]]
    mixed = Sampler("rr", (5, 5, 5), steps_per_epoch=3, epochs=1, seed=0, mixed=True)
    assert [mixed.tasks(step, 4).tolist() for step in range(2)] == [[0, 1, 2, 0], [1, 2, 0, 1]]


def test_a_draw_depends_on_seed_and_step_alone():
    first, second, other = (Sampler("prop", (1, 1, 1, 1), 10, 1, seed) for seed in (3, 3, 4))
    for step in range(20):
        first.tasks(step, 1)
    late = [first.tasks(step, 1)[0] for step in range(40)]
    assert late == [second.tasks(step, 1)[0] for step in range(40)]
    assert late != [other.tasks(step, 1)[0] for step in range(40)]
