from array import array
from random import Random

import numpy as np
import pytest

from bert.prepare.instances import InstanceConfig, pairs_of_document, truncate_pair
from bert.prepare.pairs import PairConfig, _truncated, assemble, draw_pairs
from bert.prepare.tokens import Tokens
from bert.ragged import offsets_of


def make_tokens(documents: list[list[int]]) -> Tokens:
    """Documents given by the lengths of their sentences; every piece is its own place in the text."""
    lengths = np.array([length for document in documents for length in document])
    ids = np.arange(lengths.sum(), dtype=np.int32)
    return Tokens(ids, offsets_of(lengths), offsets_of(np.array([len(document) for document in documents])))


def random_documents(count: int, seed: int = 0) -> list[list[int]]:
    rng = Random(seed)
    return [[rng.randint(1, 40) for _ in range(rng.randint(1, 30))] for _ in range(count)]


def document_of(tokens: Tokens, places: np.ndarray) -> np.ndarray:
    """The document in which each place of the text lies."""
    return np.searchsorted(tokens.sentences[tokens.documents], places, side="right") - 1


@pytest.mark.parametrize("count", [2, 3, 50])
def test_random_segments_come_from_another_document_and_the_others_follow(count):
    tokens = make_tokens(random_documents(count))
    pairs = draw_pairs(tokens, PairConfig(64, duplicate_factor=20), "seed")
    home, there = document_of(tokens, pairs.a_start), document_of(tokens, pairs.b_start)
    assert (home == document_of(tokens, pairs.a_start + pairs.a_length - 1)).all()
    assert (there == document_of(tokens, pairs.b_start + pairs.b_length - 1)).all()
    assert ((home != there) == pairs.is_random).all()
    assert (pairs.a_length >= 1).all()
    assert (pairs.b_length >= 1).all()
    assert (pairs.a_length + pairs.b_length <= 61).all()
    assert (pairs.b_start >= pairs.a_start + pairs.a_length)[~pairs.is_random].all()


def test_without_truncation_every_piece_is_used_once_in_a_pass():
    tokens = make_tokens([[3] * 20, [3] * 20])
    pairs = draw_pairs(tokens, PairConfig(10_000, short_seq_prob=0.0, duplicate_factor=1), "seed")
    used = [np.arange(a, a + n) for a, n in zip(pairs.a_start, pairs.a_length, strict=True)]
    own = ~pairs.is_random
    used += [np.arange(b, b + n) for b, n in zip(pairs.b_start[own], pairs.b_length[own], strict=True)]
    assert sorted(np.concatenate(used).tolist()) == list(range(120))


def test_the_same_seed_gives_the_same_pairs_and_another_one_others():
    tokens = make_tokens(random_documents(10))
    first, again, other = (draw_pairs(tokens, PairConfig(64), seed) for seed in ("a", "a", "b"))
    assert np.array_equal(first.a_start, again.a_start)
    assert np.array_equal(first.b_length, again.b_length)
    assert first.a_start.tolist() != other.a_start.tolist()


def test_partners_that_are_not_own_give_second_segments_only():
    tokens = make_tokens([[5] * 40, [7] * 10, [9] * 10])
    pairs = draw_pairs(tokens, PairConfig(32), "seed", own=1)
    assert (document_of(tokens, pairs.a_start) == 0).all()
    assert set(document_of(tokens, pairs.b_start[pairs.is_random])) == {1, 2}
    assert pairs.is_random.any()


def test_lengths_after_truncation_are_those_of_the_published_loop():
    rng, room = np.random.default_rng(0), 61
    a, b = rng.integers(1, 120, 300), rng.integers(1, 120, 300)
    bounds = np.stack([np.zeros_like(a), a, 1000 + np.zeros_like(b), 1000 + b, np.zeros_like(a)], axis=1)
    cut = _truncated(bounds, room, rng)
    for row, (length_a, length_b) in enumerate(zip(a, b, strict=True)):
        left, right = truncate_pair(array("i", range(length_a)), array("i", range(length_b)), room, Random(row))
        assert (cut.a_length[row], cut.b_length[row]) == (len(left), len(right))
        assert 0 <= cut.a_start[row] <= length_a - len(left)
        assert 0 <= cut.b_start[row] - 1000 <= length_b - len(right)


def test_truncation_takes_from_front_and_back_by_even_chances():
    bounds = np.array([[0, 40, 100, 140, 0]] * 4000)
    cut = _truncated(bounds, 60, np.random.default_rng(0))
    # 10 pieces go from each: Binomial(10, 1/2) has mean 5 and variance 2.5.
    for front in (cut.a_start, cut.b_start - 100):
        assert front.mean() == pytest.approx(5, abs=4 * (2.5 / 4000) ** 0.5)
        assert front.var() == pytest.approx(2.5, rel=0.1)


def test_the_distribution_is_that_of_the_published_algorithm():
    """Number of pairs, share of random ones, lengths: against the literal sequential version, over many passes."""
    documents, passes = random_documents(40), 60
    tokens = make_tokens(documents)
    pairs = draw_pairs(tokens, PairConfig(64, duplicate_factor=passes), "seed")
    ids = [[array("i", [0] * length) for length in document] for document in documents]
    rng, config = Random(1), InstanceConfig(max_seq_length=64)
    expected = [p for _ in range(passes) for i in range(len(ids)) for p in pairs_of_document(ids, i, config, rng)]
    lengths = [len(pair.a) + len(pair.b) for pair in expected]
    assert len(pairs) == pytest.approx(len(expected), rel=0.02)
    assert pairs.is_random.mean() == pytest.approx(np.mean([pair.is_random for pair in expected]), abs=0.02)
    assert pairs.a_length.mean() == pytest.approx(np.mean([len(pair.a) for pair in expected]), rel=0.03)
    found = np.histogram(pairs.a_length + pairs.b_length, bins=[0, 10, 20, 40, 61, 62])[0] / len(pairs)
    wanted = np.histogram(lengths, bins=[0, 10, 20, 40, 61, 62])[0] / len(expected)
    assert found == pytest.approx(wanted, abs=0.02)


def test_assemble_lays_out_the_sequences():
    tokens = make_tokens([[2, 3], [4]])
    pairs = draw_pairs(tokens, PairConfig(100, short_seq_prob=0.0, duplicate_factor=1), "seed")
    shard = assemble(pairs, tokens.ids + 10, cls_id=1, sep_id=2)
    for row in range(shard.num_samples):
        sequence = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]].tolist()
        a = list(range(10 + pairs.a_start[row], 10 + pairs.a_start[row] + pairs.a_length[row]))
        b = list(range(10 + pairs.b_start[row], 10 + pairs.b_start[row] + pairs.b_length[row]))
        assert sequence == [1, *a, 2, *b, 2]
        assert shard.segment_starts[row] == len(a) + 2
    assert shard.next_sentence_labels.tolist() == pairs.is_random.astype(int).tolist()
    assert shard.masks is None


def test_no_document_of_its_own_gives_an_empty_shard():
    tokens = make_tokens([[2], [3]])
    pairs = draw_pairs(tokens, PairConfig(), "seed", own=0)
    assert assemble(pairs, tokens.ids, 1, 2).num_samples == 0
