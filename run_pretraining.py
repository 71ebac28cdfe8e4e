"""Pre-train BERT with masked language modelling and next-sentence prediction, in two phases.

    python run_pretraining.py --input_dir shards_128 --config_file bert_configs/base.json --vocab_file vocab.txt \\
        --output_dir results --max_seq_length 128 --max_predictions_per_seq 20 --max_steps 7038 --do_train
    python run_pretraining.py --input_dir shards_512 ... --max_seq_length 512 --max_predictions_per_seq 80 \\
        --max_steps 1563 --phase2 --resume_from_checkpoint --do_train

On several GPUs: torchrun --nproc_per_node=8 run_pretraining.py ...
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bert.checkpoint import CheckpointConfig, build_checkpoint_writer, find_checkpoint
from bert.config import flag, run_command, to_dict
from bert.data.loader import Dataset, LoaderConfig, PretrainingLoader, Share
from bert.data.manifest import check_manifests
from bert.distributed import DistributedConfig, StopSignal, World, collective_errors, join_world, seed_everything
from bert.errors import UsageError
from bert.log import LogConfig, build_logger, resolve_tensorboard_dir
from bert.model.bert import BertForPreTraining
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.optim.schedules import ScheduleConfig, learning_rate
from bert.pretrain.phases import PhaseConfig, plan_start
from bert.pretrain.run import (
    ModelConfig,
    Recorder,
    expected_flops,
    load_initial_weights,
    load_model_files,
    pretraining_flops,
    restore,
)
from bert.train.foreign_flags import ElsewhereConfig, refuse_elsewhere
from bert.train.parallel import ParallelConfig, apply_parallelism, resolve_compile
from bert.train.precision import Precision, PrecisionConfig
from bert.train.profiling import ProfileConfig, build_profiler
from bert.train.throughput import measure_peak
from bert.train.trainer import BatchConfig, BatchGeometry, Hooks, Trainer, batch_geometry


@dataclass
class RunConfig:
    output_dir: str = flag(help="Directory of checkpoints and logs.")
    do_train: bool = flag(False, "Train. Required, so that a command that trains says so.")
    max_steps: int = flag(1000, "Optimizer steps of this phase; the learning rate reaches its end here.", minimum=1)
    steps_this_run: int = flag(-1, "Stop after this many optimizer steps of this run; -1 = at --max_steps.")
    seed: int = flag(42, "Seed of weights, order of samples, masks and dropout.")
    eval_dir: str | None = flag(None, "Directory of held-out shards for MLM and NSP accuracy.")
    eval_steps: int = flag(0, "Optimizer steps between two evaluations; 0 = only at the end.", minimum=0)
    eval_batch_size: int = flag(64, "Sequences per device in a batch of the evaluation.", minimum=1)


@dataclass
class AcceptedConfig:
    """Flags of NVIDIA's command that existing scripts pass and that change nothing here."""

    bert_model: str | None = flag(None, "Accepted and unused: --config_file and --vocab_file say what the model is.")
    num_train_epochs: float = flag(3.0, "Accepted and unused: --max_steps decides.")
    cuda_graphs: bool = flag(False, "Accepted and unused: token streams have no fixed length to capture in a graph.")


