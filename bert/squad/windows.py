"""A question and a long context as overlapping windows ``[CLS] query [SEP] piece of the context [SEP]``.

Windows overlap, and each piece of the context is in at least one. An answer may begin at a piece only in the window
that shows most of its surroundings (its *max context*)::

    spans(10, room=4, stride=2)                          # [(0, 4), (2, 4), (4, 4), (6, 4)]: (first piece, pieces)
    best_windows([(0, 4), (2, 4), (4, 4), (6, 4)])       # [0 0 0 1 1 2 2 3 3 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bert.tokenization import BertTokenizer


def spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Cut ``pieces`` into windows (first piece, number of pieces) of at most ``room`` that leave no gap.

    They begin ``stride`` apart, or ``room`` if that is less; both are at least 1.
    """
    step = min(room, stride)
    starts = range(0, max(pieces - room, 0) + step, step) if pieces else []
    return [(start, min(room, pieces - start)) for start in starts]


def best_windows(windows: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return for each piece the window of its max context: the one whose nearer edge is farthest; of equals the first.

    As in the published scripts, a window's length counts a little: 0.01 a piece.
    """
    pieces = max((start + length for start, length in windows), default=0)
    best, highest = np.zeros(pieces, np.int64), np.full(pieces, -1.0)
    for number, (start, length) in enumerate(windows):
        inside = np.arange(length)
        score = np.minimum(inside, inside[::-1]) + 0.01 * length
        better = np.flatnonzero(score > highest[start : start + length])
        highest[start + better] = score[better]
        best[start + better] = number
    return best


def improve_answer_span(
    pieces: Sequence[int] | NDArray[np.int32], start: int, end: int, answer: Sequence[int]
) -> tuple[int, int]:
    """Return (first, last) of the first place within ``[start, end]`` that reads exactly as ``answer``.

    A word may hold more than the answer, since punctuation belongs to it: in ``"Seine",`` one piece is the answer.
    Returns (start, end) if there is no such place.
    """
    wanted = list(answer)
    for first in range(start, end - len(wanted) + 2):
        if wanted and list(pieces[first : first + len(wanted)]) == wanted:
            return first, first + len(wanted) - 1
    return start, end


@dataclass(frozen=True)
class Context:
    """A text as P pieces."""

    text: str
    ids: NDArray[np.int32]  # [P]
    spans: NDArray[np.int32]  # [P, 2], each piece's characters (first, last + 1)
    words: NDArray[np.int32]  # [P], the number of each piece's word

    def pieces_of(self, span: tuple[int, int]) -> tuple[int, int]:
        """Return (first, last) of the pieces that overlap the characters ``span``; first > last if none does."""
        first = np.searchsorted(self.spans[:, 1], span[0], "right")
        return int(first), int(np.searchsorted(self.spans[:, 0], span[1])) - 1


@dataclass(frozen=True)
class Windows:
    """All windows of one question."""

    tokenizer: BertTokenizer
    max_seq_length: int
    query: NDArray[np.int32]  # [Q + 2]: [CLS] query [SEP]
    context: Context
    spans: list[tuple[int, int]]  # (first piece, number of pieces) of each window

    @cached_property
    def best(self) -> NDArray[np.int64]:
        """For each piece the number of its max-context window."""
        return best_windows(self.spans)

    def positions(self, number: int, answer: tuple[int, int] | None) -> tuple[int, int]:
        """Return (start, end) in a window of ``answer``, (first, last) piece, or (0, 0) unless the window holds it."""
        start, length = self.spans[number]
        if answer is None or not start <= answer[0] <= answer[1] < start + length:
            return 0, 0
        shift = len(self.query) - start
        return answer[0] + shift, answer[1] + shift


@dataclass(eq=False)
class InputFeatures:
    """One window. All but its numbers is computed on access, to save memory; lists are padded with zeros."""

    unique_id: int
    example_index: int
    doc_span_index: int
    windows: Windows = field(repr=False)
    start_position: int | None = None  # of the answer's first token; None outside training
    end_position: int | None = None  # of its last token

    @property
    def segment_start(self) -> int:
        """Position of the first piece of the context."""
        return len(self.windows.query)

    @property
    def words(self) -> NDArray[np.int32]:
        """The word of each piece of the context in this window."""
        return self.windows.context.words[self._pieces]

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Return the characters (start, end) of the pieces ``first`` to ``last`` of the context in this window."""
        spans = self.windows.context.spans[self._pieces]
        return int(spans[first, 0]), int(spans[last, 1])

    @property
    def is_max_context(self) -> NDArray[np.bool_]:
        """Whether each piece of the context has its max context in this window."""
        return self.windows.best[self._pieces] == self.doc_span_index

    @property
    def ids(self) -> NDArray[np.int32]:
        """The ids without padding."""
        query = self.windows.query
        return np.concatenate([query, self.windows.context.ids[self._pieces], query[-1:]])

    @cached_property
    def tokens(self) -> list[str]:
        """The pieces without padding."""
        return self.windows.tokenizer.convert_ids_to_tokens(self.ids.tolist())

    @property
    def token_to_orig_map(self) -> dict[int, int]:
        """Position of each piece of the context → its word."""
        return dict(enumerate(self.words.tolist(), self.segment_start))

    @property
    def token_is_max_context(self) -> dict[int, bool]:
        """Position of each piece of the context → whether it has its max context here."""
        return dict(enumerate(self.is_max_context.tolist(), self.segment_start))

    @property
    def input_ids(self) -> list[int]:
        """Ids, [max_seq_length]."""
        return self._padded(self.ids)

    @property
    def input_mask(self) -> list[int]:
        """1 for each token, [max_seq_length]."""
        return self._padded(np.ones_like(self.ids))

    @property
    def segment_ids(self) -> list[int]:
        """0 for the query, 1 for the context and its ``[SEP]``, [max_seq_length]."""
        return self._padded(np.arange(len(self.ids)) >= self.segment_start)

    @property
    def _pieces(self) -> slice:
        start, length = self.windows.spans[self.doc_span_index]
        return slice(start, start + length)

    def _padded(self, values: NDArray) -> list[int]:
        return np.pad(values.astype(np.int64), (0, self.windows.max_seq_length - len(values))).tolist()
