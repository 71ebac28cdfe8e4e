"""Requests of token ids, by hand."""

import numpy as np
import pytest

from bert.errors import UsageError
from bert.serve.requests import PADDING, Request, pack, unpack

SETTINGS = {"max_positions": 4, "vocab_size": 10, "type_vocab_size": 2}


def request(ids, types=None, mask=None):
    arrays = [None if rows is None else np.array(rows, np.int32) for rows in (ids, types, mask)]
    return Request.of(arrays, SETTINGS)


def lists(one):
    return one.ids.tolist(), one.types.tolist(), one.lengths.tolist()


@pytest.mark.parametrize(
    ("ids", "mask", "expected"),
    [
        ([[1, 2, 3, 0], [4, 5, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]], ([1, 2, 3, 4, 5], [3, 2])),  # on the right
        ([[0, 1, 2, 3], [0, 0, 4, 5]], [[0, 1, 1, 1], [0, 0, 1, 1]], ([1, 2, 3, 4, 5], [3, 2])),  # on the left
        ([[1, 9, 2, 9], [9, 4, 9, 5]], [[1, 0, 1, 0], [0, 1, 0, 1]], ([1, 2, 4, 5], [2, 2])),  # holes
        ([[1, 9, 2, 9], [9, 4, 9, 5]], None, ([1, 9, 2, 9, 9, 4, 9, 5], [4, 4])),  # without a mask all are real
        ([[9, 0, 3]], [[5, -1, 0]], ([9, 0], [2])),  # anything but 0 marks a real token
        ([[0, 0, 0]], [[1, 1, 1]], ([0, 0, 0], [3])),  # id 0 is a piece like others
    ],
)
def test_real_tokens(ids, mask, expected):
    found = request(ids, None, mask)
    assert (found.ids.tolist(), found.lengths.tolist()) == expected
    assert found.types.tolist() == [0] * len(expected[0])  # without types all are of the first segment


def test_types_follow_their_tokens():
    found = request([[1, 9, 2], [9, 4, 5]], [[0, 1, 1], [1, 1, 0]], [[1, 0, 1], [0, 1, 1]])
    assert lists(found) == ([1, 2, 4, 5], [0, 1, 1, 0], [2, 2])


def test_padding_may_hold_anything():
    """Only real tokens are looked at: -1 and 99 are no pieces, 7 is no segment."""
    found = request([[1, -1, 99]], [[1, 7, -7]], [[1, 0, 0]])
    assert lists(found) == ([1], [1], [1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((None, [[1]], [[1]]), "input__0 is missing: expected token ids"),
        (([[1, 2]], [[0]], None), "ids, types and mask of shapes [1, 2], [1, 1], [1, 2]: "),
        (([[1, 2]], None, [[1, 1, 1]]), "ids, types and mask of shapes [1, 2], [1, 2], [1, 3]: "),
        (([1, 2], None, None), "ids, types and mask of shapes [2], [2], [2]: "),
        (([[[1, 2]]], None, None), "ids, types and mask of shapes [1, 1, 2], "),
        (([[1, 2], [3, 4]], None, [[1, 1], [0, 0]]), "a sequence without a real token: expected at least one in "),
        (([[], []], None, None), "a sequence without a real token: expected at least one in each row"),
        (([[1, 2, 3, 4, 5]], None, None), "a sequence of 5 tokens: expected at most 4, the model's positions"),
        (([[1, 10]], None, None), "token id 10: expected 0 to 9"),
        (([[1, -3]], None, None), "token id -3: expected 0 to 9"),
        (([[1, 2]], [[0, 2]], None), "segment id 2: expected 0 to 1"),
        (([[1, 2]], [[0, -1]], None), "segment id -1: expected 0 to 1"),
    ],
)
def test_wrong_requests_are_one_line(arrays, message):
    with pytest.raises(UsageError) as error:
        request(*arrays)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_rows_longer_than_the_model_with_few_real_tokens():
    assert lists(request([[1, 2, 3, 4, 5, 6]], None, [[0, 0, 0, 1, 1, 0]])) == ([4, 5], [0, 0], [2])


REQUESTS = [([[1, 2, 3]], None, None), ([[0, 4, 0], [5, 0, 6]], [[0, 1, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 1]])]


def test_packing():
    ids, types, offsets = pack([request(*each) for each in REQUESTS])
    assert ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert types.tolist() == [0, 0, 0, 1, 1, 0]
    assert offsets.tolist() == [0, 3, 4, 6]


def test_outputs_of_tokens_stand_where_the_tokens_stood():
    found = [request(*each) for each in REQUESTS]
    start, end = np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32) * 10
    first, second = unpack(found, [start, end], per_token=True)
    assert [each.tolist() for each in first] == [[[0, 1, 2]], [[0, 10, 20]]]
    assert [each.tolist() for each in second] == [
        [[PADDING, 3, PADDING], [4, PADDING, 5]],
        [[PADDING, 30, PADDING], [40, PADDING, 50]],
    ]
    assert all(each.dtype == np.float32 for each in (*first, *second))


def test_outputs_of_sequences():
    found = [request(*each) for each in REQUESTS]
    (first,), (second,) = unpack(found, [np.array([[1, 2], [3, 4], [5, 6]], np.float32)], per_token=False)
    assert (first.tolist(), second.tolist()) == ([[1, 2]], [[3, 4], [5, 6]])
