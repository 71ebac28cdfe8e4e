"""Checks of a single shard, and the counts by which :mod:`bert.shards.verify` judges all shards together.

A shard is read in parts, so memory does not depend on its size; of a sequence only an 8-byte hash is kept::

    subject = Subject(path, manifest.shards.get(path.name), Rules(vocab_file="vocab.txt", max_seq_length=128))
    found = examine(subject)
    found.problems      # ["sequence 7 has token id 40000, outside the vocabulary of 30522 pieces"]
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert.data.formats.table import PARQUET, format_of, inspect_shard, read_shard
from bert.data.hashing import hash64, mix64
from bert.data.manifest import MANIFEST, ShardEntry
from bert.data.shard import Limits, Shard
from bert.errors import UsageError
from bert.ragged import columns_of, rows_of
from bert.shards.bins import bin_of
from bert.tokenization import CLS, MASK, SEP, TokenizerFlags, open_tokenizer

ROWS_AT_ONCE = 65536
ROWS_HASHED_AT_ONCE = 4096


@dataclass(frozen=True)
class Rules:
    """What the shards of a folder must comply with; None = not known, so not checked."""

    vocab_file: str | None = None
    vocab_size: int | None = None
    max_seq_length: int | None = None
    max_predictions_per_seq: int | None = None
    masked_lm_ratio: float = 0.15
    bin_size: int | None = None
    last_bin: int = 0  # also holds all longer sequences


class Subject(NamedTuple):
    """A shard to examine, its entry in the manifest and its rules."""

    path: Path
    listed: ShardEntry | None
    rules: Rules


@dataclass
class Findings:
    """What a shard holds; the counts after ``samples`` cover the sequences that could be read."""

    path: Path
    problems: list[str] = field(default_factory=list)
    samples: int = 0
    tokens: int = 0
    longest: int = 0
    random: int = 0  # sequences whose second segment is random
    labelled: int = 0  # sequences that say whether it is
    is_static: bool | None = None  # None = not read
    masked: int = 0
    wanted: int = 0  # masked tokens that the rules ask for
    as_mask: int | None = None  # masked tokens that became [MASK]; None = its id is not known
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Sequences that were read."""
        return sum(map(len, self.hashes))


def examine(subject: Subject) -> Findings:
    """Read a shard and note what is wrong; bad content raises nothing."""
    path, listed, rules = subject
    found = Findings(path)
    try:
        if listed is not None:
            found.problems += _compare_bytes(path, listed)
        found.samples = inspect_shard(path).num_samples
        if listed is not None and found.samples != listed.num_samples:
            found.problems.append(f"{found.samples} samples, {MANIFEST} says {listed.num_samples}")
        if is_readable(path, rules):
            vocab = _vocabulary(rules.vocab_file) if rules.vocab_file else None
            for start in range(0, found.samples, ROWS_AT_ONCE):
                shard = read_shard(path, vocab, start, min(start + ROWS_AT_ONCE, found.samples))
                _check(shard, path, rules, vocab, start)
                _count(shard, rules, vocab, found)
    except UsageError as error:
        found.problems.append(str(error).removeprefix(f"{path}: "))
    except OSError as error:
        found.problems.append(error.strerror or str(error))
    return found


def is_readable(path: Path, rules: Rules) -> bool:
    """Tell whether the sequences of a shard can be read: Parquet holds text, which needs a vocabulary."""
    return rules.vocab_file is not None or format_of(path) != PARQUET


def _compare_bytes(path: Path, listed: ShardEntry) -> Iterator[str]:
    size = path.stat().st_size
    if size != listed.bytes:
        yield f"{size} bytes, {MANIFEST} says {listed.bytes}"
        return
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != listed.sha256:
        yield f"SHA-256 {actual[:12]}..., {MANIFEST} says {listed.sha256[:12]}...: the content has changed"


@lru_cache(maxsize=1)
def _vocabulary(path: str) -> dict[str, int]:
    return open_tokenizer(path, TokenizerFlags()).vocab


