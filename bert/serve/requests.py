"""Requests of token ids, padded or not, ⇄ the stream that an engine runs.

A request holds b sequences as [b, L] with an optional mask, as NVIDIA's clients send them, or one sequence as [1, L].
Real tokens may stand anywhere in a row; their position is counted from the first real one, as BERT was trained::

    requests = [Request.of((ids, types, mask), settings), ...]
    outputs = unpack(requests, engine(*pack(requests)), per_token=True)      # of each request, padded as it was
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.errors import UsageError
from bert.ragged import offsets_of

UNKNOWN_TASK = "task "  # begins the refusal of a task that an engine of several lacks
PADDING = -1e4  # the logit of padding: never among the best, and fit for JSON and fp16


@dataclass(frozen=True)
class Request:
    """The real tokens of b sequences, and where they stood."""

    ids: NDArray[np.int32]  # [T]
    types: NDArray[np.int32]  # [T]
    lengths: NDArray[np.int64]  # [b]
    real: NDArray[np.bool_]  # [b, L]

    @classmethod
    def of(cls, arrays: Sequence[NDArray | None], settings: dict[str, Any]) -> Request:
        """Take ids, segment ids or None, and mask or None, each [b, L].

        Raises UsageError for what the model would crash on or silently misread.
        """
        ids, types, mask = arrays
        if ids is None:
            raise UsageError("input__0 is missing: expected token ids")
        types = np.zeros_like(ids) if types is None else types
        real = np.ones(ids.shape, bool) if mask is None else mask != 0
        if not ids.shape == types.shape == real.shape or ids.ndim != 2:
            shapes = ", ".join(str(list(each.shape)) for each in (ids, types, real))
            raise UsageError(f"ids, types and mask of shapes {shapes}: expected three of the same [sequences, tokens]")
        lengths = real.sum(1)
        if lengths.min(initial=1) < 1:
            raise UsageError("a sequence without a real token: expected at least one in each row")
        if lengths.max(initial=0) > settings["max_positions"]:
            most = settings["max_positions"]
            raise UsageError(f"a sequence of {lengths.max()} tokens: expected at most {most}, the model's positions")
        _check_range(ids[real], settings["vocab_size"], "token id")
        _check_range(types[real], settings["type_vocab_size"], "segment id")
        return cls(ids[real], types[real], lengths, real)


def _check_range(values: NDArray, size: int, what: str) -> None:
    if values.min(initial=0) < 0 or values.max(initial=0) >= size:
        wrong = values[(values < 0) | (values >= size)][0]
        raise UsageError(f"{what} {wrong}: expected 0 to {size - 1}")


def pack(requests: Sequence[Request]) -> tuple[NDArray, NDArray, NDArray[np.int64]]:
    """Lay all sequences end to end: ids [T], types [T], offsets [S + 1]."""
    ids = np.concatenate([request.ids for request in requests])
    types = np.concatenate([request.types for request in requests])
    return ids, types, offsets_of(np.concatenate([request.lengths for request in requests]))


def unpack(requests: Sequence[Request], outputs: Sequence[NDArray], per_token: bool) -> list[list[NDArray]]:
    """Deal the outputs to the requests: each [b, L], PADDING where no token was, or [b, width]."""
    counts = [len(request.ids) if per_token else len(request.lengths) for request in requests]
    bounds = np.cumsum(counts)[:-1]
    dealt = zip(*(np.split(output, bounds) for output in outputs), strict=True)
    if not per_token:
        return [list(parts) for parts in dealt]
    return [[_padded(part, request.real) for part in parts] for request, parts in zip(requests, dealt, strict=True)]


def _padded(values: NDArray, real: NDArray[np.bool_]) -> NDArray[np.float32]:
    table = np.full(real.shape, PADDING, np.float32)
    table[real] = values
    return table
