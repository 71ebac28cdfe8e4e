"""The metrics that pre-training and fine-tuning log alike: speed, share of the ceiling, memory, and who is slow.

::

    describe(run.logger, UNITS)
    run.logger.log((epoch, report.step), {..., **speed_metrics(report, ceiling)})
    run.logger.summary({..., **end_metrics(outcome, ceiling, run.world.size)})
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bert.log import Logger
from bert.train.hooks import Outcome, StepReport
from bert.train.throughput import Ceiling

GIB = 2**30  # bytes
Units = Mapping[str, tuple[str | None, str]]
UNITS: Units = {  # metric -> (unit, format on stdout)
    "learning_rate": (None, ":.3e"),
    "sequences_per_second": ("sequences/s", ":.1f"),
    "tokens_per_second": ("real tokens/s", ":.0f"),
    "flop_utilisation": (None, ":.3f"),
    "peak_device_memory": ("GiB", ":.2f"),
    "peak_host_memory": ("GiB", ":.2f"),
    "slowest_rank": (None, ":.0f"),
    "slowest_rank_time": ("ms", ":.1f"),
    "median_rank_time": ("ms", ":.1f"),
    "final_loss": (None, ":.4f"),
    "training_sequences_per_second": ("sequences/s", ":.1f"),
    "training_flop_utilisation": (None, ":.3f"),
    "e2e_train_time": ("s", ":.1f"),
}


def describe(logger: Logger, units: Units) -> None:
    """State unit and format of each metric."""
    for metric, (unit, form) in units.items():
        logger.metadata(metric, unit, form)


def speed_metrics(report: StepReport, ceiling: Ceiling) -> dict[str, Any]:
    """Return speed over all ranks, share of the ceiling, memory, and with several ranks the slowest and the median.

    A rank's time is that of its own work in a step, in milliseconds: it excludes waiting for the others.
    """
    times = report.rank_seconds
    data = {
        "sequences_per_second": report.sequences_per_second,
        "tokens_per_second": report.tokens_per_second,
        "flop_utilisation": ceiling.utilisation(report.flops_per_second / len(times)),
        **_memory(report),
    }
    if len(times) > 1:
        slowest = max(range(len(times)), key=times.__getitem__)
        data |= {
            "slowest_rank": slowest,
            "slowest_rank_time": 1e3 * times[slowest],
            "median_rank_time": 1e3 * statistics.median(times),
        }
    return data


def end_metrics(outcome: Outcome, ceiling: Ceiling, ranks: int) -> dict[str, Any]:
    """Return the metrics of the whole run."""
    return {
        "training_sequences_per_second": outcome.sequences_per_second,
        "training_flop_utilisation": ceiling.utilisation(outcome.flops_per_second / ranks),
        **_memory(outcome),
        "final_loss": outcome.final_loss,
    }


def _memory(report: StepReport | Outcome) -> dict[str, float]:
    device = {"peak_device_memory": report.device_memory / GIB} if report.device_memory else {}
    return {**device, "peak_host_memory": report.host_memory / GIB}
