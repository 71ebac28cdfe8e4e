"""Compare BERT with adapters for several tasks with plain BERT: training steps and prediction, and their work.

    python benchmarks/multi_task.py                                             # a small model, for a CPU
    python benchmarks/multi_task.py --num_hidden_layers 12 --hidden_size 768 --bf16 --adapters none pals low_rank

Every contender gets the same random sequences, a batch with equally many of each task, sorted by task. The lengths are
about those of GLUE. "separate" runs one pass for each task instead of one for all. All take turns (A B C A B C ...), so
that a drift of the machine's speed affects all alike; the ratios are medians of those within a round. FLOPs count
matrix products on real tokens; embeddings, LayerNorm, activations and the optimizer count as nothing.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ours import our_trainer
from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns
from bert.batch import TaskBatch
from bert.config import flag, run_command
from bert.distributed import DistributedConfig, World, join_world
from bert.errors import UsageError
from bert.model.adapters.config import KEYS, AdapterConfig, build_adapter_config
from bert.model.bert import BertForMultiTask
from bert.model.config import BertConfig
from bert.model.objective import MultiTaskObjective
from bert.sequences import collate, from_rows
from bert.train.parallel import ParallelConfig
from bert.train.precision import Precision, PrecisionConfig
from bert.train.throughput import training_flops
from bert.train.trainer import Trainer

VOCABULARY = 30522
LENGTHS = (24, 0.65, 5, 128)  # median, spread of the logarithm, least and largest: their mean is about 30


@dataclass
class MultiTaskBenchmarkConfig:
    num_hidden_layers: int = flag(4, "Layers.", minimum=1)
    hidden_size: int = flag(256, "Width, a multiple of 64; heads are 64 wide.", minimum=64)
    adapters: list[str] | None = flag(
        None, "Kinds to compare with none, in the published sizes for this width. Default: all."
    )
    tasks: int = flag(8, "Tasks, each with its own adapter and classifier.", minimum=1)
    sequences: int = flag(8, "Sequences of each task in a batch.", minimum=1)
    rounds: int = flag(7, "Timed rounds; every contender has one turn in each.", minimum=1)
    steps: int = flag(1, "Steps per turn.", minimum=1)
    warmup: int = flag(2, "Untimed rounds before those, which include compilation.", minimum=1)
    attention: str = flag("auto", "Attention; auto = the fastest on the device.")
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


def main(config: MultiTaskBenchmarkConfig) -> None:
    kinds = ["none", *(kind for kind in config.adapters or KEYS if kind != "none")]
    if config.hidden_size % 64:
        raise UsageError(f"--hidden_size {config.hidden_size}: expected a multiple of 64")
    model_config = BertConfig(
        VOCABULARY,
        config.hidden_size,
        config.num_hidden_layers,
        config.hidden_size // 64,
        4 * config.hidden_size,
    )
    adapters = {kind: build_adapter_config(kind, config.hidden_size) for kind in kinds}
    with join_world(config.distributed) as world:
        together, separate = (draw_batches(config, world, mixed) for mixed in (True, False))
        contenders: dict[str, Callable[[], object]] = {}
        for kind, adapter in adapters.items():
            trainer = build_trainer(config, model_config, adapter, world)
            for name, batches in (("together", together), ("separate", separate)):
                contenders[f"train {name} {kind}"] = training_of(trainer, batches)
                contenders[f"predict {name} {kind}"] = prediction_of(trainer, batches)
        take_turns(contenders, config.warmup, world.device, config.steps)
        seconds = take_turns(contenders, config.rounds, world.device, config.steps)
        print(
            f"{config.num_hidden_layers} layers x {config.hidden_size} on {describe_device(world.device)}, "
            f"{Precision(config.precision, world.device).name}; {plural(config.rounds, 'round')}\n"
            f"{plural(config.tasks, 'task')}, {together[0].num_sequences} sequences of "
            f"{together[0].num_tokens / together[0].num_sequences:.0f} tokens on average\n"
        )
    print_table(model_config, adapters, together[0], seconds)


def draw_batches(config: MultiTaskBenchmarkConfig, world: World, mixed: bool) -> list[TaskBatch]:
    """Draw the same sequences as one batch, or as one for each task."""
    draw = np.random.default_rng(0)
    count, (median, spread, least, largest) = config.tasks * config.sequences, LENGTHS
    lengths = np.exp(draw.normal(np.log(median), spread, count)).clip(least, largest).astype(int)
    tasks = np.arange(count) // config.sequences
    labels = {"task": tasks, "label": draw.integers(0, 2, count).astype(np.float32)}
    rows = [draw.integers(0, VOCABULARY, length).tolist() for length in lengths]
    sequences = from_rows(rows, (lengths // 2).tolist(), labels)
    chosen = np.arange(count).reshape(1 if mixed else config.tasks, -1)
    return [collate(sequences, each).to(world.device) for each in chosen]


# --- Contenders


def build_trainer(
    config: MultiTaskBenchmarkConfig, model_config: BertConfig, adapter: AdapterConfig, world: World
) -> Trainer:
    """Return a trainer with AdamW."""
    torch.manual_seed(0)
    each = None if adapter.kind == "none" else adapter
    model = BertForMultiTask(model_config, [2] * config.tasks, config.attention, [each] * config.tasks)
    return our_trainer(MultiTaskObjective(model), world, config.precision, config.parallel)


def training_of(trainer: Trainer, batches: list[TaskBatch]) -> Callable[[], object]:
    """Return an optimizer step over ``batches``."""

    def step() -> None:
        trainer.train_step(batches, lambda: False)
        trainer.apply()

    return step


def prediction_of(trainer: Trainer, batches: list[TaskBatch]) -> Callable[[], object]:
    """Return a pass without gradients over ``batches``."""
    objective: Any = trainer.objective

    @torch.no_grad()
    def step() -> None:
        objective.eval()
        with trainer.precision.autocast():
            for batch in batches:
                objective.predict(batch)
        objective.train()

    return step


# --- Work


def forward_flops(config: BertConfig, adapter: AdapterConfig, batch: TaskBatch) -> float:
    """Return the floating-point operations of a pass, a multiply-add as two, with the adapter's for every token."""
    squares = int(batch.cu_seqlens.diff().long().square().sum())
    plain = training_flops(config, batch.num_tokens, squares, 0, batch.num_sequences) / 3
    hidden, size, layers = config.hidden_size, adapter.size, config.num_hidden_layers
    bottleneck, attention = 4 * hidden * size, 4 * size * squares
    per_token, elsewhere = {
        "pals": (layers * (bottleneck + 6 * size**2), layers * attention),
        "low_rank": (layers * bottleneck, 0),
        "top_attn": (bottleneck + 6 * 8 * size**2, 6 * attention),
        "top_bert_layer": (8 * hidden**2 + 4 * hidden * config.intermediate_size, 4 * hidden * squares),
        "houlsby": (layers * 2 * bottleneck, 0),
        "houlsby_plus_pals": (
            layers * (4 * hidden * adapter.extra_size + bottleneck + 6 * size**2),
            layers * attention,
        ),
    }.get(adapter.kind, (0, 0))
    return plain + per_token * batch.num_tokens + elsewhere


def print_table(
    config: BertConfig, adapters: dict[str, AdapterConfig], batch: TaskBatch, seconds: dict[str, list[float]]
) -> None:
    work = {kind: forward_flops(config, adapter, batch) for kind, adapter in adapters.items()}
    print("| adapter | FLOPs | training, ms | to none | prediction, ms | to none | separate: training | prediction |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for kind in adapters:
        cells = [f"{work[kind] / work['none']:.2f} x"]
        for what in ("train", "predict"):
            times, plain = seconds[f"{what} together {kind}"], seconds[f"{what} together none"]
            cells += [f"{statistics.median(times) * 1e3:,.1f}", f"{median_ratio(times, plain):.2f} x"]
        for what in ("train", "predict"):
            times = seconds[f"{what} separate {kind}"]
            cells.append(f"{median_ratio(times, seconds[f'{what} together {kind}']):.2f} x")
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_command(main, MultiTaskBenchmarkConfig)
