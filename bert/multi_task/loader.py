"""Sequences of several tasks → optimizer steps of micro-batches, independent of the world size.

Every task has a stream of its own: epochs, each a new permutation, end to end. A step takes the next sequences of the
tasks that the sampler names, so the position is the number of sequences drawn of each task::

    loader = MultiTaskLoader(sequences, geometry, sampler)          # sequences.labels["task"]: [n]
    loader.state_dict()                                             # {"batches": 2, "drawn": [32, 0, 32]}
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert.finetune.loader import TaskLoader, in_stream
from bert.multi_task.sampling import Sampler
from bert.sequences import Sequences
from bert.train.batch_geometry import BatchGeometry

ORDERS = 2  # tells the generator of the permutations from that of the sampler


class MultiTaskLoader(TaskLoader):
    """As :class:`TaskLoader`; within a micro-batch the sequences of a task are neighbours."""

    def __init__(
        self,
        sequences: Sequences,
        geometry: BatchGeometry,
        sampler: Sampler,
        rank: int = 0,
        pin_memory: bool = False,
        state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(sequences, geometry, sampler.seed, rank, pin_memory, state)
        self.sampler = sampler
        self.drawn: list[int] = list((state or {}).get("drawn", [0] * len(sampler.sizes)))
        self._members = [np.flatnonzero(sequences.labels["task"] == task) for task in range(len(sampler.sizes))]
        self._order = lru_cache(maxsize=2 * len(sampler.sizes))(self._draw_order)

    @property
    def epoch(self) -> float:
        """Epochs of ``steps_per_epoch`` steps so far."""
        return self.batches / self.sampler.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step drawn."""
        return {**super().state_dict(), "drawn": list(self.drawn)}

    def _next_batch(self) -> NDArray[np.int64]:
        tasks = self.sampler.tasks(self.batches, self.geometry.global_batch)
        chosen = np.empty_like(tasks)
        for task in np.unique(tasks).tolist():
            places, start = np.flatnonzero(tasks == task), self.drawn[task]
            self.drawn[task] += len(places)
            members = self._members[task]
            order = in_stream(start, self.drawn[task], len(members), lambda epoch, task=task: self._order(task, epoch))
            chosen[places] = members[order]
        self.batches += 1
        return chosen

    def _draw_order(self, task: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, ORDERS, task, epoch]).permutation(len(self._members[task]))
