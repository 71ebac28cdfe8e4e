"""Lines of text → the activations of chosen layers of BERT for their tokens, streamed, in input order.

A line is one example, ``text_a ||| text_b`` is a pair, and a blank line is an example without tokens of its own::

    extractor = Extractor(model, tokenizer, precision, layers=[-1, -2])
    for chunk in extractor.chunks(["a first line", "one text ||| another"]):
        chunk.values                                    # [2, T, hidden]

Within a chunk of lines, batches are sequences of similar length, and only one chunk is in memory at a time. Only real
tokens have vectors, including ``[CLS]`` and ``[SEP]``; the second text of a pair has segment id 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bert.batch import TokenStream
from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.model.bert import BertModel
from bert.model.objective import encode
from bert.ragged import ranges
from bert.sequences import Sequences, collate, encode_pairs, from_rows
from bert.tokenization import BertTokenizer
from bert.train.precision import Precision

SEPARATOR = " ||| "
POOLINGS = ("none", "cls", "mean", "max", "pooler")
HELD_BYTES = 256 << 20  # of vectors in memory at once
MOST_LINES = 8192  # in a chunk, however small their vectors are


@dataclass
class FeaturesConfig:
    input_file: str = flag(
        help="Text, one example a line; the last ' ||| ' in a line separates the two texts of a pair."
    )
    output_file: str = flag(help="File to write the features to, one entry an example, in the order of the lines.")
    layers: str | None = flag(
        None,
        "Layers to write, 0 = the first, -1 = the last; write the =, as in --layers=-1,-2. By default the last four; "
        "with --pooling pooler the last one.",
    )
    max_seq_length: int = flag(128, "Longest input in pieces; longer ones are truncated.", minimum=3)
    batch_size: int = flag(32, "Examples in a batch.", minimum=1)
    pooling: str = flag(
        "none",
        "none: one vector per token. Otherwise one per example and layer: that of [CLS] (cls), the mean or max of the "
        "tokens, or [CLS] after the model's pooler (pooler).",
        choices=POOLINGS,
    )
    output_format: str | None = flag(
        None, "jsonl, npz or parquet; by default the suffix of --output_file.", choices=("jsonl", "npz", "parquet")
    )


@dataclass(frozen=True)
class Features:
    """Consecutive examples, n of them with T tokens in all."""

    first: int  # number of the first one's line, from 0
    sequences: Sequences
    values: NDArray[np.float32]  # [layers, T, hidden]; pooled [layers, n, hidden]
    pooled: bool

    def examples(self) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
        """Yield (number of the line, ids, values [layers, tokens, hidden] or, pooled, [layers, hidden])."""
        for i, (start, stop) in enumerate(pairwise(self.sequences.offsets.tolist())):
            values = self.values[:, i] if self.pooled else self.values[:, start:stop]
            yield self.first + i, self.sequences.tokens[start:stop], values


@dataclass(frozen=True)
class Extractor:
    """A model in evaluation mode on the device of ``precision``, and what to extract from it."""

    model: BertModel
    tokenizer: BertTokenizer
    precision: Precision
    layers: Sequence[int]
    pooling: str = "none"
    max_seq_length: int = 128
    batch_size: int = 32

    def chunks(self, lines: Iterable[str]) -> Iterator[Features]:
        """Yield the features of ``lines``, some hundred lines at a time."""
        remaining, first = iter(lines), 0
        while chunk := list(islice(remaining, self.chunk_size)):
            yield self._features(first, encode_lines(chunk, self.max_seq_length, self.tokenizer))
            first += len(chunk)

    @property
    def chunk_size(self) -> int:
        """Lines whose vectors fit into HELD_BYTES, at least a batch."""
        rows = self.max_seq_length if self.pooling == "none" else 1
        size = len(self.layers) * rows * self.model.config.hidden_size * 4
        return max(min(HELD_BYTES // size, MOST_LINES), self.batch_size)

    def _features(self, first: int, sequences: Sequences) -> Features:
        pooled = self.pooling != "none"
        bounds = np.arange(len(sequences) + 1) if pooled else sequences.offsets
        values = np.empty((len(self.layers), int(bounds[-1]), self.model.config.hidden_size), np.float32)
        order = np.argsort(-sequences.lengths, kind="stable")
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            places = ranges(bounds[chosen], np.diff(bounds)[chosen])
            values[:, places] = self.activations(collate(sequences, chosen))
        return Features(first, sequences, values, pooled)

    @torch.no_grad()
    def activations(self, batch: TokenStream) -> NDArray[np.float32]:
        """Return the chosen layers [layers, T, hidden] of a stream of S sequences, pooled [layers, S, hidden]."""
        batch = batch.to(self.precision.device)
        with self.precision.autocast():
            layers, pooler = encode(self.model, batch)
        if self.pooling == "pooler":
            return pooler[None].float().cpu().numpy()
        pool = _POOL[self.pooling]
        return (
            torch.stack([pool(layers[index].float(), batch.cu_seqlens.long()) for index in self.layers]).cpu().numpy()
        )


# [T, hidden], [S + 1] -> [T, hidden] or [S, hidden]
_POOL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda layer, bounds: layer,
    "cls": lambda layer, bounds: layer[bounds[:-1]],
    "mean": lambda layer, bounds: torch.segment_reduce(layer, "mean", lengths=bounds.diff()),
    "max": lambda layer, bounds: torch.segment_reduce(layer, "max", lengths=bounds.diff()),
}


def layer_indexes(layers: str | None, depth: int, pooling: str = "none") -> list[int]:
    """Parse ``--layers`` for a model of ``depth`` layers; None means the default."""
    if layers is None:
        return list(range(-1, -1 - (1 if pooling == "pooler" else min(depth, 4)), -1))
    try:
        indexes = [int(word) for word in layers.split(",")]
    except ValueError:
        raise UsageError(f"--layers {layers}: expected whole numbers joined by commas, such as -1,-2") from None
    if any(not -depth <= index < depth for index in indexes):
        raise UsageError(f"--layers {layers}: the model has {depth} layers, expected {-depth} to {depth - 1}")
    if len(set(indexes)) < len(indexes):
        raise UsageError(f"--layers {layers}: a layer is named twice")
    if pooling == "pooler" and indexes not in ([-1], [depth - 1]):
        raise UsageError(f"--layers {layers}: --pooling pooler is made of the last layer, expected -1")
    return indexes


def read_lines(path: str | Path) -> Iterator[str]:
    """Open a file at once and return its lines; raises UsageError where it cannot be read or has no line."""
    with naming_os_errors(f"--input_file {path}"):
        file = open(path, encoding="utf-8-sig", newline="\n")  # noqa: SIM115  # closed when its lines have been read
    return _lines_of(file, path)


def _lines_of(file: TextIO, path: str | Path) -> Iterator[str]:
    line = ""
    try:
        with naming_os_errors(f"--input_file {path}"), file:
            for line in file:
                yield line
    except UnicodeDecodeError as error:
        raise UsageError(f"--input_file {path}: not UTF-8 text ({error.reason})") from error
    if not line:
        raise UsageError(f"--input_file {path}: is empty, expected one example a line")


def encode_lines(lines: Sequence[str], max_seq_length: int, tokenizer: BertTokenizer) -> Sequences:
    """Encode lines as ``[CLS] A [SEP]`` or, if a line has a separator, as ``[CLS] A [SEP] B [SEP]``."""
    texts = [line.strip().rpartition(SEPARATOR) for line in lines]
    first = tokenizer.encode_batch([a if separator else b for a, separator, b in texts])
    second = tokenizer.encode_batch([b if separator else "" for _, separator, b in texts])
    rows, starts = [], []
    for a, b, (_, separator, _) in zip(first, second, texts, strict=True):
        one = encode_pairs([a], [b] if separator else None, max_seq_length, tokenizer)
        rows.append(one.tokens)
        starts.append(int(one.segment_starts[0]))
    return from_rows(rows, starts)
