"""Where a run of several tasks starts, and at which rates its parameters learn."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from torch import nn

from bert.config import flag
from bert.errors import UsageError
from bert.finetune.training import TaskOptimizerConfig, TrainingConfig

HEADS = ("classifier.*",)
# The attention of PALs, in the published names multi_layers.{task}.attn.
ATTENTION = r"adapters\.\d+\.layers\.\d+\.(output\.)?(query|key|value)\."


@dataclass
class StartConfig:
    multi: bool = flag(False, "Start from a plain BERT: the adapters and the heads of the tasks are new.")
    h_aug: str = flag("n/a", "Width of the adapters, as --adapter_size gives it; n/a = that of the configuration.")


@dataclass
class MultiTaskOptimizerConfig(TaskOptimizerConfig):
    optim: str = flag(
        "normal", "normal = one learning rate; anything else: the attention of PALs has --attention_learning_rate."
    )
    attention_learning_rate: float = flag(
        3e-4, "Highest learning rate of the attention of PALs; see --optim.", minimum=0.0
    )

    def own_rates(self) -> dict[str, float]:
        return {} if self.optim == "normal" else {ATTENTION: self.attention_learning_rate}


@dataclass
class MultiTaskTrainingConfig(TrainingConfig):
    optimizer: MultiTaskOptimizerConfig = field(default_factory=MultiTaskOptimizerConfig)


def with_h_aug(training: MultiTaskTrainingConfig, h_aug: str) -> MultiTaskTrainingConfig:
    """Return the flags with the width of the adapters that --h_aug gives. Raises UsageError if it is not a width."""
    if h_aug == "n/a":
        return training
    if not h_aug.isdecimal() or int(h_aug) == 0:
        raise UsageError(f"--h_aug {h_aug}: expected a whole number from 1, or n/a")
    return replace(training, adapter=replace(training.adapter, adapter_size=int(h_aug)))


def check_rates(training: MultiTaskTrainingConfig, model: nn.Module) -> None:
    """Raise UsageError where parameters are to have a learning rate of their own and there are none."""
    for pattern in training.optimizer.own_rates():
        if not any(re.search(pattern, name) for name, _ in model.named_parameters()):
            raise UsageError(f"--optim {training.optimizer.optim}: the model has no PALs, expected --optim normal")
        if not training.schedule.learning_rate:
            raise UsageError("--learning_rate 0: expected above 0 with --optim, whose rate has the same schedule")
