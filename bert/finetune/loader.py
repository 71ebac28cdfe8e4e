"""Sequences of a task → optimizer steps of micro-batches, in an order that depends on no world size.

Epochs, each a permutation of its own, lie end to end, and step k takes the k-th global batch of that stream; so no
remainder is dropped, and the position is the number of steps::

    loader = TaskLoader(sequences, BatchGeometry(micro=16, accumulation=2, world=1), seed=42)
    micro_batches = next(loader)
    loader.state_dict()         # {"batches": 1}
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.batch import TaskBatch
from bert.ragged import cut_evenly
from bert.sequences import Sequences, collate
from bert.train.batch_geometry import BatchGeometry


class TaskLoader(Iterator[list[TaskBatch]]):
    """Endless; each rank serves its share of every global batch, cut into micro-batches of near-equal real tokens."""

    def __init__(
        self,
        sequences: Sequences,
        geometry: BatchGeometry,
        seed: int,
        rank: int = 0,
        pin_memory: bool = False,
        state: dict[str, Any] | None = None,
    ) -> None:
        """``state`` is a :meth:`state_dict` to continue from."""
        self.sequences, self.geometry, self.seed = sequences, geometry, seed
        self.rank, self.pin_memory = rank, pin_memory
        self.batches = (state or {}).get("batches", 0)
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def __next__(self) -> list[TaskBatch]:
        mine = np.split(self._chosen(self.batches), self.geometry.world)[self.rank]
        self.batches += 1
        mine = mine[np.argsort(self.sequences.lengths[mine], kind="stable")]
        bounds = cut_evenly(self.sequences.lengths[mine], self.geometry.accumulation)
        batches = [collate(self.sequences, mine[low:high]) for low, high in pairwise(bounds.tolist())]
        return [batch.pinned() for batch in batches] if self.pin_memory else batches

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.batches * self.geometry.global_batch / len(self.sequences)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step drawn."""
        return {"batches": self.batches}

    def _chosen(self, batch: int) -> NDArray[np.int64]:
        """Return the sequences of a global batch."""
        places = np.arange(batch * self.geometry.global_batch, (batch + 1) * self.geometry.global_batch)
        epochs, inside = np.divmod(places, len(self.sequences))
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._permutation(int(epoch))[inside[epochs == epoch]]
        return chosen

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences))


def steps_of(sequences: int, global_batch: int, epochs: float, max_steps: int) -> int:
    """Return the optimizer steps of a run: whole batches in ``epochs`` passes, or ``max_steps`` if above 0."""
    return max_steps if max_steps > 0 else max(1, int(sequences * epochs / global_batch))
