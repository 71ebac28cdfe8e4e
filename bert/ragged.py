"""Ragged arrays: rows of different lengths, end to end in one array, with the offsets at which they begin.

Rows [7 8], [], [9] are ``values = [7 8 9]`` with ``offsets = [0 2 2 3]``; their lengths are ``np.diff(offsets)``::

    offsets_of([2, 0, 1])                                           # [0 2 2 3]
    rows_of(offsets)                                                # [0 0 2], the row of each value
    chosen = ranges(offsets[[2, 0]], np.array([1, 2]))              # [2 0 1]: row 2, then row 0
    values[chosen]                                                  # [9 7 8]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def offsets_of(lengths: NDArray | Sequence[int]) -> NDArray[np.int64]:
    """Return where each of n rows begins, and the end: [n + 1], from 0."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def rows_of(offsets: NDArray) -> NDArray[np.int64]:
    """Return the row of each value."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def columns_of(offsets: NDArray) -> NDArray[np.int64]:
    """Return the place of each value in its row."""
    return np.arange(offsets[0], offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def ranges(starts: NDArray, lengths: NDArray) -> NDArray[np.int64]:
    """Return the indices starts[0], starts[0] + 1, ... (lengths[0] of them), starts[1], ..."""
    ends = offsets_of(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)


def even_part(total: int, index: int, parts: int) -> range:
    """Return which of ``total`` items the part ``index`` holds of ``parts`` whose sizes differ by at most one."""
    return range(index * total // parts, (index + 1) * total // parts)


def cut_evenly(lengths: NDArray, parts: int) -> NDArray[np.int64]:
    """Return ``parts`` + 1 bounds that cut rows into runs of nearly equal total length.

    No run is empty where there are at least ``parts`` rows.
    """
    ends = offsets_of(lengths)
    wanted = np.arange(parts + 1) * int(ends[-1]) / parts
    # The row end nearest to each wanted place.
    after = np.searchsorted(ends, wanted).clip(0, len(lengths))
    before = np.maximum(after - 1, 0)
    bounds = np.where(wanted - ends[before] < ends[after] - wanted, before, after)
    index = np.arange(parts + 1)
    spare = max(len(lengths) - parts, 0)
    # bounds - index must not fall, nor leave too few rows for the runs that follow.
    bounds = np.maximum.accumulate((bounds - index).clip(0, spare)) + index
    bounds[-1] = len(lengths)
    return np.minimum(bounds, len(lengths))
