"""Schedules against tables written by hand."""

import pytest

from bert.errors import UsageError
from bert.optim.schedules import SCHEDULES, learning_rate

# The published two-phase recipe: steps, warm-up, base rate. Its learning rates below come from decimal arithmetic.
PHASE_1 = (7038, 0.2843, 6e-3)
PHASE_2 = (1563, 0.128, 4e-3)


@pytest.mark.parametrize(
    ("phase", "step", "expected"),
    [
        (PHASE_1, 1, 2.9986455118e-6),
        (PHASE_1, 1000, 2.9986455118e-3),
        (PHASE_1, 2000, 5.9972910236e-3),
        (PHASE_1, 2001, 5.0758945894e-3),
        (PHASE_1, 3519, 4.2426406871e-3),
        (PHASE_1, 7037, 7.1519853985e-5),
        (PHASE_2, 1, 1.9993602047e-5),
        (PHASE_2, 200, 3.9987204095e-3),
        (PHASE_2, 201, 3.7339547970e-3),
        (PHASE_2, 782, 2.8275221728e-3),
    ],
)
def test_poly_gives_the_published_learning_rates(phase, step, expected):
    total, warmup, base = phase
    assert learning_rate("poly", step, total, warmup, base) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("phase", [PHASE_1, PHASE_2])
def test_poly_ends_at_zero_and_stays_there(phase):
    total, warmup, base = phase
    assert learning_rate("poly", total, total, warmup, base) == 0.0
    assert learning_rate("poly", total + 5, total, warmup, base) == 0.0


# Ten steps, of which two are warm-up.
@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("poly", {0: 0.0, 1: 0.5, 2: 0.8944271910, 5: 0.7071067812, 8: 0.4472135955, 10: 0.0}),
        ("linear", {0: 0.0, 1: 0.5, 2: 1.0, 4: 0.75, 6: 0.5, 8: 0.25, 10: 0.0, 12: 0.0}),
        ("cosine", {0: 0.0, 1: 0.5, 2: 0.9045084972, 5: 0.5, 8: 0.0954915028, 10: 0.0, 11: 0.0}),
        ("constant", {0: 0.0, 1: 0.5, 2: 1.0, 5: 1.0, 10: 1.0, 11: 1.0}),
    ],
)
def test_factors_by_hand(name, factors):
    for step, expected in factors.items():
        assert SCHEDULES[name](step, 10, 0.2) == pytest.approx(expected, rel=1e-7, abs=1e-12), step
        assert learning_rate(name, step, 10, 0.2, 3e-5) == pytest.approx(3e-5 * expected, rel=1e-7, abs=1e-16)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_step_zero_has_the_full_rate(name):
    assert SCHEDULES[name](0, 10, 0.0) == 1.0


def test_cosine_falls_where_the_reference_rises():
    factors = [SCHEDULES["cosine"](step, 100, 0.1) for step in range(10, 101)]
    assert factors == sorted(factors, reverse=True)


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(UsageError, match="--lr_schedule poyl: unknown, expected one of poly, linear, cosine, constant"):
        learning_rate("poyl", 1, 10, 0.1, 1.0)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 1.5, float("nan")])
def test_warmup_outside_its_range_is_refused(warmup):
    with pytest.raises(UsageError, match="--warmup_proportion"):
        learning_rate("linear", 1, 10, warmup, 1.0)


def test_a_run_without_steps_is_refused():
    with pytest.raises(UsageError, match="--max_steps"):
        learning_rate("linear", 1, 0, 0.1, 1.0)
