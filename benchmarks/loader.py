"""Compare the shard loader with ``lddl.torch`` on the same Parquet shards with the same number of workers.

    scripts/lddl_env.sh /tmp/lddl loader
    python benchmarks/loader.py --lddl_python /tmp/lddl/bin/python --max_seq_length 512 --bin_size 64

Both read whole epochs from disk in turns (A B A B ...), after an untimed epoch each. This suite starts every epoch with
nothing decoded and no threads; lddl keeps its worker processes. The table shows medians and the median of the ratios
within a round. lddl yields padded tables, this suite token streams, as their models take them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lddl import check_python, clean_environment, describe_shards
from benchmarks.side_by_side import median_ratio, plural
from bert.config import flag, run_command
from bert.data.dataset import Dataset, LoaderConfig
from bert.data.formats.table import Shard, write_shard
from bert.data.loader import PretrainingLoader
from bert.data.masking import SPECIAL_TOKENS
from bert.errors import UsageError
from bert.ragged import offsets_of, rows_of
from bert.tokenization import BertTokenizer

WORDS = 30522


@dataclass
class LoaderBenchmarkConfig:
    max_seq_length: int = flag(128, "Tokens in a full sequence.", minimum=16)
    bin_size: int = flag(0, "Width of LDDL's bins of sequence lengths; 0 = no bins.", minimum=0)
    dynamic: bool = flag(False, "Shards without masks, so that both loaders mask while loading.")
    sequences: int = flag(40000, "Sequences in an epoch.", minimum=64)
    shards: int = flag(4, "Shards per bin; lddl needs a multiple of --num_workers.", minimum=1)
    batch_size: int = flag(64, "Sequences in a batch.", minimum=1)
    num_workers: int = flag(2, "Threads of this suite, and processes (per bin) of lddl.", minimum=0)
    rounds: int = flag(5, "Timed rounds; each loader reads one epoch per round.", minimum=1)
    vocab_file: str | None = flag(None, "Vocabulary; if omitted, random pieces.")
    lddl_python: str = flag(
        os.environ.get("LDDL_PYTHON", ""), "Python with lddl, as scripts/lddl_env.sh makes it; or set LDDL_PYTHON."
    )


def main(config: LoaderBenchmarkConfig) -> None:
    check_python(config.lddl_python)
    with tempfile.TemporaryDirectory() as folder:
        vocab_file = config.vocab_file or write_random_vocabulary(Path(folder, "vocab.txt"))
        tokenizer = BertTokenizer(vocab_file)
        write_shards(config, tokenizer, Path(folder, "shards"))
        request = {
            "input_dir": f"{folder}/shards",
            "vocab_file": str(vocab_file),
            "batch_size": config.batch_size,
            "num_workers": config.num_workers,
        }
        peer = Peer(config.lddl_python, request)
        try:
            turns = [(read_epoch(config, tokenizer, request), peer.read_epoch()) for _ in range(config.rounds + 1)][1:]
        finally:
            peer.close()
    report(config, turns)


def report(config: LoaderBenchmarkConfig, turns: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Print the settings and both speeds."""
    kind = describe_shards(not config.dynamic, config.bin_size)
    workers = f"{plural(config.num_workers, 'worker')}, {plural(config.rounds, 'round')}"
    print(f"up to {config.max_seq_length} tokens, {kind}, batches of {config.batch_size}, {workers}\n")
    print("| loader | sequences/s | real tokens/s |\n|---|---:|---:|")
    ours, theirs = zip(*turns, strict=True)
    for name, results in (("this suite", ours), ("lddl.torch", theirs)):
        tokens = statistics.median(result["tokens"] / result["seconds"] for result in results)
        print(f"| {name} | {statistics.median(map(speed, results)):,.0f} | {tokens:,.0f} |")
    ratio = median_ratio([speed(result) for result in ours], [speed(result) for result in theirs])
    print(f"\nthis suite is faster by {ratio:.2f} x (sequences/s)")


def speed(result: dict[str, Any]) -> float:
    return result["sequences"] / result["seconds"]


def read_epoch(config: LoaderBenchmarkConfig, tokenizer: BertTokenizer, request: dict[str, Any]) -> dict[str, Any]:
    """Read one epoch with this suite's loader, from counting the samples to joining the threads."""
    begin = time.perf_counter()
    loader_config = LoaderConfig(request["input_dir"], config.max_seq_length, config.max_seq_length)
    dataset = Dataset.open(loader_config, tokenizer.vocab)
    sequences = tokens = 0
    with PretrainingLoader(dataset, config.batch_size, seed=0, num_workers=config.num_workers) as loader:
        for (batch,) in loader:
            sequences += batch.num_sequences
            tokens += batch.num_tokens
            if sequences + config.batch_size > dataset.num_samples:
                break
    return {"sequences": sequences, "tokens": tokens, "seconds": time.perf_counter() - begin}


