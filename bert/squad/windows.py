"""A question and a long context as overlapping windows ``[CLS] query [SEP] piece of the context [SEP]``.

Every piece of the context is in at least one window; of the windows that hold it, the one that shows most of its
surroundings may begin an answer there (its *max context*)::

    spans(10, room=4, stride=2)                          # [(0, 4), (2, 4), (4, 4), (6, 4)]: (first piece, pieces)
    best_windows([(0, 4), (2, 4), (4, 4), (6, 4)])       # [0 0 0 1 1 2 2 3 3 3]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bert.tokenization import BertTokenizer

Span: TypeAlias = tuple[int, int]  # first piece of the context, number of pieces


def spans(pieces: int, room: int, stride: int) -> list[Span]:
    """Cut ``pieces`` into windows of at most ``room``, ``stride`` apart but never leaving a gap; both at least 1."""
    found = []
    start = 0
    while start < pieces:
        length = min(pieces - start, room)
        found.append((start, length))
        if start + length == pieces:
            break
        start += min(length, stride)
    return found


def best_windows(windows: Sequence[Span]) -> NDArray[np.int64]:
    """Return for each piece the window of its max context, the first of equals: the nearer edge is farthest."""
    pieces = max((start + length for start, length in windows), default=0)
    best = np.zeros(pieces, np.int64)
    if len(windows) > 1:
        highest = np.full(pieces, -1.0)
        for number, (start, length) in enumerate(windows):
            inside = np.arange(length)
            score = np.minimum(inside, inside[::-1]) + 0.01 * length
            better = np.flatnonzero(score > highest[start : start + length])
            highest[start + better] = score[better]
            best[start + better] = number
    return best


def improve_answer_span(pieces: Sequence[int], start: int, end: int, answer: Sequence[int]) -> Span:
    """Return (first, last) of the first place within ``[start, end]`` that reads exactly as ``answer``.

    Words hold more than the answer where marks are glued to them: of the pieces of ``"Seine",`` one is the answer.
    Without such a place the span stays.
    """
    wanted = list(answer)
    for first in range(start, end - len(wanted) + 2):
        if wanted and list(pieces[first : first + len(wanted)]) == wanted:
            return first, first + len(wanted) - 1
    return start, end


class Positions(Mapping[int, Any]):
    """``{offset: values[0], offset + 1: values[1], ...}``, to be read like a dict that nobody has to fill."""

    __slots__ = ("_offset", "_values")

    def __init__(self, offset: int, values: NDArray):
        self._offset, self._values = offset, values

    def __getitem__(self, position: int) -> Any:
        index = position - self._offset
        if not 0 <= index < len(self._values):
            raise KeyError(position)
        return self._values[index].item()

    def __contains__(self, position: object) -> bool:
        return isinstance(position, int | np.integer) and 0 <= position - self._offset < len(self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._offset, self._offset + len(self._values)))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True)
class Context:
    """P pieces of W words."""

    ids: NDArray[np.int32]  # [P]
    words: NDArray[np.int32]  # [P], the word each piece is of
    first_pieces: NDArray[np.int64]  # [W + 1], where each word begins in ``ids``, and P


@dataclass(frozen=True)
class Windows:
    """All windows of one question."""

    tokenizer: BertTokenizer
    max_seq_length: int
    query: NDArray[np.int32]  # [Q + 2]: [CLS] query [SEP]
    context: Context
    spans: list[Span]

    @cached_property
    def best(self) -> NDArray[np.int64]:
        """For each piece the number of the window of its max context."""
        return best_windows(self.spans)

    def positions(self, number: int, answer: Span | None) -> Span:
        """Return (start, end) of ``answer``, (first, last) piece, in a window; (0, 0) where it is not whole."""
        start, length = self.spans[number]
        if answer is None or not start <= answer[0] <= answer[1] < start + length:
            return 0, 0
        shift = len(self.query) - start
        return answer[0] + shift, answer[1] + shift


class InputFeatures:
    """One window. What is as long as the model's input is padded with zeros and made anew at each look."""

    def __init__(
        self,
        unique_id: int,
        example_index: int,
        doc_span_index: int,
        windows: Windows,
        start_position: int | None = None,
        end_position: int | None = None,
    ):
        self.unique_id, self.example_index, self.doc_span_index = unique_id, example_index, doc_span_index
        self.start_position, self.end_position = start_position, end_position  # None but in training
        self._windows = windows

    @property
    def segment_start(self) -> int:
        """Position of the first piece of the context."""
        return len(self._windows.query)

    @property
    def parts(self) -> list[NDArray[np.int32]]:
        """The ids without padding, as ``[CLS] query [SEP]``, context and ``[SEP]``; not to be written to."""
        return [self._windows.query, self._windows.context.ids[self._inside], self._windows.query[-1:]]

    @property
    def ids(self) -> NDArray[np.int32]:
        """The ids without padding."""
        return np.concatenate(self.parts)

    @cached_property
    def tokens(self) -> list[str]:
        """The pieces without padding."""
        return self._windows.tokenizer.convert_ids_to_tokens(self.ids.tolist())

    @property
    def token_to_orig_map(self) -> Mapping[int, int]:
        """Position of each piece of the context → number of its word."""
        return Positions(self.segment_start, self._windows.context.words[self._inside])

    @property
    def token_is_max_context(self) -> Mapping[int, bool]:
        """Position of each piece of the context → whether no other window shows more of its surroundings."""
        return Positions(self.segment_start, self._windows.best[self._inside] == self.doc_span_index)

    @property
    def input_ids(self) -> list[int]:
        """Ids, [max_seq_length]."""
        return self._padded(self.ids)

    @property
    def input_mask(self) -> list[int]:
        """1 for each token, [max_seq_length]."""
        return self._padded(np.ones(self._length, np.int32))

    @property
    def segment_ids(self) -> list[int]:
        """0 for the query, 1 for the context and its ``[SEP]``, [max_seq_length]."""
        return self._padded(np.arange(self._length) >= self.segment_start)

    @property
    def _inside(self) -> slice:
        start, length = self._windows.spans[self.doc_span_index]
        return slice(start, start + length)

    @property
    def _length(self) -> int:
        return self.segment_start + self._windows.spans[self.doc_span_index][1] + 1

    def _padded(self, values: NDArray) -> list[int]:
        padded = np.zeros(self._windows.max_seq_length, np.int64)
        padded[: len(values)] = values
        return padded.tolist()
