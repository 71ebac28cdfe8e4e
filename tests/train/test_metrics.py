"""What the reports of pre-training and fine-tuning say of speed, memory and slow ranks."""

import resource

import pytest
import torch

from bert.memory import peak_memory
from bert.train.hooks import Outcome, StepReport
from bert.train.metrics import UNITS, end_metrics, speed_metrics
from bert.train.throughput import Ceiling, Stopwatch


def report(flops: float, *seconds: float, device_memory: int = 0) -> StepReport:
    return StepReport(1, {}, 0.1, 1.0, 30.0, 3000.0, flops, list(seconds), device_memory, 3 * 2**29, None)


def test_utilisation_is_of_one_device_and_the_slowest_rank_is_named():
    ceiling = Ceiling(lambda: 100.0, lambda line: None)
    data = speed_metrics(report(120.0, 0.010, 0.014, 0.012, device_memory=2**31), ceiling)
    assert data == {
        "sequences_per_second": 30.0,
        "tokens_per_second": 3000.0,
        "flop_utilisation": pytest.approx(0.4),
        "peak_device_memory": 2.0,
        "peak_host_memory": 1.5,
        "slowest_rank": 1,
        "slowest_rank_time": pytest.approx(14.0),
        "median_rank_time": pytest.approx(12.0),
    }
    assert set(data) <= set(UNITS)


def test_no_utilisation_exceeds_one_without_a_notice():
    notices = []
    ceiling = Ceiling(lambda: 10.0, notices.append)
    assert speed_metrics(report(5.0, 0.01), ceiling)["flop_utilisation"] == 0.5
    assert notices == []
    assert end_metrics(Outcome(False, 4, 2.0, 30.0, 80.0, 0, 2**30, 1.0), ceiling, 2) == {
        "training_sequences_per_second": 30.0,
        "training_flop_utilisation": 1.0,
        "peak_host_memory": 1.0,
        "final_loss": 2.0,
    }
    assert len(notices) == 1 and "exceeds the measured ceiling" in notices[0]


def test_a_process_on_a_cpu_knows_its_peak_on_the_host_alone():
    device, host = peak_memory(torch.device("cpu"))
    assert device == 0
    assert host == 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 50e6  # torch alone takes more


def test_a_stopwatch_leaves_out_what_comes_after_the_stop():
    readings = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    watch = Stopwatch(torch.device("cpu"), lambda: next(readings))
    for _ in range(2):
        watch.add(0.5)
        watch.start()
        watch.stop()
    assert watch.mean() == 3.0  # (2 + 3 + two halves of drawing) / 2
    watch.start()
    watch.stop()
    assert watch.mean() == 1.0
    assert watch.mean() == 0.0
