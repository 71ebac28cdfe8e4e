from types import SimpleNamespace

import numpy as np
import pytest

from bert.data.shard import Shard
from bert.prepare.masks import default_predictions, mask_shard
from bert.ragged import offsets_of

CLS, SEP, MASK = 1, 2, 3
WORDS = 1000  # ids from here on continue a word
TOKENIZER = SimpleNamespace(
    cls_id=CLS,
    sep_id=SEP,
    mask_id=MASK,
    used_ids=np.arange(2000, dtype=np.int32),
    is_continuation=[piece >= WORDS for piece in range(2000)],
)


def random_shard(count: int, shortest: int, longest: int, seed: int = 0) -> Shard:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, count)
    offsets = offsets_of(lengths)
    tokens = rng.integers(10, 2000, offsets[-1]).astype(np.int32)
    starts = rng.integers(3, lengths - 1).astype(np.int32)
    tokens[offsets[:-1]] = CLS
    tokens[offsets[1:] - 1] = tokens[offsets[:-1] + starts - 1] = SEP
    return Shard(tokens, offsets, starts, np.zeros(count, np.int8))


def rows_of(shard: Shard) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    positions, labels, bounds = shard.masks
    return [
        (shard.tokens[a:b], positions[m:n], labels[m:n])
        for a, b, m, n in zip(shard.offsets[:-1], shard.offsets[1:], bounds[:-1], bounds[1:], strict=True)
    ]


@pytest.mark.parametrize("whole_words", [False, True])
def test_originals_come_back_and_specials_are_left_alone(whole_words):
    shard = random_shard(5000, 6, 60)
    masked = mask_shard(shard, 0.15, 6, TOKENIZER, np.random.default_rng(0), whole_words)
    restored = masked.tokens.copy()
    positions, labels, bounds = masked.masks
    rows = np.repeat(np.arange(5000), np.diff(bounds))
    places = shard.offsets[rows] + positions
    assert not np.isin(shard.tokens[places], [CLS, SEP]).any()
    restored[places] = labels
    assert np.array_equal(restored, shard.tokens)
    assert len(np.unique(places)) == len(places)
    assert (np.diff(positions)[np.diff(rows) == 0] > 0).all()  # sorted within each sequence


def test_as_many_as_the_published_formula_says():
    masked = mask_shard(random_shard(500, 6, 60), 0.15, 6, TOKENIZER, np.random.default_rng(0))
    for tokens, positions, _ in rows_of(masked):
        assert len(positions) == min(6, max(1, round(len(tokens) * 0.15)))


def test_fates_and_places_are_drawn_evenly():
    shard = random_shard(20_000, 40, 40)
    masked = mask_shard(shard, 0.15, 20, TOKENIZER, np.random.default_rng(0))
    positions, labels, _ = masked.masks
    now = masked.tokens[np.repeat(shard.offsets[:-1], 6) + positions]
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.005)
    assert (now == labels).mean() == pytest.approx(0.1, abs=0.005)
    replaced = now[(now != MASK) & (now != labels)]
    assert replaced.mean() == pytest.approx(1000, rel=0.02)  # any of 2000 pieces
    # Of 37 ordinary pieces 6 are chosen; the last position is always [SEP] and the first [CLS].
    chosen = np.bincount(positions, minlength=40) / 20_000
    assert chosen[0] == chosen[39] == 0
    assert chosen[2:38] == pytest.approx(np.full(36, 6 / 37), abs=0.015)


def test_whole_words_are_masked_whole_within_the_budget():
    shard = random_shard(2000, 20, 60)
    masked = mask_shard(shard, 0.15, 20, TOKENIZER, np.random.default_rng(0), whole_words=True)
    sizes = []
    for row, (tokens, positions, _) in enumerate(rows_of(masked)):
        original = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]]
        special = np.isin(original, [CLS, SEP])
        begins = ~special & ((original < WORDS) | np.concatenate([[False], special[:-1]]))
        word = np.cumsum(begins)
        word[special] = 0
        chosen = set(word[positions])
        assert set(np.flatnonzero(np.isin(word, list(chosen)))) == set(positions)
        assert len(positions) <= max(1, round(len(tokens) * 0.15))
        sizes.append(len(positions) / max(1, round(len(tokens) * 0.15)))
    assert np.mean(sizes) > 0.95  # greedy: what does not fit is left out and the next word tried


def test_a_word_longer_than_the_budget_is_left_out():
    tokens = np.array([CLS, 50, 1500, 1501, SEP, 60, 1502, 1503, SEP], np.int32)
    shard = Shard(tokens, np.array([0, 9]), np.array([5], np.int32), np.zeros(1, np.int8))
    masked = mask_shard(shard, 0.15, 20, TOKENIZER, np.random.default_rng(0), whole_words=True)
    assert masked.masks[0].tolist() == []


def test_an_empty_shard():
    empty = Shard(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int8))
    masked = mask_shard(empty, 0.15, 20, TOKENIZER, np.random.default_rng(0))
    assert masked.num_samples == 0
    assert masked.masks is not None


@pytest.mark.parametrize(("longest", "expected"), [(128, 20), (512, 80), (32, 5), (8, 5), (256, 40)])
def test_default_predictions(longest, expected):
    assert default_predictions(longest, 0.15) == expected
