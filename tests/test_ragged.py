import numpy as np
import pytest

from bert.ragged import columns_of, cut_evenly, even_part, offsets_of, ranges, rows_of

ROWS = [[7, 8], [], [9], [4, 5, 6]]
VALUES = np.concatenate([np.array(row, np.int64) for row in ROWS])


def test_offsets_rows_and_columns():
    offsets = offsets_of([len(row) for row in ROWS])
    assert (offsets.tolist(), offsets.dtype) == ([0, 2, 2, 3, 6], np.int64)
    assert rows_of(offsets).tolist() == [0, 0, 2, 3, 3, 3]
    assert columns_of(offsets).tolist() == [0, 1, 0, 0, 1, 2]
    assert columns_of(offsets[2:]).tolist() == [0, 0, 1, 2]  # rows 2 and 3 of the same array


def test_no_rows():
    assert offsets_of([]).tolist() == [0]
    for found in (rows_of(offsets_of([])), columns_of(offsets_of([])), ranges(np.zeros(0, int), np.zeros(0, int))):
        assert found.tolist() == []


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0], [1], [2, 2, 1, 0]])
def test_ranges_select_rows(order):
    offsets = offsets_of([len(row) for row in ROWS])
    chosen = ranges(offsets[order], np.diff(offsets)[order])
    assert VALUES[chosen].tolist() == [value for row in order for value in ROWS[row]]


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (2, 5), (0, 2), (7, 7), (1000, 9)])
def test_even_parts_cover_everything_and_differ_by_one(total, parts):
    found = [even_part(total, index, parts) for index in range(parts)]
    assert [item for part in found for item in part] == list(range(total))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(
    ("lengths", "parts", "bounds"),
    [
        ([5, 5, 5, 5], 2, [0, 2, 4]),
        ([1, 1, 1, 9], 2, [0, 3, 4]),
        ([1, 1, 1, 1, 4, 4], 3, [0, 4, 5, 6]),
        ([1, 1, 100], 3, [0, 1, 2, 3]),  # none empty, however uneven
        ([100, 100, 100], 3, [0, 1, 2, 3]),
        ([7], 1, [0, 1]),
        ([], 1, [0, 0]),
    ],
)
def test_cutting_evenly(lengths, parts, bounds):
    assert cut_evenly(np.array(lengths, np.int64), parts).tolist() == bounds


def test_no_micro_batch_is_empty_where_there_are_enough_sequences():
    rng = np.random.default_rng(0)
    for _ in range(300):
        lengths = np.sort(rng.integers(1, rng.integers(2, 500), rng.integers(1, 30)))
        parts = int(rng.integers(1, len(lengths) + 1))
        bounds = cut_evenly(lengths, parts)
        assert (bounds[0], bounds[-1], len(bounds)) == (0, len(lengths), parts + 1)
        assert np.diff(bounds).min() >= 1
