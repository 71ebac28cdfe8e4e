"""Where answers stand in their context, by hand."""

import numpy as np
import pytest

from bert.squad.answers import Candidate
from bert.squad.examples import Words, example_from_text
from bert.squad.features import convert_examples_to_features
from bert.squad.places import locate
from bert.tokenization import SPECIAL_TOKENS, BertTokenizer


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("a b", (0, 1), "a"),
        ("a b", (0, 3), "a b"),
        ("  a  b ", (0, 3), "a  b"),
        ("a\n\n\tb c", (2, 3), "b"),
        ("a\n\n\tb c", (0, 5), "a\n\n\tb c"),
        ("x\u202fyy  (z)", (2, 4), "yy"),
        ("x\u202fyy  (z)", (6, 7), "z"),  # within a word
        ("x\u202fyy  (z)", (3, 7), "y  (z"),  # from within one word into another
        ("\r\n😀 e\u0301t", (2, 4), "e\u0301"),  # code points, not bytes or UTF-16 units
        ("北京在中国", (0, 2), "北京"),
    ],
)
def test_from_joined_words_to_the_text(text, span, expected):
    words = Words(text)
    begin, end = words.in_text(span)
    assert text[begin:end] == expected
    first, last = span
    assert " ".join(words.texts)[first:last].split() == expected.split()


PIECES = "a b c d the song ##s ( ) ."


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *PIECES.split()]) + "\n")
    return BertTokenizer(path)


def place_of(tokenizer, context, text, scores, length=64, stride=16):
    """Locate ``text`` with the start logit 5; ``scores`` holds, for each window, the pieces that have it."""
    example = example_from_text("a", context)
    features = convert_examples_to_features([example], tokenizer, length, stride, 4, is_training=False)
    assert len(features) == len(scores)
    logits = []
    for feature, high in zip(features, scores, strict=True):
        values = np.full(len(feature.ids), -1, np.float32)
        values[[feature.segment_start + piece for piece in high]] = 5
        logits.append(values)
    return locate(Candidate(text, 1.0, 5.0, 0.0), example.doc_tokens, zip(features, logits, strict=True))


def test_the_occurrence_at_the_start_logit(tokenizer):
    context = "the song b the song c"
    assert place_of(tokenizer, context, "the song", [[0]]) == (0, 8)
    assert place_of(tokenizer, context, "the song", [[3]]) == (11, 19)
    assert place_of(tokenizer, context, "song", [[4]]) == (15, 19)


def test_within_a_word(tokenizer):
    assert place_of(tokenizer, "a (song) b", "song", [[2]]) == (3, 7)
    assert place_of(tokenizer, "a (songs). b", "songs", [[2]]) == (3, 8)


def test_no_text_and_no_place(tokenizer):
    assert place_of(tokenizer, "a b c", "", [[1]]) is None
    assert place_of(tokenizer, "a b c", "d", [[1]]) is None
    assert place_of(tokenizer, "a b c", "a", [[1]]) is None  # it stands before the start


def test_in_the_window_of_its_max_context(tokenizer):
    """Windows of 4 pieces, 2 apart: the second is "a b d c", but its "a" has more around it in the first."""
    context = "a b a b d c a b"
    assert place_of(tokenizer, context, "d", [[], [2], []], length=8, stride=2) == (8, 9)
    assert place_of(tokenizer, context, "a", [[], [], [2]], length=8, stride=2) == (12, 13)
    assert place_of(tokenizer, context, "a", [[2], [], []], length=8, stride=2) == (4, 5)
    assert place_of(tokenizer, context, "a", [[], [0], []], length=8, stride=2) is None
