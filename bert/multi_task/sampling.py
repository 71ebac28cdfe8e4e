"""Which tasks an optimizer step trains, after BERT and PALs (Stickland and Murray 2019, section 3.3).

A task with N training examples is drawn with a probability proportional to N^α; ``rr`` takes the tasks in turn. A draw
depends on the seed and the step alone, so that a resumed run draws what the uninterrupted one would have::

    probabilities("sqrt", [1, 4, 9])                                # [1/6, 2/6, 3/6]
    sampler = Sampler("anneal", (8551, 3668), steps_per_epoch=600, epochs=25, seed=42)
    sampler.tasks(step=0, count=32)                                 # [0 0 0 ...]: one task for the whole step
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert.config import flag
from bert.finetune.training import RunConfig

STEPS_PER_TASK = 300  # of an epoch, as published
DRAWS = 1  # tells the generator of these draws from those of the same seed elsewhere

# α by the share of the epochs done, from 0 in the first to 1 in the last; None: in turn.
EXPONENTS: Mapping[str, Callable[[float], float] | None] = {
    "prop": lambda done: 1.0,
    "sqrt": lambda done: 0.5,
    "anneal": lambda done: 1.0 - 0.8 * done,
    "rr": None,
}


@dataclass
class SamplingConfig:
    sample: str = flag(
        "rr",
        "How the task of a step is chosen: rr in turn, or at random with probabilities proportional to N^a for N "
        "training examples: prop a = 1, sqrt a = 0.5, anneal a from 1 in the first epoch to 0.2 in the last.",
        choices=tuple(EXPONENTS),
    )
    mixed_batches: bool = flag(False, "Choose a task for every sequence of a step, not one for the whole step.")
    steps_per_epoch: int = flag(
        0, f"Optimizer steps that count as an epoch; 0 = {STEPS_PER_TASK} for each task.", minimum=0
    )
    eval_steps: int = flag(0, "--do_eval: optimizer steps between two evaluations; 0 = an epoch.", minimum=0)


def probabilities(sample: str, sizes: Sequence[int], epoch: int = 0, epochs: int = 1) -> NDArray[np.float64]:
    """Return the probability of each task in ``epoch``, counted from 0, of ``epochs``; those of rr are its shares."""
    exponent = EXPONENTS[sample]
    power = exponent(epoch / (epochs - 1) if epochs > 1 else 0.0) if exponent else 0.0
    weights = np.asarray(sizes, np.float64) ** power
    return weights / weights.sum()


@dataclass(frozen=True)
class Sampler:
    """The tasks of every step of a run."""

    sample: str
    sizes: tuple[int, ...]  # training examples of each task
    steps_per_epoch: int
    epochs: int
    seed: int
    mixed: bool = False

    def tasks(self, step: int, count: int) -> NDArray[np.int64]:
        """Return the task of each of the ``count`` sequences of a step, counted from 0."""
        draws = count if self.mixed else 1
        if EXPONENTS[self.sample] is None:
            drawn = np.arange(step * draws, (step + 1) * draws) % len(self.sizes)
        else:
            epoch = min(step // self.steps_per_epoch, self.epochs - 1)
            chances = probabilities(self.sample, self.sizes, epoch, self.epochs)
            drawn = np.random.default_rng([self.seed, DRAWS, step]).choice(len(self.sizes), draws, p=chances)
        return drawn if self.mixed else np.repeat(drawn, count)


def build_sampler(config: SamplingConfig, sizes: Sequence[int], run: RunConfig) -> tuple[Sampler, int]:
    """Return the sampler for tasks of ``sizes`` training examples, and the optimizer steps of the run."""
    epoch = config.steps_per_epoch or STEPS_PER_TASK * len(sizes)
    steps = run.max_steps if run.max_steps > 0 else max(1, int(epoch * run.num_train_epochs))
    epochs = -(-steps // epoch)
    return Sampler(config.sample, tuple(sizes), epoch, epochs, run.seed, config.mixed_batches), steps
