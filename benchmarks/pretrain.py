"""Compare a pre-training step with that of transformers' BertForPreTraining on the same sequences.

    python benchmarks/pretrain.py --bf16 --compile on
    python benchmarks/pretrain.py --bf16 --compile on --preset large --sequences 256 --peers none    # on a GPU

All contenders get the same random sequences and compute forward, backward and the same AdamW step. They run in turns
(A B C A B C ...), so that a drift of the machine's speed affects all of them alike. A turn is one step on a CPU and
several steps, queued as in training, on a GPU. The table shows medians, the median of the ratios within a round, and
the share of the ceiling, the speed of a large matrix product in the same run. Only real tokens and masked positions
count as work; computing on padding does not.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import nn

from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns
from bert.batch import Batch
from bert.config import flag, run_command
from bert.distributed import DistributedConfig, StopSignal, World, join_world
from bert.errors import UsageError
from bert.finetune.training import RunConfig, TrainingConfig
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.train.parallel import ParallelConfig, apply_parallelism, resolve_compile
from bert.train.precision import Precision, PrecisionConfig
from bert.train.run import build_run
from bert.train.throughput import measure_peak, training_flops
from bert.train.trainer import Trainer

PRESETS: dict[str, Any] = {
    "small": {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
}


@dataclass
class BenchmarkConfig:
    preset: str = flag("small", "Model size: small (4 layers x 512), base or large.", choices=tuple(PRESETS))
    max_seq_length: int = flag(128, "Tokens in a full sequence.", minimum=8)
    sequences: int = flag(32, "Sequences per step.", minimum=1)
    short_fraction: float = flag(
        0.15, "Share of shorter sequences, with evenly distributed lengths.", minimum=0, maximum=1
    )
    masked_fraction: float = flag(0.15, "Share of masked tokens in a sequence.", minimum=0, maximum=1)
    dropout: float = flag(0.1, "Dropout of hidden states and attention; 0 = none.", minimum=0, maximum=0.99)
    optimizer: str = flag(
        "adamw", "Optimizer of this suite: adamw, like transformers, or lamb.", choices=("adamw", "lamb")
    )
    rounds: int = flag(7, "Timed rounds; every contender has one turn in each.", minimum=1)
    steps: int = flag(0, "Steps per turn; 0 = 1 on a CPU, 10 on a GPU.", minimum=0)
    warmup: int = flag(3, "Untimed rounds before those, which include compilation.", minimum=1)
    peers: str = flag(
        "best,eager",
        "Contenders from transformers: best (same precision, compiled), eager (fp32), both with a comma, or none.",
    )
    attention: str = flag("auto", "Attention of this suite; auto = the fastest on the device.")
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


def random_batch(config: BenchmarkConfig, vocab_size: int) -> Batch:
    """Draw sequences of different lengths, sorted by length as the loader sorts them."""
    draw = torch.Generator().manual_seed(0)
    full, count = config.max_seq_length, config.sequences
    short = torch.rand(count, generator=draw) < config.short_fraction
    drawn = torch.randint(full // 8, full, (count,), generator=draw)
    lengths = torch.where(short, drawn, full).sort().values
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    masked = [
        start + torch.randperm(length, generator=draw)[: max(1, round(length * config.masked_fraction))].sort().values
        for start, length in zip(cu_seqlens.tolist(), lengths.tolist(), strict=False)
    ]
    tokens, positions = int(lengths.sum()), torch.cat(masked)
    return Batch(
        input_ids=torch.randint(vocab_size, (tokens,), generator=draw),
        token_type_ids=torch.randint(2, (tokens,), generator=draw),
        cu_seqlens=cu_seqlens.int(),
        max_seqlen=int(lengths.max()),
        masked_positions=positions,
        masked_labels=torch.randint(vocab_size, (len(positions),), generator=draw),
        next_sentence_labels=torch.randint(2, (count,), generator=draw),
    )


def pad(batch: Batch) -> dict[str, torch.Tensor]:
    """Convert the sequences to transformers' format, padded to the longest."""
    lengths = batch.cu_seqlens.diff().tolist()
    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.masked_positions] = batch.masked_labels

    def rows(values: torch.Tensor, fill: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence(list(values.split(lengths)), batch_first=True, padding_value=fill)

    return {
        "input_ids": rows(batch.input_ids, 0),
        "token_type_ids": rows(batch.token_type_ids, 0),
        "attention_mask": rows(torch.ones_like(batch.input_ids), 0),
        "labels": rows(labels, -100),
        "next_sentence_label": batch.next_sentence_labels,
    }


def our_step(config: BenchmarkConfig, model_config: BertConfig, batch: Batch, world: World) -> Callable[[], None]:
    """Return this suite's step, which uses its own trainer."""
    torch.manual_seed(0)
    settings = TrainingConfig(RunConfig(output_dir="", seed=0), precision=config.precision, parallel=config.parallel)
    run = build_run(settings, world, StopSignal())
    model = BertForPreTraining(model_config, config.attention).to(world.device)
    compiled = resolve_compile(config.parallel, world.device, flops=0, notice=print)
    layers = model.bert.encoder.layer
    objective = apply_parallelism(PreTrainingObjective(model), layers, config.parallel, world, compiled)
    optimizer = build_optimizer(OptimizerConfig(optimizer=config.optimizer), model)
    trainer = Trainer(run, objective, optimizer, lambda step: 1e-4)

    resident, queued = batch.to(world.device), False  # copying from memory that is not pinned would wait for the device

    def step() -> None:
        nonlocal queued
        trainer.train_step([resident], lambda: False)
        if queued:
            trainer.settle()
        trainer.queue_update()
        queued = True

    return step


def peer_step(
    config: BenchmarkConfig, model_config: BertConfig, batch: Batch, device: torch.device, best: bool
) -> Callable[[], None]:
    """Return transformers' step: at its best (this run's precision, compiled, fused AdamW) or in eager fp32."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"--peers {config.peers}: transformers is not installed (pip install transformers)") from error
    torch.manual_seed(0)
    model: Any = transformers.BertForPreTraining(transformers.BertConfig(**model_config.to_dict()))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=best or None)
    precision = Precision(config.precision if best else PrecisionConfig(), device)
    forward = torch.compile(model) if best and config.parallel.compile != "off" else model
    inputs = {name: value.to(device) for name, value in pad(batch).items()}

    def step() -> None:
        with precision.autocast():
            loss = forward(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(config: BenchmarkConfig) -> None:
    peers = [] if config.peers == "none" else config.peers.split(",")
    unknown = set(peers) - {"best", "eager"}
    if unknown:
        raise UsageError(f"--peers {config.peers}: expected best, eager, best,eager or none")
    model_config = BertConfig(vocab_size=30522, **PRESETS[config.preset])
    model_config.hidden_dropout_prob = model_config.attention_probs_dropout_prob = config.dropout
    model_config.max_position_embeddings = max(512, config.max_seq_length)
    batch = random_batch(config, model_config.vocab_size)
    with join_world(config.distributed) as world:
        contenders = {"this suite": our_step(config, model_config, batch, world)}
        for peer in peers:
            step = peer_step(config, model_config, batch, world.device, best=peer == "best")
            contenders[f"transformers, {'at its best' if peer == 'best' else 'eager fp32'}"] = step
        steps = config.steps or (10 if world.device.type == "cuda" else 1)
        take_turns(contenders, config.warmup, world.device, steps)
        seconds = take_turns(contenders, config.rounds, world.device, steps)
        dtype = Precision(config.precision, world.device).dtype
        ceiling = measure_peak(world.device, dtype, size=2048 if world.device.type == "cpu" else None)
        rounds = f"{plural(config.rounds, 'round')}, {plural(steps, 'step')} per turn"
        print_table(config, model_config, batch, seconds, ceiling, f"{describe_device(world.device)}; {rounds}")


def print_table(
    config: BenchmarkConfig,
    model_config: BertConfig,
    batch: Batch,
    seconds: dict[str, list[float]],
    ceiling: float,
    where: str,
) -> None:
    lengths = batch.cu_seqlens.diff().long()
    size = dataclasses.replace(model_config, vocab_size=model_config.padded_vocab_size)
    predictions = len(batch.masked_labels)
    flops = training_flops(size, batch.num_tokens, int(lengths.square().sum()), predictions, batch.num_sequences)
    real = batch.num_tokens / (batch.num_sequences * batch.max_seqlen)
    print(
        f"{config.preset} on {where}\n"
        f"{batch.num_sequences} sequences, {batch.num_tokens} real tokens ({real:.0%} of the padded batch), "
        f"{predictions} masked, dropout {config.dropout}\n"
        f"ceiling: {ceiling / 1e9:,.0f} GFLOP/s (a large matrix product in this run)\n"
    )
    print("| contender | ms per step | sequences/s | real tokens/s | of the ceiling | this suite is faster by |")
    print("|---|---:|---:|---:|---:|---:|")
    ours = seconds["this suite"]
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"| {name} | {median * 1e3:,.1f} | {batch.num_sequences / median:,.1f} | {batch.num_tokens / median:,.0f} "
            f"| {flops / median / ceiling:.1%} | {median_ratio(times, ours):.2f} x |"
        )


if __name__ == "__main__":
    run_command(main, BenchmarkConfig)
