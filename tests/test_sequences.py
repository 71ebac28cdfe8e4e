import numpy as np
import pytest

from bert.sequences import encode_pairs, fitting, from_rows
from bert.tokenization import BertTokenizer


def literally(a: int, b: int, room: int) -> tuple[int, int]:
    """Pop from the end of the longer segment, of the second where both are equal, until both fit."""
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    return a, b


@pytest.mark.parametrize("room", [0, 1, 7, 20])
def test_fitting_pops_from_the_longer(room):
    for a in range(15):
        for b in range(15):
            assert fitting(a, b, room) == literally(a, b, room)


def test_pairs_and_single_segments(vocab_file):
    tokenizer = BertTokenizer(vocab_file)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    pairs = encode_pairs([[7, 8, 9], [7]], [[10], [11, 12, 13]], 6, tokenizer, {"label": np.array([1, 0])})
    assert pairs.tokens.tolist() == [cls, 7, 8, sep, 10, sep, cls, 7, sep, 11, 12, sep]
    assert pairs.offsets.tolist() == [0, 6, 12]
    assert pairs.segment_starts.tolist() == [4, 3]
    assert pairs.labels["label"].tolist() == [1, 0]
    single = encode_pairs([[7, 8, 9], []], None, 4, tokenizer)
    assert single.tokens.tolist() == [cls, 7, 8, sep, cls, sep]
    assert single.segment_starts.tolist() == single.lengths.tolist() == [4, 2]


def test_no_input():
    nothing = from_rows([], [])
    assert (len(nothing), nothing.offsets.tolist()) == (0, [0])
