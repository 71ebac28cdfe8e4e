"""Encoded inputs of a fine-tuning task, end to end without padding, and their labels.

The real tokens of n inputs lie one after another, specials included; ``offsets`` marks where each begins::

    [CLS] a a [SEP] b [SEP] [CLS] c [SEP]
    0                       6               9     offsets; segment_starts = [4, 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bert.ragged import columns_of, offsets_of, ranges
from bert.tokenization import BertTokenizer

if TYPE_CHECKING:
    from bert.batch import TaskBatch, TaskGroup


@dataclass(frozen=True)
class Sequences:
    """n inputs of T tokens in all."""

    tokens: NDArray[np.int32]  # [T]
    offsets: NDArray[np.int64]  # [n + 1]
    segment_starts: NDArray[np.int32]  # [n], first token of segment B; the input's length where there is none
    labels: dict[str, NDArray] = field(default_factory=dict)  # name -> [n]

    def __len__(self) -> int:
        return len(self.segment_starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


def from_rows(
    rows: Sequence[Sequence[int]], segment_starts: Sequence[int], labels: dict[str, NDArray] | None = None
) -> Sequences:
    """Lay rows of ids end to end."""
    offsets = offsets_of([len(row) for row in rows])
    tokens = np.fromiter((piece for row in rows for piece in row), np.int32, int(offsets[-1]))
    return Sequences(tokens, offsets, np.array(segment_starts, np.int32), labels or {})


def encode_pairs(
    first: Sequence[list[int]],
    second: Sequence[list[int]] | None,
    max_seq_length: int,
    tokenizer: BertTokenizer,
    labels: dict[str, NDArray] | None = None,
) -> Sequences:
    """Pack ids as ``[CLS] A [SEP] (B [SEP])``, cut to ``max_seq_length``.

    Of a pair the longer segment loses pieces from its end (B, where both are equal), as in the published scripts.
    """
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    rows, starts = [], []
    for index, a in enumerate(first):
        if second is None:
            rows.append(cls + a[: max_seq_length - 2] + sep)
            starts.append(len(rows[-1]))
            continue
        keep_a, keep_b = fitting(len(a), len(second[index]), max_seq_length - 3)
        rows.append(cls + a[:keep_a] + sep + second[index][:keep_b] + sep)
        starts.append(keep_a + 2)
    return from_rows(rows, starts, labels)


def fitting(a: int, b: int, room: int) -> tuple[int, int]:
    """Return how many pieces of segments of ``a`` and ``b`` pieces stay so that both fit ``room``."""
    surplus = max(a + b - room, 0)
    uneven = min(surplus, abs(a - b))
    both = surplus - uneven
    return a - (uneven if a > b else 0) - both // 2, b - (uneven if b > a else 0) - (both + 1) // 2


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Lay sequences end to end; labels that all parts have are kept."""
    names = set.intersection(*(set(part.labels) for part in parts))
    return Sequences(
        np.concatenate([part.tokens for part in parts]),
        offsets_of(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.segment_starts for part in parts]),
        {name: np.concatenate([part.labels[name] for part in parts]) for name in sorted(names)},
    )


def groups_of(tasks: NDArray[np.int64], bounds: NDArray[np.int64]) -> tuple[TaskGroup, ...]:
    """Return the groups of sequences from their tasks and offsets. Raises ValueError unless sorted by task."""
    from bert.batch import TaskGroup

    first = np.flatnonzero(np.diff(tasks, prepend=-1))
    if len(np.unique(tasks)) < len(first):
        raise ValueError("the sequences are not sorted by task")
    ends = [*first[1:].tolist(), len(tasks)]
    spans = zip(first.tolist(), ends, strict=True)
    return tuple(TaskGroup(int(tasks[a]), (a, b), (int(bounds[a]), int(bounds[b]))) for a, b in spans)


def collate(sequences: Sequences, chosen: NDArray[np.int64]) -> TaskBatch:
    """Gather the sequences ``chosen`` into a token stream, in that order; if they have a "task", sorted by it."""
    import torch  # imported here: a server that only encodes text starts faster without

    from bert.batch import TaskBatch

    lengths = sequences.lengths[chosen]
    bounds = offsets_of(lengths)
    ids = sequences.tokens[ranges(sequences.offsets[chosen], lengths)]
    types = columns_of(bounds) >= np.repeat(sequences.segment_starts[chosen], lengths)
    return TaskBatch(
        input_ids=torch.from_numpy(ids.astype(np.int64)),
        token_type_ids=torch.from_numpy(types.astype(np.int64)),
        cu_seqlens=torch.from_numpy(bounds.astype(np.int32)),
        max_seqlen=int(lengths.max(initial=0)),
        labels={name: torch.from_numpy(values[chosen]) for name, values in sequences.labels.items()},
        groups=groups_of(sequences.labels["task"][chosen], bounds) if "task" in sequences.labels else (),
    )
