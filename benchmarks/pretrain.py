"""Compare a pre-training step with that of transformers' BertForPreTraining on the same sequences.

    python benchmarks/pretrain.py --bf16 --compile on
    python benchmarks/pretrain.py --bf16 --compile on --preset large --sequences 256 --peers none    # on a GPU
    python benchmarks/pretrain.py --bf16 --compile on --preset large --sequences 64 --accumulation 16 --peers none

All contenders get the same random sequences and compute forward, backward and the same AdamW step. They run in turns
(A B C A B C ...), so that a drift of the machine's speed affects all of them alike. A turn is one step on a CPU and
several steps, queued as in training, on a GPU, to which every contender copies its batches from page-locked memory. The
table shows medians, the median of the ratios within a round, and the share of the ceiling, the speed of a large matrix
product in the same run. Only real tokens and masked positions count as work; computing on padding does not.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor, nn

from benchmarks.ours import PRESETS, fed, measure_ceiling, our_trainer, train
from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns, write_json
from bert.batch import Batch
from bert.config import flag, run_command
from bert.distributed import DistributedConfig, join_world
from bert.errors import UsageError
from bert.model.bert import BertForPreTraining
from bert.model.config import BertConfig
from bert.model.objective import PreTrainingObjective
from bert.train.parallel import ParallelConfig
from bert.train.precision import Precision, PrecisionConfig
from bert.train.throughput import flops_of_batches
from bert.train.trainer import Trainer

# MLPerf's mix, of 512: the share of full sequences and the shortest. The density of the others falls linearly to 0 at
# 512, which gives the published mean of 254.5 and, for BERT-large, 497 GFLOP a sequence.
FULL, SHORTEST = 0.235, 7
PEERS = {"best": "transformers, at its best", "eager": "transformers, eager fp32"}


@dataclass
class BenchmarkConfig:
    preset: str = flag("small", "Model size: small (4 layers x 512), base or large.", choices=tuple(PRESETS))
    max_seq_length: int = flag(128, "Tokens in a full sequence.", minimum=8)
    sequences: int = flag(32, "Sequences per micro-batch.", minimum=1)
    accumulation: int = flag(
        1,
        "Micro-batches per step. Above 1 a further contender takes the step in as few micro-batches as memory allows.",
        minimum=1,
    )
    lengths: str = flag(
        "full",
        "Lengths of the sequences: full (--max_seq_length but for --short_fraction) or mlperf (half of the tokens of a "
        "padded batch: 254.5 of 512 on average, as in MLPerf's Wikipedia).",
        choices=("full", "mlperf"),
    )
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
    json: str | None = flag(None, "Also write the results to this JSON file.")
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


# --- Data


def draw_lengths(config: BenchmarkConfig) -> Tensor:
    """Return the lengths of a step's sequences, sorted."""
    full, count = config.max_seq_length, config.sequences * config.accumulation
    if config.lengths == "mlperf":
        others = (1 - (torch.arange(count) + 0.5) / (count * (1 - FULL))).clamp(min=0)
        return (full * (1 - (1 - SHORTEST / 512) * others.sqrt())).round().long().clamp(min=1)
    draw = torch.Generator().manual_seed(0)
    short = torch.rand(count, generator=draw) < config.short_fraction
    drawn = torch.randint(full // 8, full, (count,), generator=draw)
    return torch.where(short, drawn, full).sort().values


def random_batch(lengths: Tensor, masked_fraction: float, vocab_size: int) -> Batch:
    """Draw sequences of these lengths, sorted as the loader sorts them."""
    draw = torch.Generator().manual_seed(0)
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    masked = [
        start + torch.randperm(length, generator=draw)[: max(1, round(length * masked_fraction))].sort().values
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
        next_sentence_labels=torch.randint(2, (len(lengths),), generator=draw),
    )


def micro_batches(config: BenchmarkConfig, parts: int, vocab_size: int, device: torch.device) -> list[Batch]:
    """Return a step's sequences as ``parts`` micro-batches of near-equal size."""
    lengths = draw_lengths(config)
    drawn = [random_batch(lengths[part::parts], config.masked_fraction, vocab_size) for part in range(parts)]
    return [fed(batch, device) for batch in drawn]


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


# --- Contenders


def fewest_micro_batches(config: BenchmarkConfig, trainer: Trainer, vocab_size: int) -> list[Batch] | None:
    """Return a step in as few micro-batches as the device has memory for; None if that is --accumulation."""
    for parts in (each for each in range(1, config.accumulation) if config.accumulation % each == 0):
        batches = micro_batches(config, parts, vocab_size, trainer.world.device)
        try:
            train(trainer, [batches])
            return batches
        except torch.cuda.OutOfMemoryError:
            trainer.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()  # outside: the error keeps what it was raised from alive
    return None


def peer_steps(
    config: BenchmarkConfig, model_config: BertConfig, batches: Sequence[Batch], device: torch.device, best: bool
) -> Callable[[int], None]:
    """Return transformers' steps: at its best (this run's precision, compiled, fused AdamW) or in eager fp32."""
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"--peers {config.peers}: transformers is not installed (pip install transformers)") from error
    torch.manual_seed(0)
    model: Any = transformers.BertForPreTraining(transformers.BertConfig(**model_config.to_dict()))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=best or None)
    precision = Precision(config.precision if best else PrecisionConfig(), device)
    forward = torch.compile(model) if best and config.parallel.compile != "off" else model
    padded = [pad(batch) for batch in batches]
    if device.type == "cuda":
        padded = [{name: value.pin_memory() for name, value in inputs.items()} for inputs in padded]

    def steps(count: int) -> None:
        for _ in range(count):
            for inputs in padded:
                on_device = {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
                with precision.autocast():
                    loss = forward(**on_device).loss / len(padded)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


def host_seconds(trainer: Trainer, batches: list[Batch]) -> float:
    """Return the time that the host needs to queue a step on an idle GPU."""
    taken = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        trainer.train_step(batches, lambda: False)
        trainer.queue_update()
        taken.append(time.perf_counter() - start)
        trainer.settle()
    return statistics.median(taken)


def main(config: BenchmarkConfig) -> None:
    peers = [] if config.peers == "none" else config.peers.split(",")
    if set(peers) - PEERS.keys():
        raise UsageError(f"--peers {config.peers}: expected best, eager, best,eager or none")
    model_config = BertConfig(vocab_size=30522, **PRESETS[config.preset])
    model_config.hidden_dropout_prob = model_config.attention_probs_dropout_prob = config.dropout
    model_config.max_position_embeddings = max(512, config.max_seq_length)
    with join_world(config.distributed) as world:
        vocab_size, device = model_config.vocab_size, world.device
        batches = micro_batches(config, config.accumulation, vocab_size, device)
        torch.manual_seed(0)
        objective = PreTrainingObjective(BertForPreTraining(model_config, config.attention))
        trainer = our_trainer(objective, world, config.precision, config.parallel, config.optimizer)
        contenders: dict[str, Callable[[int], Any]] = {"this suite": lambda count: train(trainer, [batches] * count)}
        if few := fewest_micro_batches(config, trainer, vocab_size):
            name = f"this suite, {len(few)} x {few[0].num_sequences} sequences"
            contenders[name] = lambda count: train(trainer, [few] * count)
        for peer in peers:
            contenders[PEERS[peer]] = peer_steps(config, model_config, batches, device, best=peer == "best")
        steps = config.steps or (10 if device.type == "cuda" else 1)
        turns = {name: lambda run=run: run(steps) for name, run in contenders.items()}
        take_turns(turns, config.warmup, device)
        turned = take_turns(turns, config.rounds, device)
        seconds = {name: [each / steps for each in times] for name, times in turned.items()}
        host = host_seconds(trainer, batches) if device.type == "cuda" else None
        ceiling = measure_ceiling(device, trainer.precision.dtype)
        rounds = f"{plural(config.rounds, 'round')}, {plural(steps, 'step')} per turn"
        where = f"{describe_device(device)}, {trainer.precision.name}; {rounds}"
        rows = rows_of(model_config, batches, seconds, ceiling)
        print_table(config, batches, rows, ceiling, where)
        if host is not None:
            print(f"\nthe host queues a step of this suite in {host * 1e3:.1f} ms")
            rows[0]["host_milliseconds"] = host * 1e3
        write_json(config.json, device, rows)


def rows_of(
    model_config: BertConfig, batches: Sequence[Batch], seconds: dict[str, list[float]], ceiling: float
) -> list[dict[str, Any]]:
    """Return the table's rows; ``seconds`` are those per step of each round."""
    flops = flops_of_batches(dataclasses.replace(model_config, vocab_size=model_config.padded_vocab_size))
    work, ours = sum(map(flops, batches)), seconds["this suite"]
    return [
        {
            "contender": name,
            "milliseconds": statistics.median(times) * 1e3,
            "sequences_per_second": sum(batch.num_sequences for batch in batches) / statistics.median(times),
            "tokens_per_second": sum(batch.num_tokens for batch in batches) / statistics.median(times),
            "of_ceiling": work / statistics.median(times) / ceiling,
            "faster": median_ratio(times, ours),
        }
        for name, times in seconds.items()
    ]


def print_table(
    config: BenchmarkConfig, batches: Sequence[Batch], rows: Sequence[dict[str, Any]], ceiling: float, where: str
) -> None:
    tokens, padded = sum(b.num_tokens for b in batches), sum(b.num_sequences * b.max_seqlen for b in batches)
    masked = sum(len(batch.masked_labels) for batch in batches)
    print(
        f"{config.preset} on {where}\n"
        f"{len(batches)} x {config.sequences} sequences, {tokens} real tokens ({tokens / padded:.0%} of the padded "
        f"batch), {masked} masked, dropout {config.dropout}\n"
        f"ceiling: {ceiling / 1e9:,.0f} GFLOP/s (a large matrix product in this run)\n"
    )
    print("| contender | ms per step | sequences/s | real tokens/s | of the ceiling | this suite is faster by |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            "| {contender} | {milliseconds:,.1f} | {sequences_per_second:,.1f} | {tokens_per_second:,.0f} | "
            "{of_ceiling:.1%} | {faster:.2f} x |".format(**row)
        )


if __name__ == "__main__":
    run_command(main, BenchmarkConfig)
