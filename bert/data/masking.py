"""Dynamic masking: masked language modelling labels drawn while loading.

Each token is chosen with probability 0.15; of the chosen, 80 % become [MASK], 10 % a random piece, and 10 % stay
(Devlin et al. 2018, section 3.1). A sequence has at least one chosen token and at most ``max_predictions_per_seq``. The
draws of a token depend on (seed, epoch, sample, place in the sequence) and on nothing else::

    mask = DynamicMasking.for_vocabulary(tokenizer.vocab, max_predictions_per_seq=20, seed=42)
    ids, positions, labels = mask(ids, offsets, epoch, sample)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert.data.hashing import GAMMA, below, hash64, mix64, uniform
from bert.ragged import columns_of, rows_of
from bert.tokenization import SPECIAL_TOKENS, UNUSED

MASKED_SHARE = 0.15
AS_MASK, AS_RANDOM = 0.8, 0.1  # shares of the chosen tokens


@dataclass(frozen=True)
class DynamicMasking:
    """Masks a micro-batch; a pure function of its arguments."""

    mask_id: int
    maskable: NDArray[np.bool_]  # [vocabulary]: False for special tokens, which are never masked nor drawn
    max_predictions_per_seq: int
    seed: int

    @classmethod
    def for_vocabulary(cls, vocab: Mapping[str, int], max_predictions_per_seq: int, seed: int) -> DynamicMasking:
        """Take the special tokens from ``vocab``."""
        maskable = np.ones(len(vocab), bool)
        maskable[[vocab[token] for token in SPECIAL_TOKENS]] = False
        maskable[[index for piece, index in vocab.items() if piece == UNUSED.format(index)]] = False
        return cls(vocab["[MASK]"], maskable, max_predictions_per_seq, seed)

    def __call__(
        self, ids: NDArray, offsets: NDArray[np.int64], epoch: NDArray, sample: NDArray
    ) -> tuple[NDArray, NDArray[np.int64], NDArray]:
        """Return (masked ids, chosen positions in the stream, their original ids).

        ``ids`` [T] are sequences end to end that begin at ``offsets`` [S + 1]; ``epoch`` and ``sample`` [S] name them.
        """
        # The stream of SplitMix64 that starts at the sequence's own hash: number i belongs to the token in place i. Its
        # state there is start + i GAMMA, with i counted from the sequence's beginning.
        start = hash64(self.seed, epoch, sample) - GAMMA * offsets[:-1].astype(np.uint64)
        state = np.arange(1, len(ids) + 1, dtype=np.uint64)
        state *= GAMMA
        state += np.repeat(start, np.diff(offsets))
        choice = mix64(state)
        chosen = self._choose(choice, self.maskable[ids], offsets)
        action = mix64(choice[chosen] + GAMMA)
        fate = uniform(action)
        ordinary = np.flatnonzero(self.maskable)
        random_ids = ordinary[below(mix64(action + GAMMA), len(ordinary))]
        labels, masked = ids[chosen], ids.copy()
        masked[chosen] = np.select([fate < AS_MASK, fate < AS_MASK + AS_RANDOM], [self.mask_id, random_ids], labels)
        return masked, chosen, labels

    def _choose(self, draws: NDArray[np.uint64], maskable: NDArray[np.bool_], offsets: NDArray) -> NDArray[np.int64]:
        """Return the positions whose draw is low enough, at least one and not too many a sequence; ascending."""
        chosen = np.flatnonzero((draws < np.uint64(MASKED_SHARE * 2**64)) & maskable)
        without = np.flatnonzero(np.diff(np.searchsorted(chosen, offsets)) == 0)
        spans = offsets[np.stack([without, without + 1], axis=1)].tolist()
        candidates = [low + np.flatnonzero(maskable[low:high]) for low, high in spans]
        lowest = [places[draws[places].argmin()] for places in candidates if len(places)]
        if lowest:
            chosen = np.sort(np.append(chosen, lowest))
        bounds = np.searchsorted(chosen, offsets)
        counts = np.diff(bounds)
        if len(counts) == 0 or counts.max() <= self.max_predictions_per_seq:
            return chosen
        # Keep the lowest draws of each sequence: sorting by (sequence, draw) puts them first in its range.
        ranked = np.lexsort((draws[chosen], rows_of(bounds)))
        kept = ranked[columns_of(bounds) < self.max_predictions_per_seq]
        return np.sort(chosen[kept])