def _check(shard: Shard, path: Path, rules: Rules, vocab: dict[str, int] | None, first_row: int) -> None:
    """Raise UsageError for the first malformed sequence."""
    refuse = partial(_refuse, path, first_row)
    lengths = shard.lengths
    longest, most = rules.max_seq_length or sys.maxsize, rules.max_predictions_per_seq or sys.maxsize
    Limits(longest, most, len(vocab) if vocab else rules.vocab_size).check(shard, path, first_row)
    refuse(lengths < 3, "is shorter than [CLS], a token and [SEP]")
    first, last = shard.offsets[:-1], shard.offsets[1:] - 1
    middle = first + np.minimum(shard.segment_starts, lengths) - 1  # the same as last where there is one segment
    if vocab is not None:
        refuse(shard.tokens[first] != vocab[CLS], "does not begin with [CLS]")
        refuse(shard.tokens[last] != vocab[SEP], "does not end with [SEP]")
        refuse(shard.tokens[middle] != vocab[SEP], "has no [SEP] before its second segment")
    if shard.masks is not None:
        positions, _, offsets = shard.masks
        rows = rows_of(offsets)
        places = first[rows] + positions
        special = (places == first[rows]) | (places == middle[rows]) | (places == last[rows])
        refuse(np.bincount(rows[special], minlength=shard.num_samples) > 0, "has a masked [CLS] or [SEP]")
    if rules.bin_size and bin_of(path):
        number = int(bin_of(path))
        wrong = np.minimum((lengths - 1) // rules.bin_size, rules.last_bin) != number
        refuse(wrong, f"is not of a length that belongs in bin {number} (bin_size {rules.bin_size})", lengths)


def _refuse(path: Path, first_row: int, wrong: NDArray[np.bool_], what: str, lengths: NDArray | None = None) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        tokens = "" if lengths is None else f" with {lengths[row]} tokens"
        more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
        raise UsageError(f"{path}: sequence {first_row + row}{tokens} {what}{more}")


def _count(shard: Shard, rules: Rules, vocab: dict[str, int] | None, found: Findings) -> None:
    lengths = shard.lengths
    found.tokens += len(shard.tokens)
    found.longest = max(found.longest, int(lengths.max()))
    found.random += int((shard.next_sentence_labels > 0).sum())
    found.labelled += int((shard.next_sentence_labels >= 0).sum())
    found.is_static = shard.masks is not None
    found.hashes += [_hash_rows(shard, low) for low in range(0, shard.num_samples, ROWS_HASHED_AT_ONCE)]
    if shard.masks is None:
        return
    positions, _, offsets = shard.masks
    found.masked += len(positions)
    wanted = np.maximum(1, np.rint(lengths * rules.masked_lm_ratio))
    found.wanted += int(np.minimum(wanted, rules.max_predictions_per_seq or sys.maxsize).sum())
    if vocab is not None:
        places = shard.offsets[rows_of(offsets)] + positions
        found.as_mask = (found.as_mask or 0) + int((shard.tokens[places] == vocab[MASK]).sum())


def _hash_rows(shard: Shard, low: int) -> NDArray[np.uint64]:
    """Return a hash of each sequence from ``low`` on: of tokens and masks with their positions, segments and label."""
    high = min(low + ROWS_HASHED_AT_ONCE, shard.num_samples)
    bounds = shard.offsets[low : high + 1]
    total = _sums(columns_of(bounds) << 32 | shard.tokens[bounds[0] : bounds[-1]], bounds)
    if shard.masks is not None:
        positions, labels, offsets = shard.masks
        bounds = offsets[low : high + 1]
        mine = slice(bounds[0], bounds[-1])
        total += _sums(1 << 62 | positions[mine].astype(np.int64) << 32 | labels[mine], bounds)
    return hash64(total.view(np.int64), shard.segment_starts[low:high], shard.next_sentence_labels[low:high])


def _sums(keys: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the sum of the scrambled keys from each bound to the next, modulo 2^64."""
    ends = np.zeros(len(keys) + 1, np.uint64)
    np.cumsum(mix64(keys.astype(np.uint64)), out=ends[1:])
    return np.diff(ends[bounds - bounds[0]])
