"""Training on a task's sequences with the trainer of pre-training: accumulation, ranks, precision, resume, signals.

::

    outcome = fine_tune(run, objective, sequences, {"task": "squad"}, resumed=None)
    outcome.final_loss, outcome.sequences_per_second
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bert.checkpoint import CheckpointConfig, Found, agree_on_pieces, build_checkpoint_writer, find_checkpoint
from bert.checkpoint.open_model import ModelFiles, StartingPoint
from bert.config import flag
from bert.distributed import DistributedConfig, seed_everything
from bert.finetune.adapters import POOLER, AdapterFlags, configure_adapter, freeze_base, new_adapters
from bert.finetune.loader import TaskLoader, steps_of
from bert.log import LogConfig
from bert.model.config import BertConfig
from bert.optim.build import OptimizerConfig
from bert.optim.schedules import ScheduleConfig
from bert.sequences import Sequences
from bert.train.batch_geometry import BatchConfig
from bert.train.build import build_trainer, checkpoint_state
from bert.train.foreign_flags import ForeignFlags
from bert.train.hooks import Hooks, Outcome, StepReport
from bert.train.metrics import UNITS, describe, end_metrics, speed_metrics
from bert.train.parallel import ParallelConfig
from bert.train.precision import PrecisionConfig
from bert.train.run import Run
from bert.train.throughput import Ceiling, flops_of_batches, measure_peak, training_flops
from bert.train.trainer import Trainer


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
    adapter: AdapterFlags = field(default_factory=AdapterFlags)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: TaskOptimizerConfig = field(default_factory=TaskOptimizerConfig)
    schedule: TaskScheduleConfig = field(default_factory=TaskScheduleConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: TaskCheckpointConfig = field(default_factory=TaskCheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    log: TaskLogConfig = field(default_factory=TaskLogConfig)
    foreign: ForeignFlags = field(default_factory=ForeignFlags)


TaskRun = Run[TrainingConfig]


def place(config: TrainingConfig) -> DistributedConfig:
    """Return where the run takes place."""
    return replace(config.distributed, device="cpu") if config.run.no_cuda else config.distributed


def find_own_checkpoint(run: TaskRun) -> Found:
    """Return the checkpoint that a training run continues from; a run that does not train has none."""
    if not run.settings.run.do_train:
        return Found()
    return find_checkpoint(run.settings.checkpoint, run.output_dir, run.world, run.notice)


def load_objective(
    run: TaskRun, start: StartingPoint, build: Callable[[BertConfig], Any], head: Sequence[str], found: Found
) -> Any:
    """Build a task's objective on the device, its weights drawn from the seed and then loaded from ``start``.

    Where training starts from a checkpoint, it may lack the pooler and parameters that match a pattern of ``head``.
    """
    configure_adapter(start.model_config, run.settings.adapter)
    seed_everything(run.seed)
    objective = build(start.model_config)
    starts = run.settings.run.do_train and found.state is None
    report = start.load_into(objective.model, (*head, POOLER, *new_adapters(start)) if starts else ())
    if report is not None:
        run.notice(f"{start.what}: {report}")
    if run.settings.adapter.freeze and run.settings.run.do_train:
        start.base = freeze_base(objective.model, start)
    return objective.to(run.world.device, run.precision.parameter_dtype)


@dataclass
class Course:
    """What a run with an order of its own gives :func:`fine_tune`."""

    steps: int  # optimizer steps in all
    loader: Callable[..., TaskLoader]  # takes what TaskLoader takes
    evaluate: Callable[[Trainer], None]  # also called at the end
    evaluate_every: int = 0  # optimizer steps


def fine_tune(
    run: TaskRun,
    objective: Any,
    sequences: Sequences,
    kept: dict[str, Any],
    resumed: dict[str, Any] | None,
    course: Course | None = None,
) -> Outcome:
    """Train ``objective`` in place, from the checkpoint ``resumed`` on; a checkpoint holds ``kept`` as it then is.

    Without a ``course`` the sequences are read epoch by epoch, as often as the flags say, and nothing is evaluated.
    """
    settings, geometry = run.settings, run.geometry
    if course is None:
        epochs, most = settings.run.num_train_epochs, settings.run.max_steps
        steps = steps_of(len(sequences), geometry.global_batch, epochs, most)
        course = Course(steps, TaskLoader, lambda trainer: None)
    last = course.steps
    run.notice(f"{geometry.banner()}; {last} steps, {last * geometry.global_batch / len(sequences):.2f} epochs")
    trainer = build_task_trainer(run, objective, sequences, last)
    if resumed is not None:
        trainer.load_state_dict(resumed)
    loader = course.loader(
        sequences,
        geometry,
        run.seed,
        rank=run.world.rank,
        pin_memory=run.world.device.type == "cuda",
        state=trainer.state.data,
    )
    ceiling = Ceiling(lambda: measure_peak(run.world.device, run.precision.dtype), run.notice)
    describe(run.logger, UNITS)
    pieces = agree_on_pieces(run.world, settings.optimizer.shard_optimizer, settings.distributed.timeout)
    with build_checkpoint_writer(settings.checkpoint, run.output_dir, run.world.is_main, pieces) as writer:

        def report(report: StepReport) -> None:
            data = {
                "step_loss": report.losses["loss"],
                "learning_rate": report.learning_rate,
                **speed_metrics(report, ceiling),
            }
            run.logger.log((int(trainer.epoch), report.step), data)

        def save() -> None:
            writer.save(trainer.state.step, checkpoint_state(trainer, objective.model, max_steps=last, **kept))

        hooks = Hooks(
            report,
            settings.log.log_freq,
            evaluate=lambda: course.evaluate(trainer),
            evaluate_every=course.evaluate_every,
            save=save,
            save_every=settings.checkpoint.num_steps_per_checkpoint,
        )
        outcome = trainer.fit(loader, last, hooks)
    if not outcome.interrupted:
        run.logger.summary(end_metrics(outcome, ceiling, run.world.size))
    return outcome


def build_task_trainer(run: TaskRun, objective: Any, sequences: Sequences, steps: int) -> Trainer:
    """Build the trainer of ``steps`` optimizer steps on ``sequences``."""
    settings = run.settings
    model_config, lengths = objective.model.config, sequences.lengths
    mean = training_flops(model_config, int(lengths.sum()), int((lengths**2).sum()), 0, len(lengths)) / len(lengths)
    work = steps * settings.batch.train_batch_size * mean
    return build_trainer(run, objective, steps, flops_of_batches(model_config), work, settings.run.optimize_on_cpu)
