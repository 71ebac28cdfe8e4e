"""What surrounds the training loop of pre-training: where a run starts, and what it reports and saves.

``run_pretraining.py`` connects these parts. A checkpoint holds tensors and plain values only, and everything that a
resume needs: step, data position, optimizer, loss scale, phase, model configuration, tokenizer and flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bert.batch import Batch
from bert.checkpoint import CheckpointWriter, Found, NullCheckpointWriter, load_weights
from bert.checkpoint.formats import read_checkpoint
from bert.checkpoint.formats.moments import as_state_dict, moments
from bert.config import flag, to_dict
from bert.data.dataset import Dataset, LoaderConfig
from bert.data.formats.table import find_shards
from bert.data.loader import eval_batches
from bert.data.manifest import check_manifests, stated_by
from bert.distributed import collective_errors, read_once
from bert.errors import UsageError
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.pretrain.evaluation import evaluate, unigram_accuracy
from bert.pretrain.phases import Start
from bert.tokenization import BertTokenizer, TokenizerFlags, expect_same, open_tokenizer
from bert.train import metrics
from bert.train.batch_geometry import BatchGeometry
from bert.train.build import checkpoint_state
from bert.train.hooks import Hooks, Outcome, StepReport, TrainState
from bert.train.run import Run
from bert.train.throughput import Ceiling, training_flops
from bert.train.trainer import Trainer


@dataclass(kw_only=True)
class ModelConfig(TokenizerFlags):
    config_file: str = flag(help="bert_config.json of the model.")
    vocab_file: str = flag(help="WordPiece vocabulary that the shards were made with.")
    attention: str = flag(
        "auto", "fused, varlen, sdpa, blocked, matmul, reference; auto = the fastest one of the device."
    )
    no_dense_sequence_output: bool = flag(
        False, "Run the MLM head on every token instead of the masked ones: the same loss, slower."
    )


def load_model_files(config: ModelConfig, data: LoaderConfig) -> tuple[BertTokenizer, BertConfig]:
    """Read vocabulary and model configuration, which must fit each other, the shards and the sequence length.

    The configuration's vocab_size may be the vocabulary's or that padded to a multiple of 8.
    """
    max_seq_length = data.max_seq_length
    tokenizer = open_tokenizer(config.vocab_file, config, stated_by(find_shards(Path(data.input_dir))))
    model_config = BertConfig.from_json_file(config.config_file)
    stated, actual = model_config.vocab_size, tokenizer.vocab_size
    if not model_config.set_vocabulary(actual):
        raise UsageError(
            f"--vocab_file {config.vocab_file} has {actual} pieces, --config_file {config.config_file} says "
            f"vocab_size {stated}: use the pair that belongs together, or write {actual} there for a new model"
        )
    if max_seq_length > model_config.max_position_embeddings:
        raise UsageError(
            f"--max_seq_length {max_seq_length} exceeds max_position_embeddings "
            f"{model_config.max_position_embeddings} of --config_file {config.config_file}"
        )
    return tokenizer, model_config


def open_shards(data: LoaderConfig, eval_dir: str | None, tokenizer: BertTokenizer) -> tuple[Dataset, Dataset | None]:
    """Open the shards to train on and the held-out ones; both must be made with this tokenizer."""
    shards = Dataset.open(data, tokenizer.vocab)
    held_out = Dataset.open(dataclasses.replace(data, input_dir=eval_dir), tokenizer.vocab) if eval_dir else None
    check_manifests([*shards.paths, *(held_out.paths if held_out else [])], tokenizer)
    return shards, held_out


def load_initial_weights(
    model: nn.Module, tokenizer: BertTokenizer, found: Found, init_checkpoint: str | None, run: Run[Any]
) -> None:
    """Fill ``model`` from the run's own checkpoint, else from --init_checkpoint, else leave it as drawn."""
    state = found.state
    if state is not None:
        what = f"--resume_from_checkpoint {found.path}"
    elif init_checkpoint is not None:
        what = f"--init_checkpoint {init_checkpoint}"
        state = read_once(run.world, lambda: read_checkpoint(init_checkpoint))
    else:
        return
    with collective_errors(run.world):
        if "tokenizer" in state:
            saved = BertTokenizer.from_state_dict(state["tokenizer"]).identity
            expect_same(tokenizer, f"--vocab_file {run.settings.model.vocab_file}", saved, what)
        # An encoder without heads or pooler is a fair start; a checkpoint of this run must be whole.
        allow = () if found.path else ("cls.*", "bert.pooler.*")
        report = load_weights(model, state, what, allow)
    run.notice(f"{what}: {report}")


