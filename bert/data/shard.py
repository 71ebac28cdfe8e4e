"""One decoded shard, column by column: what every file format is read into and written from.

All sequences lie end to end, specials included and padding not; ``offsets`` marks where each begins::

    [CLS] a a [SEP] b [SEP] [CLS] a [SEP] b b b [SEP]
    0                       6                        13     offsets; segment_starts = [4, 3]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError
from bert.ragged import offsets_of, ranges, rows_of


@dataclass(frozen=True)
class Shard:
    """n sequences of T tokens in all; positions and segment starts count from the beginning of their sequence."""

    tokens: NDArray[np.int32]  # [T]
    offsets: NDArray[np.int64]  # [n + 1]
    segment_starts: NDArray[np.int32]  # [n], first token of segment B; the sequence's length where there is none
    next_sentence_labels: NDArray[np.int8]  # [n], 1 = segment B is random, -1 = not known: no term of the loss
    masked_positions: NDArray[np.int32] | None = None  # [M]; None = the loader masks, differently in every epoch
    masked_labels: NDArray[np.int32] | None = None  # [M], the original token ids
    masked_offsets: NDArray[np.int64] | None = None  # [n + 1]

    @property
    def num_samples(self) -> int:
        return len(self.next_sentence_labels)

    @property
    def masks(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]] | None:
        """Positions, labels and offsets of the static masks; None where the loader masks."""
        if self.masked_positions is None or self.masked_labels is None or self.masked_offsets is None:
            return None
        return self.masked_positions, self.masked_labels, self.masked_offsets

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


class RowRange(NamedTuple):
    """Rows ``start`` to ``stop`` of a file."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class ShardInfo:
    """What a file tells without being decoded; None = only decoding tells."""

    num_samples: int
    max_length: int | None  # tokens of the longest sequence, or the width of its padded rows
    max_predictions: int | None


@dataclass(frozen=True)
class Limits:
    """What the model and the flags allow a shard to hold."""

    max_seq_length: int
    max_predictions_per_seq: int
    vocab_size: int | None = None  # None = any

    def check_info(self, info: ShardInfo, path: Path | str) -> None:
        """Raise UsageError where the file exceeds the limits by its own account."""
        if info.num_samples:
            self._check_most(info.max_length or 0, info.max_predictions or 0, path)

    def check(self, shard: Shard, path: Path | str, first_row: int = 0) -> None:
        """Raise UsageError naming ``path``, the value and the flag where a decoded shard does not fit.

        The shard begins with row ``first_row`` of its file.
        """
        if not shard.num_samples:
            return
        self._check_most(int(shard.lengths.max()), 0, path)
        self._check_ids(shard.tokens, shard.offsets, "token id", path, first_row)
        if shard.masks is None:
            return
        positions, labels, offsets = shard.masks
        self._check_most(0, int(np.diff(offsets).max()), path)
        self._check_ids(labels, offsets, "masked label", path, first_row)
        rows = rows_of(offsets)
        outside = (positions < 0) | (positions >= shard.lengths[rows])
        if outside.any():
            row = rows[outside][0]
            raise UsageError(
                f"{path}: sequence {first_row + row} has {shard.lengths[row]} tokens and a masked position "
                f"{positions[outside][0]}"
            )

    def _check_most(self, length: int, predictions: int, path: Path | str) -> None:
        if length > self.max_seq_length:
            raise UsageError(f"{path}: sequences of up to {length} tokens, --max_seq_length is {self.max_seq_length}")
        if predictions > self.max_predictions_per_seq:
            raise UsageError(
                f"{path}: up to {predictions} masked tokens in a sequence, --max_predictions_per_seq is "
                f"{self.max_predictions_per_seq}"
            )

    def _check_ids(self, ids: NDArray, offsets: NDArray, what: str, path: Path | str, first_row: int) -> None:
        size = self.vocab_size or 2**31
        if not len(ids) or (ids.min() >= 0 and ids.max() < size):
            return
        wrong = (ids < 0) | (ids >= size)
        row = first_row + np.searchsorted(offsets, wrong.argmax(), side="right") - 1
        raise UsageError(
            f"{path}: sequence {row} has {what} {ids[wrong][0]}, outside the vocabulary of {size} pieces "
            "(--vocab_file, vocab_size in --config_file)"
        )


def check_values(
    table: NDArray, limits: tuple[int, int], name: str, path: Path, first_row: int, used: NDArray | None = None
) -> None:
    """Raise UsageError naming the first row of ``table``, [n] or [n, width], with a value outside of ``limits``.

    Only the places that are ``used`` count; by default all.
    """
    if table.dtype.kind not in "iub":
        raise UsageError(f"{path}: {name} is of type {table.dtype}, expected integers")
    low, high = limits
    if not table.size or (low <= table.min() and table.max() <= high):
        return
    wrong = (table < low) | (table > high)
    wrong = wrong if used is None else wrong & used
    if wrong.any():
        place = int(wrong.argmax())
        row = first_row + place // max(table.size // len(table), 1)
        raise UsageError(f"{path}: row {row} has {table.flat[place]} in {name}, expected {low} to {high}")


def select(shard: Shard, order: NDArray) -> Shard:
    """Return the sequences ``order`` of ``shard``, in that order."""
    lengths = shard.lengths[order]
    chosen = Shard(
        tokens=shard.tokens[ranges(shard.offsets[order], lengths)],
        offsets=offsets_of(lengths),
        segment_starts=shard.segment_starts[order],
        next_sentence_labels=shard.next_sentence_labels[order],
    )
    if shard.masks is None:
        return chosen
    positions, labels, bounds = shard.masks
    counts = np.diff(bounds)[order]
    masked = ranges(bounds[order], counts)
    masks = {"masked_positions": positions[masked], "masked_labels": labels[masked]}
    return dataclasses.replace(chosen, **masks, masked_offsets=offsets_of(counts))


def concatenate(shards: Sequence[Shard]) -> Shard:
    """Join the sequences of all ``shards``, which are all masked or all unmasked."""

    def joined(name: str) -> Any:
        arrays = [getattr(shard, name) for shard in shards]
        if arrays[0] is None:
            return None
        if name.endswith("offsets"):
            return offsets_of(np.concatenate([np.diff(array) for array in arrays]))
        return np.concatenate(arrays)

    return Shard(**{field.name: joined(field.name) for field in dataclasses.fields(Shard)})


# pyarrow's own errors derive from these.
UNREADABLE = (OSError, EOFError, KeyError, IndexError, TypeError, ValueError, RuntimeError)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn errors of the block, which reads ``path``, into UsageError."""
    try:
        yield
    except UsageError:
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: unreadable shard ({reason})") from error
