"""The final numbers of the phases of pre-training, and of fine-tuning runs, as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

from bert.report.events import Phase

Rows = list[tuple[str, Callable[[Phase], str]]]  # name, and its cell in the column of a run

FINAL_REPORTS = 10  # last reports of a phase that a final training loss averages


def summarize(phases: Sequence[Phase]) -> str:
    """Return a table with a column for each phase of pre-training."""
    return _table([f"phase {phase.number}" for phase in phases], phases, PRETRAINING)


def compare(runs: Sequence[Phase]) -> str:
    """Return a table with a column for each fine-tuning run, named after its initial weights."""
    return _table([_origin(run) for run in runs], runs, FINE_TUNING)


def _table(names: Sequence[str], runs: Sequence[Phase], rows: Rows) -> str:
    """Lay out a column for each run, without rows that have no value in any of them."""
    table = [["", *names], ["---", *["---:"] * len(runs)]]
    for name, value_of in rows:
        cells = [value_of(run) for run in runs]
        if any(cells):
            table.append([name, *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


def _origin(run: Phase) -> str:
    checkpoint = _flag("init_checkpoint")(run)
    return f"from {Path(checkpoint).name}" if checkpoint else "from random weights"


def _flag(name: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        flags = phase.facts.get("Config")
        value = flags.get(name) if isinstance(flags, dict) else phase.facts.get(name)
        return "" if value is None else str(value)

    return value_of


def _logged(take: Callable[[list[float]], float], form: str, *metrics: str) -> Callable[[Phase], str]:
    """Return a function that reduces the logged values of the first of ``metrics`` to one with ``take``."""

    def value_of(phase: Phase) -> str:
        values = [value for _, value in phase.points(*metrics)]
        return format(take(values), form) if values else ""

    return value_of


def _final_loss(*metrics: str) -> Callable[[Phase], str]:
    return _logged(lambda values: statistics.fmean(values[-FINAL_REPORTS:]), ".3f", *metrics)


def _last(metric: str, form: str) -> Callable[[Phase], str]:
    return _logged(itemgetter(-1), form, metric)


def _fact(name: str, form: str) -> Callable[[Phase], str]:
    def value_of(phase: Phase) -> str:
        value = {**phase.facts, **phase.summary}.get(name)
        return format(value, form) if isinstance(value, int | float) else ""

    return value_of


MACHINE: Rows = [
    ("share of the measured ceiling", _fact("training_flop_utilisation", ".1%")),
    ("peak memory of a device, GiB", _fact("peak_device_memory", ".2f")),
    ("peak memory of a process on the host, GiB", _fact("peak_host_memory", ".2f")),
    ("rank that was slowest most often", _logged(statistics.mode, ".0f", "slowest_rank")),
    ("slowest rank's own work in a step, ms", _logged(statistics.median, ",.1f", "slowest_rank_time")),
    ("median rank's own work in a step, ms", _logged(statistics.median, ",.1f", "median_rank_time")),
    ("training time, s", _fact("e2e_train_time", ",.0f")),
]
PRETRAINING: Rows = [
    ("optimizer steps", lambda phase: str(phase.last_step)),
    ("sequence length", _flag("max_seq_length")),
    ("learning rate", _flag("learning_rate")),
    ("training loss", _final_loss("average_loss", "step_loss")),
    ("masked-token loss", _final_loss("mlm_loss")),
    ("next-sentence loss", _final_loss("nsp_loss")),
    ("held-out masked-token loss", _last("eval_mlm_loss", ".3f")),
    ("held-out masked-token accuracy", _last("eval_mlm_accuracy", ".2%")),
    ("always the most frequent token", _fact("unigram_mlm_accuracy", ".2%")),
    ("held-out next-sentence loss", _last("eval_nsp_loss", ".3f")),
    ("held-out next-sentence accuracy", _last("eval_nsp_accuracy", ".2%")),
    ("sequences/s, median", _logged(statistics.median, ",.0f", "sequences_per_second")),
    ("tokens/s, median", _logged(statistics.median, ",.0f", "tokens_per_second")),
    ("skipped steps", _last("skipped_steps", ".0f")),
    ("last loss scale", _last("loss_scale", "g")),
    *MACHINE,
]
FINE_TUNING: Rows = [
    ("optimizer steps", lambda run: str(run.last_step)),
    ("learning rate", _flag("learning_rate")),
    ("training loss", _final_loss("step_loss")),
    ("exact match", _fact("exact_match", ".4g")),
    ("F1", _fact("F1", ".4g")),
    *MACHINE,
]
