"""Pre-train BERT with masked language modelling and next-sentence prediction, in two phases.

    python run_pretraining.py --input_dir shards_128 --config_file bert_configs/base.json --vocab_file vocab.txt \\
        --output_dir results --max_seq_length 128 --max_predictions_per_seq 20 --max_steps 7038 --do_train
    python run_pretraining.py --input_dir shards_512 ... --max_seq_length 512 --max_predictions_per_seq 80 \\
        --max_steps 1563 --phase2 --resume_from_checkpoint --do_train

On several GPUs: torchrun --nproc_per_node=8 run_pretraining.py ...
"""

import time
from dataclasses import dataclass, field, replace

from bert.checkpoint import CheckpointConfig, agree_on_pieces, build_checkpoint_writer, find_checkpoint
from bert.config import flag, run_command, to_dict
from bert.data.dataset import LoaderConfig
from bert.data.loader import PretrainingLoader, Share
from bert.distributed import DistributedConfig, StopSignal, collective_errors, join_world, seed_everything
from bert.errors import UsageError
from bert.log import LogConfig
from bert.model.bert import BertForPreTraining
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig
from bert.optim.schedules import ScheduleConfig
from bert.pretrain.phases import PhaseConfig, plan_start
from bert.pretrain.run import (
    ModelConfig,
    Recorder,
    expected_flops,
    load_initial_weights,
    load_model_files,
    open_shards,
    restore,
)
from bert.tokenization import guesses
from bert.train.batch_geometry import BatchConfig
from bert.train.build import build_trainer
from bert.train.foreign_flags import ForeignFlags, refuse_foreign_flags
from bert.train.parallel import ParallelConfig
from bert.train.precision import PrecisionConfig
from bert.train.profiling import ProfileConfig, profiling
from bert.train.run import Run, build_run, check_output_dir, open_log
from bert.train.throughput import Ceiling, flops_of_batches, measure_peak


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

    num_train_epochs: float = flag(3.0, "Accepted and unused: --max_steps decides.")


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
    foreign: ForeignFlags = field(default_factory=ForeignFlags)


def main(config: Config) -> None:
    refuse_foreign_flags(config.foreign, to_dict(config))
    if not config.run.do_train:
        raise UsageError("nothing to do: add --do_train")
    with join_world(config.distributed, config.run.output_dir) as world, StopSignal() as stop:
        run = build_run(config, world, stop)
        check_output_dir(run)
        pretrain(config, run)
        if stop.by_keyboard:
            raise KeyboardInterrupt  # saved, but a script that called this command should not continue


def pretrain(config: Config, run: Run[Config]) -> None:
    began, geometry, max_steps = time.perf_counter(), run.geometry, config.run.max_steps

    # What is trained, on what, and from where.
    with collective_errors(run.world):
        tokenizer, model_config = load_model_files(config.model, config.data)
        shards, held_out = open_shards(config.data, config.run.eval_dir, tokenizer)
    found = find_checkpoint(config.checkpoint, run.output_dir, run.world, run.notice)
    start = plan_start(found.state, config.phase, run.notice)
    held = held_out.notices if held_out else ()
    for line in filter(None, (geometry.banner(), guesses(tokenizer), *shards.notices, *held)):
        run.notice(line)

    # The model, and the trainer that owns its optimizer.
    seed_everything(run.seed)
    model = BertForPreTraining(model_config, config.model.attention)
    load_initial_weights(model, tokenizer, found, config.checkpoint.init_checkpoint, run)
    model.to(run.world.device, run.precision.parameter_dtype)
    objective = PreTrainingObjective(model, not config.model.no_dense_sequence_output)
    size = replace(model_config, vocab_size=model_config.padded_vocab_size)
    work = expected_flops(size, config.data, geometry, max_steps)
    trainer = build_trainer(run, objective, max_steps, flops_of_batches(size), work)
    restore(trainer, model, start, found.state)
    steps = config.run.steps_this_run
    last = max_steps if steps < 0 else min(max_steps, trainer.state.step + steps)
    if trainer.state.step >= last:
        run.notice(f"phase {start.phase} has reached step {trainer.state.step} of {last}: nothing to train")
        return

    # The run.
    world = run.world
    pieces = agree_on_pieces(world, config.optimizer.shard_optimizer, config.distributed.timeout)
    share = Share(world.rank, world.size, geometry.accumulation, pin_memory=world.device.type == "cuda")
    with (
        open_log(run) as run,
        build_checkpoint_writer(config.checkpoint, run.output_dir, world.is_main, pieces) as writer,
        profiling(config.profile, run.output_dir, world.is_main) as step_done,
        PretrainingLoader(
            shards,
            geometry.global_batch,
            share,
            seed=run.seed,
            num_workers=config.data.num_workers,
            state=trainer.state.data or None,
        ) as loader,
    ):
        held = {**tokenizer.state_dict(), "guessed": []}  # what a model is trained with is a fact
        constant = {"model_config": model_config.to_dict(), "tokenizer": held}
        ceiling = Ceiling(lambda: measure_peak(world.device, run.precision.dtype), run.notice)
        recorder = Recorder(run, trainer, objective, writer, start, constant, held_out, ceiling)
        recorder.begin()
        outcome = trainer.fit(loader, last, recorder.hooks(step_done))
        recorder.finish(outcome, time.perf_counter() - began)


if __name__ == "__main__":
    run_command(main, Config)
