"""Sequences of a task → optimizer steps of micro-batches, in an order that depends on no world size.

Epochs, each a permutation of its own, lie end to end, and step k takes the k-th global batch of that stream; so no
remainder is dropped, and the position is the number of steps::

    loader = TaskLoader(sequences, BatchGeometry(micro=16, accumulation=2, world=1), seed=42)
    micro_batches = next(loader)
    loader.state_dict()         # {"batches": 1}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        mine = np.split(self._next_batch(), self.geometry.world)[self.rank]
        mine = mine[np.argsort(self.sequences.lengths[mine], kind="stable")]
        bounds = cut_evenly(self.sequences.lengths[mine], self.geometry.accumulation)
        parts = [by_task(self.sequences, mine[low:high]) for low, high in pairwise(bounds.tolist())]
        batches = [collate(self.sequences, part) for part in parts]
        return [batch.pinned() for batch in batches] if self.pin_memory else batches

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.batches * self.geometry.global_batch / len(self.sequences)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step drawn."""
        return {"batches": self.batches}

    def _next_batch(self) -> NDArray[np.int64]:
        """Return the sequences of the next global batch."""
        start = self.batches * self.geometry.global_batch
        self.batches += 1
        return in_stream(start, start + self.geometry.global_batch, len(self.sequences), self._permutation)

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences))


def in_stream(start: int, stop: int, length: int, permutation: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return places ``start`` to ``stop`` of epochs that lie end to end, each a permutation of ``length``."""
    epochs, inside = np.divmod(np.arange(start, stop), length)
    chosen = np.empty_like(inside)
    for epoch in np.unique(epochs):
        chosen[epochs == epoch] = permutation(int(epoch))[inside[epochs == epoch]]
    return chosen


def by_task(sequences: Sequences, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``chosen`` with the sequences of a task next to each other, as a batch of several tasks needs them."""
    tasks = sequences.labels.get("task")
    return chosen if tasks is None else chosen[np.argsort(tasks[chosen], kind="stable")]


def steps_of(sequences: int, global_batch: int, epochs: float, max_steps: int) -> int:
    """Return the optimizer steps of a run: whole batches in ``epochs`` passes, or ``max_steps`` if above 0."""
    return max_steps if max_steps > 0 else max(1, int(sequences * epochs / global_batch))
