"""Training on a task's sequences with the trainer of pre-training: accumulation, ranks, precision, resume, signals.

::

    run = FineTuningRun(config, objective, sequences, world, logger)
    outcome = run.train(constant, resumed)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from bert.batch import TaskBatch
from bert.checkpoint import CheckpointConfig, build_checkpoint_writer
from bert.checkpoint.open_model import ModelFiles
from bert.config import flag, to_dict
from bert.distributed import DistributedConfig, StopSignal, World
from bert.errors import UsageError
from bert.finetune.loader import TaskLoader, steps_of
from bert.log import LogConfig, Logger
from bert.model.bert import BertForQuestionAnswering, BertForSequenceClassification
from bert.model.config import BertConfig
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.optim.host import HostOptimizer
from bert.optim.schedules import ScheduleConfig, learning_rate
from bert.sequences import Sequences
from bert.train.foreign_flags import ElsewhereConfig
from bert.train.parallel import ParallelConfig, apply_parallelism, resolve_compile
from bert.train.precision import Precision, PrecisionConfig
from bert.train.throughput import training_flops
from bert.train.trainer import BatchConfig, Hooks, Outcome, StepReport, Trainer, TrainState, batch_geometry


@dataclass
class RunConfig:
    output_dir: str = flag(help="Directory of the fine-tuned model, predictions and results.")
    do_train: bool = flag(False, "Fine-tune on the training set.")
    do_eval: bool = flag(False, "Score the predictions for the dev set.")
    do_predict: bool = flag(False, "Write predictions.")
    num_train_epochs: float = flag(3.0, "Passes over the training set.", minimum=0)
    max_steps: int = flag(-1, "Optimizer steps instead of epochs, where above 0.")
    seed: int = flag(42, "Seed of the new head, the order of the examples and dropout.")
    no_cuda: bool = flag(False, "Run on the CPU, as --device cpu does.")
    optimize_on_cpu: bool = flag(
        False, "Keep the optimizer's moments and fp32 parameters in host memory and take the step there."
    )
    find_micro_batch: bool = flag(
        False, "Print the largest micro-batch that fits for each sequence length, and exit: no data is read."
    )
    memory_gb: float = flag(
        0.0, "--find_micro_batch: memory of the device to fill, in GB of 2^30 bytes; 0 = what is free.", minimum=0
    )


@dataclass
class TaskOptimizerConfig(OptimizerConfig):
    optimizer: str = flag(
        "adamw", "adamw (with bias correction), bertadam (without), lamb, or a class as package.module:Class."
    )


@dataclass
class TaskScheduleConfig(ScheduleConfig):
    warmup_proportion: float = flag(
        0.1, "Share of the optimizer steps, from 0 to below 1, over which the learning rate rises.", minimum=0.0
    )
    lr_schedule: str = flag(
        "linear", "Shape of the learning rate after the warm-up.", choices=("linear", "poly", "cosine", "constant")
    )


@dataclass
class TaskCheckpointConfig(CheckpointConfig):
    num_steps_per_checkpoint: int = flag(
        1000, "Optimizer steps between two checkpoints.", minimum=1, aliases=["save_checkpoints_steps"]
    )


@dataclass
class TaskLogConfig(LogConfig):
    log_freq: int = flag(50, "Optimizer steps between two reports of loss and learning rate.", minimum=1)


@dataclass
class TrainingConfig:
    """The flags that all fine-tuning commands share."""

    run: RunConfig
    model: ModelFiles = field(default_factory=ModelFiles)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: TaskOptimizerConfig = field(default_factory=TaskOptimizerConfig)
    schedule: TaskScheduleConfig = field(default_factory=TaskScheduleConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: TaskCheckpointConfig = field(default_factory=TaskCheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    log: TaskLogConfig = field(default_factory=TaskLogConfig)
    elsewhere: ElsewhereConfig = field(default_factory=ElsewhereConfig)


def place(config: TrainingConfig) -> DistributedConfig:
    """Return where the run takes place."""
    return replace(config.distributed, device="cpu") if config.run.no_cuda else config.distributed


def fine_tune(
    config: TrainingConfig,
    objective: nn.Module,
    sequences: Sequences,
    precision: Precision,
    world: World,
    stop: StopSignal,
    logger: Logger,
    constant: dict[str, Any],
    resumed: dict[str, Any] | None,
    notice: Callable[[str], None],
) -> Outcome:
    """Train ``objective`` in place; ``constant`` goes into every checkpoint, ``resumed`` is the one to go on from."""
    run, geometry = config.run, batch_geometry(config.batch, world.size)
    last = steps_of(len(sequences), geometry.global_batch, run.num_train_epochs, run.max_steps)
    notice(f"{geometry.banner()}; {last} steps, {last * geometry.global_batch / len(sequences):.2f} epochs")
    trainer = build_trainer(config, objective, sequences, precision, world, last, notice)
    if resumed is not None:
        restore(trainer, resumed, config)
    loader = TaskLoader(
        sequences,
        geometry.global_batch,
        seed=run.seed,
        rank=world.rank,
        world_size=world.size,
        micro_batches=geometry.accumulation,
        pin_memory=world.device.type == "cuda",
        state=trainer.state.data,
    )
    model: Any = objective.model
    with build_checkpoint_writer(config.checkpoint, run.output_dir, world.is_main) as writer:

        def report(report: StepReport) -> None:
            data = {"step_loss": report.losses["loss"], "learning_rate": report.learning_rate}
            speeds = {
                "sequences_per_second": report.sequences_per_second,
                "tokens_per_second": report.tokens_per_second,
            }
            logger.log((int(loader.epoch), report.step), {**data, **speeds})

        def save() -> None:
            state = {
                "model": model.state_dict(),
                "optimizer": trainer.optimizer.state_dict(),
                "grad_scaler": precision.state_dict(),
                "training": trainer.state.to_dict(),
                "geometry": asdict(geometry),
                "max_steps": last,
                "flags": to_dict(config),
                **constant,
            }
            writer.save(trainer.state.step, state)

        hooks = Hooks(report, config.log.log_freq, save=save, save_every=config.checkpoint.num_steps_per_checkpoint)
        show = world.is_main and not config.log.disable_progress_bar
        return trainer.fit(loader, last, hooks, stop=stop, show=show)


def build_trainer(
    config: TrainingConfig,
    objective: nn.Module,
    sequences: Sequences,
    precision: Precision,
    world: World,
    last: int,
    notice: Callable[[str], None],
) -> Trainer:
    """Wrap the objective for training and build its optimizer."""
    model: BertForSequenceClassification | BertForQuestionAnswering = objective.model  # type: ignore[assignment]
    schedule, count = config.schedule, task_flops(model.config)
    work = last * config.batch.train_batch_size * _mean_flops(sequences, model.config)
    compiled = resolve_compile(config.parallel, world.device, work, notice)

    def build(copy: nn.Module) -> Any:
        return build_optimizer(config.optimizer, copy)

    def rate(step: int) -> float:
        return learning_rate(schedule.lr_schedule, step, last, schedule.warmup_proportion, schedule.learning_rate)

    optimizer = HostOptimizer(model, build) if config.run.optimize_on_cpu else build(model)
    return Trainer(
        apply_parallelism(objective, model.bert.encoder.layer, config.parallel, world, compiled),
        optimizer,
        rate,
        precision,
        config.parallel,
        world,
        seed=config.run.seed,
        max_grad_norm=config.optimizer.max_grad_norm,
        flops=count,
    )


def restore(trainer: Trainer, checkpoint: dict[str, Any], config: TrainingConfig) -> None:
    """Put optimizer, counters and loss scale where ``checkpoint`` says; its weights are loaded by the caller."""
    before = checkpoint["flags"]["optimizer"]
    if before != config.optimizer.optimizer:
        raise UsageError(f"--optimizer {config.optimizer.optimizer}: the checkpoint holds the moments of {before}")
    trainer.optimizer.load_state_dict(checkpoint["optimizer"])
    trainer.precision.load_state_dict(checkpoint["grad_scaler"])
    trainer.state = TrainState(**checkpoint["training"])


def task_flops(model_config: BertConfig) -> Callable[[TaskBatch], float]:
    """Return the function that counts a batch's floating-point operations, forward and backward."""

    def flops(batch: TaskBatch) -> float:
        squares = int(batch.cu_seqlens.diff().long().square().sum())
        return training_flops(model_config, batch.num_tokens, squares, 0, batch.num_sequences)

    return flops


def _mean_flops(sequences: Sequences, model_config: BertConfig) -> float:
    lengths, count = sequences.lengths, len(sequences)
    return training_flops(model_config, int(lengths.sum()), int((lengths**2).sum()), 0, count) / count
