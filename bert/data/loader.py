"""The loader of pre-training data: one global order, any world size, resumable by value.

    shards ──Dataset──▶ decoded chunks ┐
    (seed, epoch) ──GlobalOrder──▶ samples of step k ──assemble──▶ list of micro-batches

Step k is a pure function of the data set, the seed and k, so threads assemble steps ahead of the training loop and the
position is one number. A checkpoint taken at one world size resumes at any other::

    with PretrainingLoader(dataset, 256, Share(rank, world_size=8, micro_batches=4), seed=42) as loader:
        for micro_batches in loader:                # endless; one optimizer step each
            ...
            state = loader.state_dict()             # {"consumed": 16, "lanes": 16, ...}
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert.batch import Batch
from bert.data.collate import assemble
from bert.data.dataset import Dataset
from bert.data.masking import DynamicMasking
from bert.data.order import BLOCK, GlobalOrder, Samples, choose_lanes
from bert.errors import UsageError
from bert.ragged import even_part

READ_AHEAD_CHECKS = 8  # times per block of samples that the shards of the next block are looked up


@dataclass(frozen=True)
class Share:
    """Which part of every global batch a process gets, and in what form."""

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1
    pin_memory: bool = False  # page-locked, to be copied to a GPU


class PretrainingLoader:
    """Endless iterator over optimizer steps: each is the list of a rank's micro-batches.

    ``state`` is a :meth:`state_dict` to resume from. Use as a context manager, or call :meth:`close`.
    """

    def __init__(
        self,
        dataset: Dataset,
        global_batch_size: int,
        share: Share = Share(),
        *,
        seed: int,
        num_workers: int = 4,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise UsageError where ``state`` is of another data set or does not fit the batch size."""
        sequences, world_size = global_batch_size // share.world_size, share.world_size
        if sequences < share.micro_batches:
            raise UsageError(
                f"--gradient_accumulation_steps {share.micro_batches}: {global_batch_size} sequences a step leave "
                f"{sequences} to each of {world_size} devices"
            )
        if state is not None and state["fingerprint"] != dataset.fingerprint:
            raise UsageError(
                f"--input_dir: {dataset.num_samples} sequences, shards {dataset.fingerprint[:12]}; the checkpoint was "
                f"trained on {state['num_samples']} in {state['fingerprint'][:12]}"
            )
        self.dataset, self.share = dataset, share
        self.seed = seed if state is None else state["seed"]
        lanes = choose_lanes(global_batch_size, dataset.num_samples, world_size) if state is None else state["lanes"]
        self.order = GlobalOrder(dataset.chunk_sizes, global_batch_size, lanes, self.seed)
        self._masking = _masking(dataset, self.seed)
        self._start = 0 if state is None else state["consumed"]
        self._step = 0
        self._window = num_workers + 2
        self._pool = ThreadPoolExecutor(num_workers, "loader") if num_workers else None
        self._pending: deque[Future[list[Batch]]] = deque()
        self._ahead: set[int] = set()

    @property
    def consumed(self) -> int:
        """Samples drawn so far from each lane."""
        return self._consumed(self._step)

    @property
    def epoch(self) -> float:
        """How many times the data have been read."""
        return self.order.epoch(self.consumed)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last step that was drawn, as plain values."""
        return {
            "consumed": self.consumed,
            "lanes": self.order.lanes,
            "seed": self.seed,
            "global_batch_size": self.order.global_batch_size,
            "num_samples": self.dataset.num_samples,
            "fingerprint": self.dataset.fingerprint,
        }

    def build_step(self, step: int) -> list[Batch]:
        """Assemble the ``step``-th global batch after the start; pure."""
        share = self.share
        return assemble(self.dataset, self._masking, self._samples(step), share.micro_batches, share.pin_memory)

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        if self._pool is None:
            batches = self.build_step(self._step)
        else:
            try:
                self._fill(self._pool)
                batches = self._pending.popleft().result()
            except BaseException:
                self.close()
                raise
        self._step += 1
        return batches

    def close(self) -> None:
        """Drop the steps ahead and join the threads; the loader cannot be drawn from again."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PretrainingLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _consumed(self, step: int) -> int:
        return self._start + step * self.order.samples_per_lane

    def _samples(self, step: int) -> Samples:
        return self.order.samples(self._consumed(step), self.share.rank, self.share.world_size)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        """Submit the next steps for assembly, and the chunks that the lanes reach afterwards for decoding."""
        if self._step == 0 and not self._pending:
            self._read_ahead(pool, 0)
        while len(self._pending) < self._window:
            step = self._step + len(self._pending)
            self._pending.append(pool.submit(self.build_step, step))
            steps_in_block = max(1, BLOCK // self.order.samples_per_lane)
            if step % max(1, steps_in_block // READ_AHEAD_CHECKS) == 0:
                self._read_ahead(pool, step + steps_in_block)

    def _read_ahead(self, pool: ThreadPoolExecutor, step: int) -> None:
        chunks = set(np.unique(self._samples(step).shard).tolist())
        for index in sorted(chunks - self._ahead):
            pool.submit(self.dataset.prefetch, index)
        self._ahead = chunks


def eval_batches(dataset: Dataset, micro_batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """Yield a rank's part of the data set, in file order and each sequence exactly once.

    Masks, where the shards have none, are always the same. Ranks have equally many batches of at most
    ``micro_batch_size`` unless there are fewer sequences than that needs: no batch is empty.
    """
    masking = _masking(dataset, seed=0)
    mine = even_part(dataset.num_samples, rank, world_size)
    largest_share = -(-dataset.num_samples // world_size)
    steps = -(-largest_share // micro_batch_size)
    for step in range(steps):
        part = even_part(len(mine), step, steps)
        if part:
            number = np.array(mine[part.start : part.stop])
            chunk = np.searchsorted(dataset.first_samples, number, side="right") - 1
            samples = Samples(np.zeros_like(number), chunk, number - dataset.first_samples[chunk])
            yield assemble(dataset, masking, samples, micro_batches=1)[0]


def _masking(dataset: Dataset, seed: int) -> DynamicMasking | None:
    if dataset.vocab is None:
        return None
    return DynamicMasking.for_vocabulary(dataset.vocab, dataset.limits.max_predictions_per_seq, seed)
