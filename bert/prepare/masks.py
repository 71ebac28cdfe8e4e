"""Static masks for whole shards: which pieces of every sequence to predict, and what replaces them.

Of a sequence of n pieces, specials included, max(1, round(n × ratio)) are chosen evenly, at most as many as allowed;
80 % of them become [MASK], 10 % stay and 10 % become any piece. The choice of many sequences is one sort::

    shard = mask_shard(shard, 0.15, 20, tokenizer, np.random.default_rng(seed))

Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1; whole words from google-research/bert, May 2019.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert.config import flag
from bert.data.shard import Shard
from bert.ragged import offsets_of
from bert.tokenization import BertTokenizer

ROWS_AT_ONCE = 4096  # sequences; their arrays fit in a core's cache
NEVER = np.iinfo(np.uint32).max  # sort key of a place that cannot be masked


@dataclass
class MaskConfig:
    masking: bool = flag(
        False, "Mask here, once for all epochs (static); otherwise the loader draws new masks every epoch (dynamic)."
    )
    masked_lm_ratio: float = flag(
        0.15, "Share of a sequence's pieces to mask.", aliases=["masked_lm_prob"], minimum=0, maximum=1
    )
    max_predictions_per_seq: int | None = flag(
        None,
        "Maximum number of masked pieces in a sequence. By default --masked_lm_ratio of the longest sequence, rounded "
        "up to a multiple of 5: 20 of 128.",
    )
    whole_word_masking: bool = flag(
        False, "Mask all pieces of a word or none.", aliases=["do_whole_word_mask", "whole_word_mask"]
    )


def default_predictions(longest: int, ratio: float) -> int:
    """Return the most predictions a sequence of ``longest`` pieces can need, rounded up to 5: 20 of 128, 80 of 512."""
    return max(5, -(-round(longest * ratio) // 5) * 5)


def mask_shard(
    shard: Shard,
    ratio: float,
    most: int,
    tokenizer: BertTokenizer,
    draw: np.random.Generator,
    whole_words: bool = False,
) -> Shard:
    """Return ``shard`` with at most ``most`` masks in a sequence; its own arrays are not changed."""
    lengths, tokens = shard.lengths, shard.tokens.copy()
    budgets = np.minimum(most, np.maximum(1, np.rint(lengths * ratio))).astype(np.int64)
    continues = np.array(tokenizer.is_continuation)
    positions, counts = [], []
    for first in range(0, shard.num_samples, ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        padded = _padded(shard, rows, tokenizer.cls_id)
        special = (padded == tokenizer.cls_id) | (padded == tokenizer.sep_id)
        keys = draw.integers(0, NEVER, padded.shape, np.uint32)
        if whole_words:
            chosen = _choose_words(keys, special, continues[padded], budgets[rows])
        else:
            chosen = _choose_pieces(keys, special, budgets[rows])
        counts.append(chosen.sum(1))
        positions.append(np.nonzero(chosen)[1].astype(np.int32))
    flat, offsets = np.concatenate([np.zeros(0, np.int32), *positions]), offsets_of(np.concatenate([[], *counts]))
    places = np.repeat(shard.offsets[:-1], np.diff(offsets)) + flat
    labels = tokens[places]
    fate = draw.random(len(places), np.float32)
    anything = tokenizer.used_ids[draw.integers(0, len(tokenizer.used_ids), len(places), np.int32)]
    tokens[places] = np.where(fate < 0.8, tokenizer.mask_id, np.where(fate < 0.9, labels, anything))
    return dataclasses.replace(
        shard, tokens=tokens, masked_positions=flat, masked_labels=labels, masked_offsets=offsets
    )


def _padded(shard: Shard, rows: slice, padding: int) -> NDArray[np.int32]:
    """Return the sequences as rows of equal width, filled up with a special token, which is never masked."""
    offsets = shard.offsets[rows.start : rows.stop + 1]
    lengths = np.diff(offsets)
    padded = np.full((len(lengths), int(lengths.max())), padding, np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = shard.tokens[offsets[0] : offsets[-1]]
    return padded


def _choose_pieces(
    keys: NDArray[np.uint32], special: NDArray[np.bool_], budgets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Choose ``budgets`` pieces of each row: those with the smallest random keys."""
    keys[special] = NEVER
    # The last key that is still chosen; two equal keys of 32 bits in a row are too rare to matter.
    bounds = np.sort(keys, axis=1)[np.arange(len(keys)), budgets - 1]
    return (keys <= bounds[:, None]) & (keys != NEVER)


def _choose_words(
    keys: NDArray[np.uint32], special: NDArray[np.bool_], continues: NDArray[np.bool_], budgets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Choose whole words in random order, skipping those that would exceed the row's budget.

    The first piece of a segment counts as the beginning of a word even where truncation cut off its real one.
    """
    begins = ~special & ~continues
    begins[:, 1:] |= ~special[:, 1:] & special[:, :-1]
    word = np.cumsum(begins, axis=1) - 1  # number of each piece's word within its row
    rows = np.arange(len(keys))[:, None]
    sizes = np.zeros(keys.shape, np.int64)
    np.add.at(sizes, (np.broadcast_to(rows, keys.shape)[~special], word[~special]), 1)
    keys[sizes == 0] = NEVER
    order = np.argsort(keys, axis=1)
    taken, chosen = np.zeros(len(keys), np.int64), np.zeros(keys.shape, bool)
    for column in order.T:  # every row's next word
        size = sizes[rows[:, 0], column]
        fits = (size > 0) & (taken + size <= budgets)
        taken += size * fits
        chosen[rows[:, 0], column] = fits
        if (taken == budgets).all():
            break
    return chosen[rows, np.maximum(word, 0)] & ~special