@dataclass
class Config:
    run: RunConfig
    model: ModelConfig
    data: LoaderConfig
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    phase: PhaseConfig = field(default_factory=PhaseConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    log: LogConfig = field(default_factory=LogConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    accepted: AcceptedConfig = field(default_factory=AcceptedConfig)
    elsewhere: ElsewhereConfig = field(default_factory=ElsewhereConfig)


def main(config: Config) -> None:
    refuse_elsewhere(config.elsewhere, to_dict(config))
    if not config.run.do_train:
        raise UsageError("nothing to do: add --do_train")
    with join_world(config.distributed) as world, StopSignal() as stop:
        pretrain(config, world, stop)
        if stop.by_keyboard:
            raise KeyboardInterrupt  # saved, but a script that called this command should not go on


def pretrain(config: Config, world: World, stop: StopSignal) -> None:
    began = time.perf_counter()
    run = config.run
    notice = print if world.is_main else lambda line: None

    # What to train, on what, from where.
    geometry = batch_geometry(config.batch, world.size)
    precision = Precision(config.precision, world.device, notice)
    with collective_errors(world):
        tokenizer, model_config = load_model_files(config.model, config.data.max_seq_length)
        shards = Dataset.open(config.data, tokenizer.vocab)
        held_out = Dataset.open(replace(config.data, input_dir=run.eval_dir), tokenizer.vocab) if run.eval_dir else None
        check_manifests([*shards.paths, *(held_out.paths if held_out else [])], tokenizer)
    found = find_checkpoint(config.checkpoint, run.output_dir, world, notice)
    start = plan_start(found[1], config.phase, notice)
    for line in (geometry.banner(), *shards.notices):
        notice(line)

    # The model, its optimizer, and what is done to them from outside.
    seed_everything(run.seed)
    model = BertForPreTraining(model_config, config.model.attention)
    with collective_errors(world):
        load_initial_weights(
            model, tokenizer, found, config.checkpoint.init_checkpoint, config.model.vocab_file, notice
        )
    model.to(world.device, precision.parameter_dtype)
    objective = PreTrainingObjective(model, not config.model.no_dense_sequence_output)
    trainer = build_trainer(config, objective, precision, geometry, world, notice)
    restore(trainer, model, start, found[1], to_dict(config), notice)
    last = run.max_steps if run.steps_this_run < 0 else min(run.max_steps, trainer.state.step + run.steps_this_run)
    if trainer.state.step >= last:
        notice(f"phase {start.phase} is at step {trainer.state.step} of {last} already: nothing to train")
        return

    # The run.
    with (
        build_logger(config.log.json_summary, tensorboard_dir(config), world.is_main) as logger,
        build_checkpoint_writer(config.checkpoint, run.output_dir, world.is_main) as writer,
        build_profiler(config.profile, run.output_dir, world.is_main) as profiler,
        build_loader(config, shards, geometry, world, trainer.state.data) as loader,
    ):
        constant = {
            "model_config": model_config.to_dict(),
            "tokenizer": tokenizer.state_dict(),
            "geometry": asdict(geometry),
            "flags": to_dict(config),
        }
        ceiling = measure_peak(world.device, precision.dtype)
        recorder = Recorder(
            trainer,
            objective,
            loader,
            logger,
            writer,
            start,
            run.max_steps,
            constant,
            held_out,
            run.eval_batch_size,
            ceiling,
        )
        recorder.begin(
            Config=to_dict(config),
            SEED=run.seed,
            batch_size_per_gpu=config.batch.train_batch_size,
            learning_rate=config.schedule.learning_rate,
            checkpoint_step=trainer.state.step + start.offset,
            precision=precision.name,
        )
        every = config.log.log_freq, run.eval_steps, config.checkpoint.num_steps_per_checkpoint
        hooks = Hooks(recorder.report, every[0], recorder.evaluate, every[1], recorder.save, every[2], profiler.step)
        outcome = trainer.fit(
            loader, last, hooks, stop=stop, show=world.is_main and not config.log.disable_progress_bar
        )
        recorder.finish(outcome, time.perf_counter() - began)


def build_trainer(
    config: Config,
    objective: PreTrainingObjective,
    precision: Precision,
    geometry: BatchGeometry,
    world: World,
    notice: Callable[[str], None],
) -> Trainer:
    model, schedule = objective.model, config.schedule
    work = expected_flops(model.config, config.data, geometry, config.run.max_steps)
    compiled = resolve_compile(config.parallel, world.device, work, notice)

    def rate(step: int) -> float:
        return learning_rate(
            schedule.lr_schedule, step, config.run.max_steps, schedule.warmup_proportion, schedule.learning_rate
        )

    return Trainer(
        apply_parallelism(objective, model.bert.encoder.layer, config.parallel, world, compiled),
        build_optimizer(config.optimizer, model),
        rate,
        precision,
        config.parallel,
        world,
        seed=config.run.seed,
        max_grad_norm=config.optimizer.max_grad_norm,
        flops=pretraining_flops(model.config),
    )


def build_loader(
    config: Config, shards: Dataset, geometry: BatchGeometry, world: World, position: dict[str, Any]
) -> PretrainingLoader:
    return PretrainingLoader(
        shards,
        geometry.global_batch,
        Share(world.rank, world.size, geometry.accumulation, pin_memory=world.device.type == "cuda"),
        seed=config.run.seed,
        num_workers=config.data.num_workers,
        state=position or None,
    )


def tensorboard_dir(config: Config) -> str | None:
    return resolve_tensorboard_dir(config.log.tensorboard_dir, config.run.output_dir)


if __name__ == "__main__":
    run_command(main, Config)
