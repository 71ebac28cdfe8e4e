"""The all-reduce model against sums by hand, the prediction against its formula and published figures."""

import math

import pytest

from benchmarks.allreduce import fit
from benchmarks.scaling import (
    SYSTEMS,
    ScalingConfig,
    System,
    allreduce_seconds,
    compare_choices,
    compute_rate,
    control_seconds,
    format_rows,
    main,
    predictions,
    ring,
    step_seconds,
    tree,
)
from bert.errors import UsageError

CONFIG = ScalingConfig()


def test_ring_and_tree_by_hand():
    assert ring(1, 1e6, 1.0, 1.0) == 0
    assert ring(4, 400.0, 0.5, 100.0) == 6 * (0.5 + 1.0)
    assert tree(1, 1e6, 1.0, 1.0) == 0
    assert tree(5, 400.0, 0.5, 100.0) == 2 * 3 * 0.5 + 8.0  # three levels
    assert ring(1024, 1e3, 1e-5, 1e10) > tree(1024, 1e3, 1e-5, 1e10)  # latency counts
    assert ring(4, 1e9, 1e-5, 1e10) < tree(4, 1e9, 1e-5, 1e10)  # bytes count


def test_an_all_reduce_over_machines_by_hand():
    """336 M gradients of 2 bytes on 2 machines of 2 GPUs, 672 GB/s inside and 67.2 GB/s between, no latency."""
    system = System("", 2, 672e9, 67.2e9, 1e12, "")
    config = ScalingConfig(efficiency=1.0, nvlink_latency=0.0, network_latency=0.0)
    assert allreduce_seconds(system, 1, config) == pytest.approx(1e-3)
    assert allreduce_seconds(system, 2, config) == pytest.approx(1e-3 + 10e-3)


def test_a_given_rate_and_the_formula():
    config = ScalingConfig(sequences_per_second=900.0, gradient_bytes=4)
    row = predictions(SYSTEMS["dgxa100"], 1, config)[-1]
    assert (row["nodes"], row["gpus"]) == (128, 1024)
    optimizer = 336e6 * 48 / (2.0e12 * 0.75)
    inside = 2 * 7 * (3e-6 + 336e6 * 4 / 8 / 225e9)
    between = 2 * 7 * 10e-6 + 2 * 336e6 * 4 / 150e9  # a tree of seven levels: the ring's 254 messages take longer
    assert row["step"] == pytest.approx(64 / 900 + optimizer + inside + between)
    assert row["predicted"] == pytest.approx(65_536 / row["step"])


def test_the_rate_derived_from_a_machine_predicts_that_machine():
    system = SYSTEMS["dgx2h"]
    row = predictions(system, 1, CONFIG)[0]
    assert row["predicted"] == pytest.approx(system.published[1][1])
    assert row["efficiency"] == 1
    assert compute_rate(system, 1, CONFIG) > system.published[1][1] / 16


@pytest.mark.parametrize(("name", "within"), [("dgx2h", 0.06), ("dgx1", 0.15)])
@pytest.mark.parametrize("phase", [1, 2])
def test_the_prediction_is_near_published_figures(name, phase, within):
    known = [row for row in predictions(SYSTEMS[name], phase, CONFIG) if not math.isnan(row["published"])]
    assert len(known) >= 3
    for row in known:
        assert row["predicted"] == pytest.approx(row["published"], rel=within)


def test_the_fit_finds_latency_and_bandwidth():
    sizes = [1 << exponent for exponent in range(12, 26, 2)]
    latency, bandwidth = fit(3, sizes, [ring(3, size, 4e-5, 2e9) for size in sizes])
    assert (latency, bandwidth) == (pytest.approx(4e-5), pytest.approx(2e9))


def test_the_table_leaves_unpublished_figures_blank():
    lines = format_rows(predictions(SYSTEMS["dgx2h"], 1, CONFIG)).splitlines()
    assert len(lines) == 2 + 5
    assert all(line.count("|") == 9 for line in lines)
    assert "nan" not in "".join(lines)


def test_the_command(tmp_path, capsys):
    main(ScalingConfig(systems=["h200"], plot=str(tmp_path / "scaling.png")))
    assert "8 x H200, phase 2, global batch 32,768: 1064.0 sequences/s per GPU (MLPerf" in capsys.readouterr().out
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    with pytest.raises(UsageError, match="--systems dgx9: expected any of dgx1, dgx2h"):
        main(ScalingConfig(systems=["dgx9"]))


@pytest.mark.slow
def test_the_model_is_timed_on_this_machine(capsys):
    main(ScalingConfig(measure=[2]))
    out = capsys.readouterr().out
    assert out.count("| 2 |") == 7 and "GB/s" in out and "median deviation" in out


def test_the_choices_by_hand():
    """Two machines of two GPUs at one byte of network a nanosecond and no latency: gather and all-reduce by hand."""
    assert control_seconds(1024, 0.04, ScalingConfig(control="gathered")) == pytest.approx(3 * 1023 * 20e-6)
    assert control_seconds(1024, 0.04, ScalingConfig(control="tree")) == 0.0  # 240 us, behind the step
    assert control_seconds(1024, 0.0, ScalingConfig(control="tree")) == pytest.approx(12 * 20e-6)
    system = System("", 2, 672e9, 67.2e9, 1e12, "")
    config = ScalingConfig(efficiency=1.0, nvlink_latency=0.0, network_latency=0.0, shard_optimizer=True)
    whole = 336e6 * 48 / 1e12
    expected = 65_536 / 4 / 1e6 + whole / 4 + (2e-3 + 20e-3) / 2 + (1e-3 + 10e-3)  # fp32 values, gradients of two bytes
    assert step_seconds(system, 1, 2, 1e6, config) == pytest.approx(expected)
    assert compare_choices(SYSTEMS["h200"], 2, CONFIG).count("\n") == 6
