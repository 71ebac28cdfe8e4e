"""This suite's side of a comparison: assembled and driven as its commands do it.

::

    trainer = our_trainer(PreTrainingObjective(model), world, config.precision, config.parallel)
    train(trainer, [[micro_batch], [micro_batch]])      # two optimizer steps
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bert.distributed import StopSignal, World
from bert.finetune.training import RunConfig, TaskOptimizerConfig, TaskScheduleConfig, TrainingConfig
from bert.train.build import build_trainer
from bert.train.parallel import ParallelConfig
from bert.train.precision import PrecisionConfig
from bert.train.run import build_run
from bert.train.throughput import measure_peak
from bert.train.trainer import Trainer

PRESETS: dict[str, Any] = {
    "small": {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
}


def our_trainer(
    objective: Any, world: World, precision: PrecisionConfig, parallel: ParallelConfig, optimizer: str = "adamw"
) -> Trainer:
    """Return the trainer of a command with these flags and a small constant learning rate."""
    settings = TrainingConfig(
        RunConfig(output_dir="", seed=0),
        optimizer=TaskOptimizerConfig(optimizer=optimizer),
        schedule=TaskScheduleConfig(lr_schedule="constant", learning_rate=1e-5, warmup_proportion=0.0),
        precision=precision,
        parallel=parallel,
    )
    run = build_run(settings, world, StopSignal())
    return build_trainer(run, objective.to(world.device), steps=1, flops=lambda batch: 0.0, total_flops=0.0)


def train(trainer: Trainer, steps: Sequence[list[Any]]) -> None:
    """Take a step on each list of micro-batches, queued before the one before it is settled, as in training."""
    for index, micro_batches in enumerate(steps):
        trainer.train_step(micro_batches, lambda: False)
        if index:
            trainer.settle()
        trainer.queue_update()
    trainer.settle()


def fed(batch: Any, device: torch.device) -> Any:
    """Return a batch where a loader leaves it: in page-locked memory, if there is a GPU."""
    return batch.pinned() if device.type == "cuda" else batch


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product."""
    return measure_peak(device, dtype, size=2048 if device.type == "cpu" else None)
