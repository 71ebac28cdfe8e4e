"""The meters against numbers worked out by hand, with a clock that the test moves."""

from types import SimpleNamespace

import pytest
import torch

from bert.train.throughput import Ceiling, Meter, measure_peak, training_flops

LARGE = SimpleNamespace(hidden_size=1024, num_hidden_layers=24, intermediate_size=4096, vocab_size=30528)
TINY = SimpleNamespace(hidden_size=2, num_hidden_layers=1, intermediate_size=3, vocab_size=5)


class Clock:
    """Seconds that pass only by ``sleep``."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_flops_of_a_tiny_model_by_hand():
    # Two sequences of 3 and 1 tokens, two predictions. Products, each multiply-add two operations:
    projections = 4 * (4 * 2 * 2 * 2)  # Q, K, V, output: 4 tokens x [2, 2]
    dense = 2 * (4 * 2 * 3 * 2)  # [2, 3] and [3, 2]
    attention = 2 * (9 + 1) * 2 * 2  # QK' and PV: 3x3 and 1x1 pairs of 2 features
    mlm_head = 2 * (2 * 2 * 2) + 2 * (2 * 5 * 2)  # transform and decoder
    pooler_and_nsp = 2 * (2 * 2 * 2) + 2 * (2 * 2 * 2)
    forward = projections + dense + attention + mlm_head + pooler_and_nsp
    assert training_flops(TINY, tokens=4, sum_squared_lengths=10, predictions=2, sequences=2) == 3 * forward


@pytest.mark.parametrize(
    ("length", "predictions", "gflop"), [(128, 20, 240.6), (512, 80, 1020.5), (384, 0, 739.3)], ids=str
)
def test_flops_of_bert_large(length, predictions, gflop):
    flops = training_flops(LARGE, tokens=length, sum_squared_lengths=length**2, predictions=predictions, sequences=1)
    assert round(flops / 1e9, 1) == gflop


def test_two_short_sequences_cost_less_than_one_of_their_joint_length():
    short = training_flops(LARGE, tokens=512, sum_squared_lengths=2 * 256**2, predictions=0, sequences=0)
    long = training_flops(LARGE, tokens=512, sum_squared_lengths=512**2, predictions=0, sequences=0)
    assert long - short == 3 * 24 * 4 * 1024 * (512**2 - 2 * 256**2)


def test_window_counts_the_wait_for_data():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.start()
    for wait, compute in ((3.0, 1.0), (2.0, 2.0)):
        clock.sleep(wait)  # the fetch
        clock.sleep(compute)
        meter.update(sequences=40, tokens=400, flops=8e6)
    window = meter.window()
    assert (window.seconds, window.steps, window.sequences, window.tokens, window.flops) == (8.0, 2, 80, 800, 16e6)
    assert window.sequences_per_second == 10.0
    assert window.tokens_per_second == 100.0
    assert window.flops_per_second == 2e6
    assert window.steps_per_second == 0.25


def test_windows_follow_each_other_without_a_gap():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.start()
    clock.sleep(2.0)
    meter.update(sequences=10, tokens=0, flops=0.0)
    assert meter.window().sequences_per_second == 5.0
    clock.sleep(4.0)  # between the reading and the next step: it belongs to the second window
    meter.update(sequences=10, tokens=0, flops=0.0)
    clock.sleep(1.0)  # waiting for the device before the reading
    assert meter.window().sequences_per_second == 2.0


def test_total_leaves_out_the_warm_up_steps():
    clock = Clock()
    meter = Meter(clock=clock, warmup_steps=2)
    meter.start()
    for seconds in (60.0, 30.0, 2.0, 3.0):  # compilation in the first two
        clock.sleep(seconds)
        meter.update(sequences=10, tokens=100, flops=1e3)
    total = meter.total()
    assert (total.seconds, total.steps, total.sequences) == (5.0, 2, 20)
    assert total.tokens_per_second == 40.0
    assert meter.eta(remaining_steps=7) == 17.5


def test_total_before_the_warm_up_ends_covers_everything():
    clock = Clock()
    meter = Meter(clock=clock, warmup_steps=2)
    meter.start()
    for _ in range(2):
        clock.sleep(5.0)
        meter.update(sequences=10, tokens=100, flops=1e3)
    assert meter.total().steps == 2
    assert meter.total().sequences_per_second == 2.0
    clock.sleep(1.0)
    meter.update(sequences=10, tokens=100, flops=1e3)
    assert meter.total().sequences_per_second == 10.0


def test_windows_and_total_are_independent():
    clock = Clock()
    meter = Meter(clock=clock, warmup_steps=1)
    meter.start()
    for _ in range(3):
        clock.sleep(2.0)
        meter.update(sequences=4, tokens=8, flops=0.0)
        meter.window()
    assert meter.total().sequences == 8
    assert meter.total().sequences_per_second == 2.0


def test_no_time_and_no_step():
    clock = Clock()
    meter = Meter(clock=clock)
    meter.start()
    assert meter.window().sequences_per_second == 0.0
    assert meter.eta(remaining_steps=10) is None


@pytest.mark.parametrize("call", [lambda m: m.update(1, 1, 1.0), lambda m: m.window(), lambda m: m.total()])
def test_a_meter_that_was_not_started_says_so(call):
    with pytest.raises(RuntimeError, match="start"):
        call(Meter(clock=Clock()))


def test_peak_is_the_fastest_product():
    # Each timing reads the clock twice; its length is the next of these.
    lengths = [0.5, 9.0, 4.0, 1.0, 4.0, 4.0, 100.0, 4.0, 4.0, 4.0, 4.0, 8.0]
    readings = iter([reading for length in lengths for reading in (0.0, length)])
    peak = measure_peak("cpu", torch.float32, size=16, clock=lambda: next(readings))
    assert peak == 2 * 16**3 / 1.0  # the first two only warm up
    assert next(readings, None) is None


def test_a_ceiling_that_training_exceeds_is_measured_again():
    notices, peaks = [], iter([10.0, 40.0, 45.0])
    ceiling = Ceiling(lambda: next(peaks), notices.append)
    assert ceiling.utilisation(5.0) == 0.5 and ceiling.utilisation(10.0) == 1.0 and not notices
    assert ceiling.utilisation(20.0) == 0.5 and "ceiling of 10 FLOP/s" in notices[0] and "it is 40" in notices[0]
    assert ceiling.utilisation(50.0) == 1.0  # a rate that was reached is a ceiling, whatever a product reaches
    assert ceiling.utilisation(25.0) == 0.5 and len(notices) == 2