def expected_flops(size: BertConfig, data: LoaderConfig, geometry: BatchGeometry, steps: int) -> float:
    """Return the work of one device in ``steps`` optimizer steps of full sequences, in FLOP; an upper bound."""
    sequences = geometry.micro * geometry.accumulation * steps
    length = data.max_seq_length
    return sequences * training_flops(size, length, length**2, data.max_predictions_per_seq, 1)


# Flags that shape the learning rate or the gradient: changing one in the middle of a phase is allowed, but noted.
SHAPING = ("max_steps", "learning_rate", "warmup_proportion", "lr_schedule", "weight_decay", "max_grad_norm")


def restore(trainer: Trainer, model: nn.Module, start: Start, checkpoint: dict[str, Any] | None) -> None:
    """Put optimizer, counters and loss scale where ``start`` says; the weights are loaded already.

    Raises UsageError where the moments belong to another optimizer. Of a checkpoint that NVIDIA's script wrote the
    moments are used if they certainly belong to the parameters of ``model``.
    """
    if checkpoint is None:
        return
    run = trainer.run
    if start.keep_moments and "flags" not in checkpoint:
        try:
            adopt_moments(trainer.optimizer, model, checkpoint, run.settings.optimizer.optimizer)
            run.notice(f"the moments of {len(trainer.optimizer.state)} parameters are used")
        except ValueError as error:
            run.notice(f"its weights are used, its moments are not: {error}")
    elif start.keep_moments:
        trainer.load_moments(checkpoint)
        before, flags = checkpoint["flags"], to_dict(run.settings)
        for name in SHAPING if start.training else ():
            if before[name] != flags[name]:
                run.notice(f"--{name} was {before[name]} and is now {flags[name]}")
    if start.keep_scale:
        trainer.precision.load_state_dict(checkpoint["grad_scaler"])
    if start.training:
        trainer.state = TrainState(**start.training)
    elif start.keep_moments:  # a new phase: bias correction and learning rate restart, the moments stay
        reset_optimizer_step(trainer.optimizer)


def adopt_moments(optimizer: Any, model: nn.Module, checkpoint: dict[str, Any], name: str) -> None:
    """Load the moments of NVIDIA's LAMB; raises ValueError, and changes nothing, where that is not sound."""
    if name not in ("lamb", "apex_lamb"):
        raise ValueError(f"they are of LAMB, and --optimizer is {name}")
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    order = [names[parameter] for parameter in parameters]
    state = as_state_dict(moments(checkpoint), order, [parameter.shape for parameter in parameters])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def reset_optimizer_step(optimizer: Any) -> None:
    """Set the step counters of bias correction back to 0 and keep the moments."""
    for group in optimizer.param_groups:
        if "step" in group:
            group["step"] = torch.zeros_like(group["step"]) if torch.is_tensor(group["step"]) else 0
    for state in optimizer.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"].zero_()


UNITS: metrics.Units = {  # those of pre-training alone
    **metrics.UNITS,
    "average_loss": (None, ":.4f"),
    "mlm_loss": (None, ":.4f"),
    "nsp_loss": (None, ":.4f"),
    "grad_norm": (None, ":.3f"),
    "eta": ("s", ":.0f"),
    "eval_mlm_loss": (None, ":.4f"),
    "eval_nsp_loss": (None, ":.4f"),
    "eval_mlm_accuracy": (None, ":.4f"),
    "eval_nsp_accuracy": (None, ":.4f"),
    "raw_train_time": ("s", ":.1f"),
}


