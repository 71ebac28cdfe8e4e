"""Where a run of several tasks starts, what of the model it trains, and at which rates."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field

from torch import nn

from bert.config import flag
from bert.errors import UsageError
from bert.finetune.training import TaskOptimizerConfig, TrainingConfig
from bert.model.config import BertConfig

FRESH = ("classifier.*", "bert.adapters.*")  # what a plain BERT lacks
TRAINED = ("adapters.", "classifier.", "LayerNorm.")  # with --freeze
# The attention of PALs, in the published names multi_layers.{task}.attn.
ATTENTION = r"adapters\.\d+\.layers\.\d+\.(output\.)?(query|key|value)\."


@dataclass
class StartConfig:
    multi: bool = flag(False, "Start from a plain BERT: the adapters and the heads of the tasks are new.")
    freeze: bool = flag(False, "Train the adapters, the heads and the LayerNorms only.")
    h_aug: str = flag("n/a", "Width of the adapters, in place of hidden_size_aug in the configuration; n/a = as there.")


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


def with_h_aug(size: BertConfig, h_aug: str) -> BertConfig:
    """Return a configuration with the width that --h_aug gives."""
    if h_aug == "n/a":
        return size
    if not h_aug.isdecimal() or int(h_aug) == 0:
        raise UsageError(f"--h_aug {h_aug}: expected a whole number from 1, or n/a")
    changed = copy.copy(size)
    changed.hidden_size_aug = int(h_aug)  # type: ignore[attr-defined]
    return changed


def check_rates(training: MultiTaskTrainingConfig, model: nn.Module) -> None:
    """Raise UsageError where parameters are to have a learning rate of their own and there are none."""
    for pattern in training.optimizer.own_rates():
        if not any(re.search(pattern, name) for name, _ in model.named_parameters()):
            raise UsageError(f"--optim {training.optimizer.optim}: the model has no PALs, expected --optim normal")
        if not training.schedule.learning_rate:
            raise UsageError("--learning_rate 0: expected above 0 with --optim, whose rate has the same schedule")


def freeze_encoder(model: nn.Module) -> None:
    """Leave the parameters as they are, except those of adapters, heads and LayerNorms."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in name for part in TRAINED)
