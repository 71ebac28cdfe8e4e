"""Compare training, prediction and preparing questions on SQuAD with transformers.

    python benchmarks/squad.py --bf16 --compile on
    python benchmarks/squad.py --bf16 --compile on --preset base --batch_size 32 --peers example,sorted,unpadded

transformers runs as in its example run_qa.py (inputs padded to --max_seq_length, SDPA attention, fused AdamW) or better
(--peers). This suite trains and predicts on the same windows without padding. All contenders have the same questions,
model size, number format and dropout, and run in turns (A B C A B C ...). A turn of the training takes some batches
that lie in page-locked memory where there is a GPU, and a turn of the prediction pads or packs the windows itself; no
side waits for a step. The table shows medians, the median of the ratios within a round, and the share of the ceiling,
the speed of a large matrix product in the same run; only real tokens count as work. Without --file the questions are
about an invented encyclopedia, with contexts of 150 words on average.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ours import PRESETS, fed, measure_ceiling, our_trainer, train
from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns, write_json
from benchmarks.squad_data import VOCABULARY, train_words, write_questions
from benchmarks.squad_peer import PEERS, Peer, check_stride, convert, missing, peer_tokenizer
from bert.config import flag, run_command
from bert.distributed import DistributedConfig, World, join_world
from bert.errors import UsageError
from bert.finetune.predict import batches_of, predict
from bert.model.bert import BertForQuestionAnswering
from bert.model.config import BertConfig
from bert.model.objective import QuestionAnsweringObjective
from bert.sequences import Sequences, collate, from_rows
from bert.squad.examples import read_squad_examples
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.tokenization import BertTokenizer
from bert.train.parallel import ParallelConfig, missing_compiler
from bert.train.precision import Precision, PrecisionConfig
from bert.train.throughput import training_flops
from bert.train.trainer import Trainer

GROUP = 50  # batches whose windows are sorted together, as transformers' group_by_length does
PER_TURN = {"cpu": (4, 8), "cuda": (10, 32)}  # batches of the training and of the prediction


@dataclass
class SquadBenchmarkConfig:
    preset: str = flag("small", "Model size: small (4 layers x 512), base or large.", choices=tuple(PRESETS))
    batch_size: int = flag(8, "Windows per training step and per batch of the prediction.", minimum=1)
    steps: int = flag(0, "Training steps per turn; 0 = 4 on a CPU, 10 on a GPU.", minimum=0, maximum=GROUP)
    predict_windows: int = flag(0, "Windows per turn of the prediction; 0 = 8 batches, on a GPU 32.", minimum=0)
    peers: str = flag(
        "example,sorted",
        "Contenders from transformers, separated by commas: example (as in run_qa.py), sorted (by length, padded to a "
        "batch's longest, compiled), unpadded (sorted, FlashAttention 2), eager (fp32, padded); or none.",
    )
    file: str | None = flag(
        None, "Training questions in SQuAD 1.1's format, such as train-v1.1.json; if omitted, generated."
    )
    vocab_file: str | None = flag(None, "Uncased WordPiece vocabulary; if omitted, one is trained on the questions.")
    articles: int = flag(3000, "Articles of the invented encyclopedia, without --file.", minimum=300)
    rounds: int = flag(7, "Timed rounds; each contender has one turn in each.", minimum=1)
    warmup: int = flag(2, "Untimed rounds before those, which include compilation.", minimum=1)
    attention: str = flag("auto", "Attention of this suite; auto = the fastest on the device.")
    max_seq_length: int = flag(384, "Maximum input in pieces: a question and a window of its context.", minimum=32)
    doc_stride: int = flag(
        128,
        "Pieces from the start of one window to that of the next; for transformers, pieces that two windows share.",
        minimum=1,
    )
    max_query_length: int = flag(64, "Maximum question in pieces; transformers does not cut questions.", minimum=1)
    json: str | None = flag(None, "Also write the results to this JSON file.")
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


@dataclass
class Work:
    """What a contender does in a turn."""

    name: str
    lengths: NDArray[np.int64]  # of its windows
    of_training: float  # its operations, as a share of those of a training step on them
    turns: dict[str, Callable[[], Any]]  # contender -> a turn
    computed: dict[str, int]  # contender -> tokens that it computes, padding included


def main(config: SquadBenchmarkConfig) -> None:
    peers = [] if config.peers == "none" else config.peers.split(",")
    if unknown := set(peers) - PEERS.keys():
        raise UsageError(f"--peers {','.join(sorted(unknown))}: expected any of {', '.join(PEERS)}, or none")
    with tempfile.TemporaryDirectory() as folder, join_world(config.distributed) as world:
        precision = Precision(config.precision, world.device)
        for name, lacks in [(peer, missing(peer, precision)) for peer in peers]:
            if lacks:
                print(f"--peers {name}: skipped, since {lacks}")
                peers.remove(name)
        file = config.file or write_questions(Path(folder), config.articles)
        vocab_file = str(Path(folder) / "vocab.txt")  # the file name that transformers expects
        if config.vocab_file is None:
            train_words(Path(folder), file, vocab_file)
        else:
            BertTokenizer(config.vocab_file)  # raises UsageError
            shutil.copyfile(config.vocab_file, vocab_file)
        sequences, preparing = compare_preparing(config, file, vocab_file, world, bool(peers))
        rows = compare_model(config, sequences, vocab_file, world, peers)
    mean, full = sequences.lengths.mean(), config.max_seq_length
    print(
        f"{config.preset} on {describe_device(world.device)}; "
        f"{precision.name}, this suite with --compile {config.parallel.compile}\n"
        f"{len(sequences):,} windows of {mean:.0f} tokens on average ({mean / full:.0%} of {full}), batches of "
        f"{config.batch_size}, {plural(config.rounds, 'round')}\n"
    )
    print_table(rows)
    print(f"\n{preparing}")
    write_json(config.json, world.device, rows)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("| work | contender | windows/s | real tokens/s | of the ceiling | padding | this suite is faster by |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            "| {work} | {contender} | {sequences_per_second:,.1f} | {tokens_per_second:,.0f} | {of_ceiling:.1%} | "
            "{padding:.0%} | {faster:.2f} x |".format(**row)
        )


# --- Preparing


def compare_preparing(
    config: SquadBenchmarkConfig, file: str, vocab_file: str, world: World, with_peer: bool
) -> tuple[Sequences, str]:
    """Convert the file to windows with labels, in turns with transformers: (this suite's windows, a line of result)."""
    tokenizer = BertTokenizer(vocab_file)
    examples = read_squad_examples(file, is_training=True, version_2_with_negative=False)

    def ours() -> Sequences:
        read = read_squad_examples(file, is_training=True, version_2_with_negative=False)
        lengths = (config.max_seq_length, config.doc_stride, config.max_query_length)
        return features_to_sequences(convert_examples_to_features(read, tokenizer, *lengths, is_training=True))

    contenders: dict[str, Callable[[], Any]] = {"this suite": ours}
    if with_peer:
        peer = peer_tokenizer(vocab_file, do_lower_case=True)
        check_stride(file, peer, config.max_seq_length, config.doc_stride)
        contenders["transformers"] = lambda: convert(file, peer, config.max_seq_length, config.doc_stride)
    take_turns(contenders, config.warmup, world.device)
    seconds = take_turns(contenders, config.rounds, world.device)
    rates = [f"{name} {len(examples) / statistics.median(times):,.0f}" for name, times in seconds.items()]
    ratio = median_ratio(seconds["transformers"], seconds["this suite"]) if with_peer else 1.0
    faster = f"; this suite is faster by {ratio:.2f} x" if with_peer else ""
    return ours(), f"preparing, questions/s: {', '.join(rates)}{faster}"


# --- Model


def compare_model(
    config: SquadBenchmarkConfig, sequences: Sequences, vocab_file: str, world: World, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Compare training and prediction; return the rows of the table."""
    size = max(VOCABULARY, BertTokenizer(vocab_file).vocab_size)
    model_config = BertConfig(vocab_size=size, **PRESETS[config.preset])
    model_config.max_position_embeddings = max(512, config.max_seq_length)
    compiled = config.parallel.compile != "off" and missing_compiler(world.device) is None
    torch.manual_seed(0)
    objective = QuestionAnsweringObjective(BertForQuestionAnswering(model_config, config.attention))
    trainer = our_trainer(objective, world, config.precision, config.parallel)
    peers = [Peer(name, model_config, config.precision, world.device, compiled) for name in names]
    ceiling = measure_ceiling(world.device, trainer.precision.dtype)
    return [
        row
        for work in (training(config, sequences, trainer, peers), prediction(config, sequences, trainer, peers))
        for row in measure(config, work, world.device, model_config, ceiling)
    ]


def training(config: SquadBenchmarkConfig, sequences: Sequences, trainer: Trainer, peers: Sequence[Peer]) -> Work:
    """Return the same windows for all: sorted into batches for a peer that sorts, otherwise at random."""
    device = trainer.world.device
    grouped = grouped_batches(sequences, config.batch_size, config.steps or PER_TURN[device.type][0])
    shuffled = np.random.default_rng(1).permutation(grouped.ravel()).reshape(grouped.shape)
    by_length = [chosen[np.argsort(sequences.lengths[chosen], kind="stable")] for chosen in shuffled]
    steps = [[fed(collate(sequences, chosen), device)] for chosen in by_length]  # as TaskLoader serves them
    turns: dict[str, Callable[[], Any]] = {"this suite": lambda: train(trainer, steps)}
    computed = {"this suite": sum(batch.num_tokens for (batch,) in steps)}
    for peer in peers:
        order = grouped if peer.style.sorted else shuffled
        inputs = list(peer.padded([collate(sequences, chosen) for chosen in order], config.max_seq_length))
        turns[peer.style.title] = lambda peer=peer, inputs=inputs: peer.train(inputs)
        computed[peer.style.title] = sum(each["input_ids"].numel() for each in inputs)
    return Work("training", sequences.lengths[grouped.ravel()], 1.0, turns, computed)


def prediction(config: SquadBenchmarkConfig, sequences: Sequences, trainer: Trainer, peers: Sequence[Peer]) -> Work:
    """Return the first windows, in batches by length for a peer that sorts and for this suite, otherwise in order."""
    count, objective = config.batch_size, trainer.objective
    chosen = first(sequences, config.predict_windows or PER_TURN[trainer.world.device.type][1] * count)
    everything = np.arange(len(chosen))
    in_order = np.array_split(everything, range(count, len(chosen), count))
    turns: dict[str, Callable[[], Any]] = {
        "this suite": lambda: predict(objective, chosen, count, trainer.precision, trainer.world)  # pyright: ignore[reportArgumentType]
    }
    computed = {"this suite": int(chosen.lengths.sum())}
    for peer in peers:
        groups = batches_of(chosen, count) if peer.style.sorted else in_order
        streams = [collate(chosen, group) for group in groups]
        turns[peer.style.title] = lambda peer=peer, streams=streams: peer.predict(streams, config.max_seq_length)
        inputs = peer.padded(streams, config.max_seq_length)
        computed[peer.style.title] = sum(each["input_ids"].numel() for each in inputs)
    return Work("prediction", chosen.lengths, 1 / 3, turns, computed)


def grouped_batches(sequences: Sequences, count: int, steps: int) -> NDArray[np.int64]:
    """Return ``steps`` batches of near-equal lengths: those evenly spaced among ``GROUP`` that were sorted together."""
    drawn = np.resize(np.random.default_rng(0).permutation(len(sequences)), GROUP * count)
    ordered = drawn[np.argsort(-sequences.lengths[drawn], kind="stable")].reshape(GROUP, count)
    return ordered[(2 * np.arange(steps) + 1) * GROUP // (2 * steps)]


def measure(
    config: SquadBenchmarkConfig, work: Work, device: torch.device, model_config: BertConfig, ceiling: float
) -> list[dict[str, Any]]:
    """Time the contenders and return their rows."""
    take_turns(work.turns, config.warmup, device)
    seconds = take_turns(work.turns, config.rounds, device)
    windows, tokens, squares = len(work.lengths), int(work.lengths.sum()), int((work.lengths**2).sum())
    flops = training_flops(model_config, tokens, squares, predictions=0, sequences=0) * work.of_training
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append(
            {
                "work": work.name,
                "contender": name,
                "sequences_per_second": windows / median,
                "tokens_per_second": tokens / median,
                "of_ceiling": flops / median / ceiling,
                "padding": 1 - tokens / work.computed[name],
                "faster": median_ratio(times, seconds["this suite"]),
            }
        )
    return rows


def first(sequences: Sequences, count: int) -> Sequences:
    """Return the first ``count`` sequences, without their labels."""
    bounds = sequences.offsets[: count + 1]
    rows = [sequences.tokens[a:b].tolist() for a, b in pairwise(bounds)]
    return from_rows(rows, sequences.segment_starts[:count].tolist())


if __name__ == "__main__":
    run_command(main, SquadBenchmarkConfig)