@dataclass(frozen=True)
class Recorder:
    """Reports, evaluates and saves a run; the trainer calls it through its hooks."""

    run: Run[Any]
    trainer: Trainer
    objective: PreTrainingObjective  # not wrapped for training
    writer: CheckpointWriter | NullCheckpointWriter
    start: Start
    constant: dict[str, Any]  # what every checkpoint repeats: model configuration and tokenizer
    held_out: Dataset | None
    ceiling: Ceiling

    def begin(self) -> None:
        """Log the PARAMETER events that precede the first step."""
        settings, trainer, logger = self.run.settings, self.trainer, self.run.logger
        metrics.describe(logger, UNITS)
        facts: dict[str, Any] = {}
        if self.held_out:
            size = self.objective.model.config.vocab_size
            facts["unigram_mlm_accuracy"] = unigram_accuracy(self._eval_batches(self.held_out), size, self.run.world)
        logger.parameter(
            phase=self.start.phase,
            loss_scale=trainer.precision.loss_scale.value,
            Config=to_dict(settings),
            SEED=self.run.seed,
            batch_size_per_gpu=settings.batch.train_batch_size,
            learning_rate=settings.schedule.learning_rate,
            checkpoint_step=trainer.state.step + self.start.offset,
            precision=trainer.precision.name,
            **facts,
        )
        logger.parameter(train_start=True)

    def hooks(self, step_done: Callable[[], None]) -> Hooks:
        settings = self.run.settings
        return Hooks(
            report=self.report,
            report_every=settings.log.log_freq,
            evaluate=self.evaluate,
            evaluate_every=settings.run.eval_steps,
            save=self.save,
            save_every=settings.checkpoint.num_steps_per_checkpoint,
            step=step_done,
        )

    def report(self, report: StepReport) -> None:
        precision = self.trainer.precision
        data: dict[str, Any] = {
            "average_loss": sum(report.losses.values()),
            **report.losses,
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            **metrics.speed_metrics(report, self.ceiling),
        }
        if report.eta is not None:
            data["eta"] = report.eta
        if precision.skipped:
            data["skipped_steps"] = precision.skipped
        if precision.loss_scale.value != 1:
            data["loss_scale"] = precision.loss_scale.value
        self.run.logger.log((int(self.trainer.epoch), report.step), data)

    def evaluate(self) -> None:
        if self.held_out:
            batches, step = self._eval_batches(self.held_out), self.trainer.state.step
            scores = evaluate(self.objective, batches, self.run.precision, self.run.world)
            self.run.logger.log((int(self.trainer.epoch), step), scores)

    def save(self) -> None:
        """Start writing ckpt_{offset + step}.pt; the end of phase 1 is kept for ever."""
        step, last, phase = self.trainer.state.step, self.run.settings.run.max_steps, self.start.phase
        state = checkpoint_state(
            self.trainer,
            self.objective.model,
            epoch=int(self.trainer.epoch),
            phase=phase,
            offset=self.start.offset,
            max_steps=last,
            **self.constant,
        )
        self.writer.save(self.start.offset + step, state, keep_forever=phase == 1 and step == last)

    def finish(self, outcome: Outcome, seconds: float) -> None:
        """Log the summary under NVIDIA's names; ``seconds`` is the time of the whole command."""
        self.run.logger.parameter(final_loss=outcome.final_loss)
        self.run.logger.summary(
            {
                "e2e_train_time": seconds,
                **metrics.end_metrics(outcome, self.ceiling, self.run.world.size),
                "raw_train_time": outcome.seconds,
            }
        )

    def _eval_batches(self, held_out: Dataset) -> Iterable[Batch]:
        world = self.run.world
        return eval_batches(held_out, self.run.settings.run.eval_batch_size, world.rank, world.size)
