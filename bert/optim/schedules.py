"""Learning-rate schedules: pure functions of the optimizer step.

Every schedule maps ``(step, total_steps, warmup)`` to a factor in [0, 1] of the base learning rate: it rises linearly
over the first ``warmup`` share of the steps and then decays. ``step`` counts from 1 in NVIDIA's recipes (the first
update already moves the parameters) and from 0 in Google's and Hugging Face's (with a warm-up, the first update has
factor 0); the functions accept both, the caller decides. Nothing here has state, so resuming needs only the step::

    learning_rate("poly", 2000, 7038, 0.2843, 6e-3)     # 5.997291e-3, the top of NVIDIA's phase 1
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bert.config import flag
from bert.errors import UsageError

Schedule = Callable[[float, float, float], float]


def poly(step: float, total_steps: float, warmup: float) -> float:
    """Return x/w during warm-up and √(1-x) after it, x = step / total_steps.

    NVIDIA's PolyWarmUpScheduler with degree 0.5, steps counted from 1. The decay ignores the warm-up, so the factor
    drops at its end (from 1 to √(1-w)): phase 1 of the published recipe falls from 5.997e-3 to 5.076e-3.
    """
    x = step / total_steps
    return x / warmup if x < warmup else math.sqrt(max(1.0 - x, 0.0))


def linear(step: float, total_steps: float, warmup: float) -> float:
    """Return x/w during warm-up and then the line from 1 at x = w to 0 at x = 1.

    NVIDIA's LinearWarmUpScheduler (steps from 1) and its 2019 BertAdam (from 0). Google's decay, and the first
    Hugging Face releases', is 1-x after the warm-up instead: it drops to 1-w where this one is continuous.
    """
    x = step / total_steps
    return x / warmup if x < warmup else max(0.0, (x - 1.0) / (warmup - 1.0))


def cosine(step: float, total_steps: float, warmup: float) -> float:
    """Return x/w during warm-up and ½(1 + cos πx) after it.

    Early Hugging Face's ``warmup_cosine``. NVIDIA's CosineWarmUpScheduler has ``cos(π + x)`` by mistake, which never
    leaves [0, 0.23] and *rises* during training; it is not reproduced.
    """
    x = step / total_steps
    return x / warmup if x < warmup else 0.5 * (1.0 + math.cos(math.pi * min(x, 1.0)))


def constant(step: float, total_steps: float, warmup: float) -> float:
    """Return x/w during warm-up and 1 after it (NVIDIA's ConstantWarmUpScheduler, ``warmup_constant``)."""
    x = step / total_steps
    return x / warmup if x < warmup else 1.0


SCHEDULES: dict[str, Schedule] = {"poly": poly, "linear": linear, "cosine": cosine, "constant": constant}


@dataclass
class ScheduleConfig:
    """The learning rate over one run."""

    learning_rate: float = flag(5e-5, "Highest learning rate: the base that the schedule scales.", minimum=0.0)
    warmup_proportion: float = flag(
        0.01, "Share of the optimizer steps, from 0 to below 1, over which the learning rate rises.", minimum=0.0
    )
    lr_schedule: str = flag("poly", "Shape of the learning rate after the warm-up.", choices=tuple(SCHEDULES))


def learning_rate(name: str, step: float, total_steps: float, warmup: float, base: float) -> float:
    """Return the learning rate of one optimizer step.

    Raises UsageError for an unknown schedule, ``total_steps`` below 1 and ``warmup`` outside [0, 1): at 1 no step would
    be left for the decay.
    """
    if name not in SCHEDULES:
        raise UsageError(f"--lr_schedule {name}: unknown, expected one of {', '.join(SCHEDULES)}")
    if total_steps < 1:
        raise UsageError(f"the schedule spans {total_steps} steps (--max_steps): expected at least 1")
    if not 0.0 <= warmup < 1.0:
        raise UsageError(f"--warmup_proportion {warmup}: expected 0 <= value < 1")
    return base * SCHEDULES[name](step, total_steps, warmup)
