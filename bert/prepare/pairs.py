"""Tokenised documents → pairs of segments for next-sentence prediction, as ranges of piece ids.

The distribution is that of the published scripts (:mod:`bert.prepare.instances` follows them call for call); here no
piece is copied while pairs are drawn, and truncation is arithmetic over all pairs at once, which makes hundreds of
thousands of pairs per second. A random second segment always comes from another document::

    pairs = draw_pairs(tokens, PairConfig(target_seq_length=512), seed=7)
    shard = assemble(pairs, tokens.ids, cls_id, sep_id)

Source: Devlin et al. 2018, arXiv:1810.04805, appendix A.2.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from bert.config import flag
from bert.data.shard import Shard
from bert.prepare.tokens import Tokens
from bert.ragged import offsets_of, ranges

SPECIALS = 3  # [CLS] A [SEP] B [SEP]


@dataclass
class PairConfig:
    """How sequences are cut from documents; the flags are LDDL's."""

    target_seq_length: int = flag(
        128,
        "Longest sequence in pieces, with [CLS] and two [SEP].",
        aliases=["max_seq_length"],
        minimum=5,
        maximum=65535,
    )
    short_seq_prob: float = flag(
        0.1, "Share of documents cut into shorter sequences than fit, as fine-tuning will see.", minimum=0, maximum=1
    )
    duplicate_factor: int = flag(
        5, "Passes over the text, each with other pairs and masks.", aliases=["dupe_factor"], minimum=1
    )


@dataclass(frozen=True)
class Pairs:
    """n pairs: segment A is ``ids[a_start : a_start + a_length]``, B likewise."""

    a_start: NDArray[np.int64]
    a_length: NDArray[np.int64]
    b_start: NDArray[np.int64]
    b_length: NDArray[np.int64]
    is_random: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.is_random)


def draw_pairs(tokens: Tokens, config: PairConfig, seed: str, own: int | None = None) -> Pairs:
    """Draw ``duplicate_factor`` passes over the first ``own`` documents (all by default), in random order.

    All documents serve as partners; there must be at least two. The result depends on the arguments alone.
    """
    rng = Random(seed)
    drawn: list[tuple[int, int, int, int, bool]] = []
    sentences, documents = tokens.sentences.tolist(), tokens.documents.tolist()
    for _ in range(config.duplicate_factor):
        for document in range(tokens.num_documents if own is None else own):
            _draw_document(document, sentences, documents, config, rng, drawn)
    bounds = np.array(drawn, np.int64).reshape(-1, 5)
    draw = np.random.default_rng(rng.getrandbits(128))
    return _truncated(bounds[draw.permutation(len(bounds))], config.target_seq_length - SPECIALS, draw)


def _draw_document(
    document: int,
    sentences: list[int],
    documents: list[int],
    config: PairConfig,
    rng: Random,
    drawn: list[tuple[int, int, int, int, bool]],
) -> None:
    """Append (start of A, end of A, start of B, end of B, B is random) of each pair, before truncation."""
    random, room = rng.random, config.target_seq_length - SPECIALS
    start, last = documents[document], documents[document + 1]
    target = 2 + int(random() * (room - 1)) if random() < config.short_seq_prob else room
    while start < last:
        begin = sentences[start]
        end = min(bisect_left(sentences, begin + target, start + 1, last), last)
        a_end = start + 1 + int(random() * (end - start - 1))
        if end - start == 1 or random() < 0.5:
            other = int(random() * (len(documents) - 2))
            other += other >= document
            b_first, b_last = documents[other], documents[other + 1]
            b_start = b_first + int(random() * (b_last - b_first))
            wanted = sentences[b_start] + target - (sentences[a_end] - begin)
            b_end = min(bisect_left(sentences, wanted, b_start + 1, b_last), b_last)
            drawn.append((begin, sentences[a_end], sentences[b_start], sentences[b_end], True))
            start = a_end  # the sentences that were not used begin the next chunk
        else:
            drawn.append((begin, sentences[a_end], sentences[a_end], sentences[end], False))
            start = end


def _truncated(bounds: NDArray[np.int64], room: int, draw: np.random.Generator) -> Pairs:
    """Cut each pair to ``room`` pieces: from the longer segment until both are equal, then from both in turn.

    Every piece goes from the front or the back by an even chance, so how many go from the front is binomial.
    """
    a_start, a_end, b_start, b_end, is_random = bounds.T
    a, b = a_end - a_start, b_end - b_start
    surplus = np.maximum(a + b - room, 0)
    uneven = np.minimum(surplus, abs(a - b))
    both = surplus - uneven
    a_cut = np.where(a > b, uneven, 0) + both // 2
    b_cut = np.where(b > a, uneven, 0) + (both + 1) // 2  # of equal segments the second goes first
    a_front, b_front = draw.binomial(a_cut, 0.5), draw.binomial(b_cut, 0.5)
    return Pairs(a_start + a_front, a - a_cut, b_start + b_front, b - b_cut, is_random.astype(bool))


def assemble(pairs: Pairs, ids: NDArray[np.int32], cls_id: int, sep_id: int) -> Shard:
    """Lay out ``[CLS] A [SEP] B [SEP]`` of every pair, not masked."""
    cls, sep, one = len(ids), len(ids) + 1, np.ones(len(pairs), np.int64)
    starts = np.stack([cls * one, pairs.a_start, sep * one, pairs.b_start, sep * one], axis=1)
    counts = np.stack([one, pairs.a_length, one, pairs.b_length, one], axis=1)
    source = np.append(ids, np.array([cls_id, sep_id], ids.dtype))
    return Shard(
        tokens=source[ranges(starts.reshape(-1), counts.reshape(-1))],
        offsets=offsets_of(counts.sum(1)),
        segment_starts=(pairs.a_length + 2).astype(np.int32),
        next_sentence_labels=pairs.is_random.astype(np.int8),
    )