class Peer:
    """lddl in its own process, which reads an epoch on request."""

    def __init__(self, python: str, request: dict[str, Any]) -> None:
        self.request = json.dumps(request)
        script = Path(__file__).with_name("lddl_peer.py")
        self.process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
        )

    def read_epoch(self) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(self.request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise UsageError(f"{self.process.args[0]}: lddl exited with code {self.process.wait()}")  # type: ignore[index]
        return json.loads(answer)

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def write_random_vocabulary(path: Path) -> Path:
    """Write as many random pieces of 2 to 9 letters as BERT's English vocabulary has."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    pieces: dict[str, None] = dict.fromkeys(SPECIAL_TOKENS)
    while len(pieces) < WORDS:
        pieces["".join(rng.choice(letters, rng.integers(2, 10)))] = None
    path.write_text("\n".join(pieces) + "\n", encoding="utf8")
    return path


def write_shards(config: LoaderBenchmarkConfig, tokenizer: BertTokenizer, folder: Path) -> None:
    """Write shards as lddl expects them: in every bin the first shard has one more sequence than the others."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lengths = draw_lengths(config.sequences, config.max_seq_length, rng)
    bins = (lengths - 1) // config.bin_size if config.bin_size else np.zeros_like(lengths)
    for bin_id in np.unique(bins):
        mine = lengths[bins == bin_id]
        size = len(mine) // config.shards
        if size == 0:
            found = f"{len(mine)} sequences in bin {bin_id}"
            raise UsageError(f"--sequences {config.sequences}: {found}, expected at least --shards {config.shards}")
        for shard in range(config.shards):
            part = mine[shard * size : (shard + 1) * size]
            extra = part[:1] if shard == 0 else part[:0]
            suffix = f"_{bin_id}" if config.bin_size else ""
            data = random_shard(np.append(part, extra), tokenizer, not config.dynamic, rng)
            write_shard(
                folder / f"shard-{shard}.parquet{suffix}",
                data,
                config.max_seq_length,
                config.max_seq_length,
                tokenizer.vocab,
            )


def draw_lengths(count: int, longest: int, rng: np.random.Generator) -> np.ndarray:
    """Draw lengths: one in ten is short, as with ``short_seq_prob`` 0.1, and the others are nearly full."""
    short = rng.integers(8, longest + 1, count)
    full = longest - rng.integers(0, longest // 8, count)
    return np.where(rng.random(count) < 0.1, short, full)


def random_shard(lengths: np.ndarray, tokenizer: BertTokenizer, static: bool, rng: np.random.Generator) -> Shard:
    """Draw two segments of random lengths with pieces distributed by Zipf's law, as in text."""
    offsets = offsets_of(lengths)
    ordinary = np.array([i for piece, i in tokenizer.vocab.items() if piece not in SPECIAL_TOKENS])
    frequency = 1.0 / np.arange(10, len(ordinary) + 10)
    tokens = rng.choice(ordinary, offsets[-1], p=frequency / frequency.sum()).astype(np.int32)
    starts = rng.integers(3, lengths - 2).astype(np.int32)
    tokens[offsets[:-1]] = tokenizer.cls_id
    tokens[offsets[1:] - 1] = tokens[offsets[:-1] + starts - 1] = tokenizer.sep_id
    masks = {}
    if static:
        chosen = (rng.random(len(tokens)) < 0.15) & ~np.isin(tokens, [tokenizer.cls_id, tokenizer.sep_id])
        rows = rows_of(offsets)[chosen]
        masks = {
            "masked_positions": (np.flatnonzero(chosen) - offsets[rows]).astype(np.int32),
            "masked_labels": tokens[chosen],
            "masked_offsets": offsets_of(np.bincount(rows, minlength=len(lengths))),
        }
        tokens = np.where(chosen, tokenizer.mask_id, tokens).astype(np.int32)
    labels = rng.integers(0, 2, len(lengths)).astype(np.int8)
    return Shard(tokens, offsets, starts, labels, **masks)


if __name__ == "__main__":
    run_command(main, LoaderBenchmarkConfig)
