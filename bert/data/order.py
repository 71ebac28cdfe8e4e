"""The global order of samples: which sample stands in which slot of which global batch, as arithmetic.

In every epoch the shards are permuted and laid end to end, and these N samples are cut into L equal segments. Lane l
of L reads segment l in epoch 0, l + 1 in epoch 1, and so on in a circle; within a segment, blocks of some thousand
samples are shuffled. A global batch of G takes the next G / L samples of every lane, lane after lane::

    segments    |    0    |    1    |    2    |    3    |    0    |    1    | ...         N = 4 segments
    lane 0       --> epoch 0   --> 1     --> 2     --> 3     --> 4
    lane 1                 --> epoch 0   --> 1     --> 2     --> 3
                                         each lane walks the same endless line from its own start

So the batches depend on (seed, G, L) but not on the world size: rank r of W serves the slots r G / W to (r + 1) G / W,
which are whole lanes where W divides L. Every sample is read exactly once per epoch of its lane, batches are always
full, and the position after k steps is k G / L in every lane, so resuming needs no replay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bert.data.hashing import hash64
from bert.errors import UsageError
from bert.ragged import even_part

LANES = 16  # about this many shards are decoded at a time, and a batch is drawn from this many places of the data
BLOCK = 4096  # samples shuffled together; with 16 lanes a batch is drawn from 65,536

Indices = NDArray[np.int64]


def choose_lanes(global_batch_size: int, num_samples: int, world_size: int) -> int:
    """Return the number of lanes: a divisor of the global batch, at most the samples, near max(16, world size).

    Multiples of the world size are preferred, so that no two ranks decode the same shard for one lane.
    """
    wanted = max(LANES, world_size)
    divisors = [d for d in range(1, min(global_batch_size, num_samples) + 1) if global_batch_size % d == 0]
    return min(divisors, key=lambda d: (d % world_size != 0, abs(math.log(d / wanted))))


@dataclass(frozen=True)
class Samples:
    """Samples in slot order."""

    epoch: Indices
    shard: Indices
    row: Indices


class GlobalOrder:
    """The order of ``sum(shard_sizes)`` samples in batches of ``global_batch_size``, dealt to ``lanes``."""

    def __init__(self, shard_sizes: Sequence[int] | Indices, global_batch_size: int, lanes: int, seed: int) -> None:
        """Raise UsageError where the lanes do not divide the batch."""
        self.shard_sizes = np.asarray(shard_sizes, np.int64)
        self.num_samples = int(self.shard_sizes.sum())
        self.global_batch_size, self.lanes, self.seed = global_batch_size, lanes, seed
        if global_batch_size % lanes:
            raise UsageError(
                f"global batch size {global_batch_size} is not divisible by the {lanes} lanes that the data order was "
                "started with (recorded in the checkpoint)"
            )
        self._epoch_layout = lru_cache(maxsize=8)(self._lay_out_epoch)
        self._block = lru_cache(maxsize=4 * lanes)(self._shuffle_block)

    @property
    def samples_per_lane(self) -> int:
        """Samples that a step takes from each lane."""
        return self.global_batch_size // self.lanes

    def slots(self, rank: int, world_size: int) -> range:
        """Return the slots of a global batch that ``rank`` serves."""
        return even_part(self.global_batch_size, rank, world_size)

    def samples(self, consumed: int, rank: int = 0, world_size: int = 1) -> Samples:
        """Return the samples of a rank's slots in the batch that follows ``consumed`` samples per lane."""
        slots, depth = self.slots(rank, world_size), self.samples_per_lane
        parts: list[Indices] = []
        for lane in range(slots.start // depth, -(-slots.stop // depth)):
            first, last = max(slots.start - lane * depth, 0), min(slots.stop - lane * depth, depth)
            parts += self._walk(lane, consumed + first, last - first)
        return Samples(*np.concatenate(parts, axis=1)) if parts else Samples(*np.zeros((3, 0), np.int64))

    def epoch(self, consumed: int) -> float:
        """Return how many times the data have been read, in epochs."""
        return consumed * self.lanes / self.num_samples

    def _walk(self, lane: int, position: int, count: int) -> Iterator[Indices]:
        """Yield ``count`` samples of a lane, starting at ``position``, as [3, n] parts of blocks."""
        place = lane * self.num_samples // self.lanes + position  # on the endless line
        while count:
            number = _part_of(place, self.num_samples, self.lanes)
            segment = even_part(self.num_samples, number, self.lanes)  # goes on beyond the last lane
            inside, size = place - segment.start, len(segment)
            blocks = -(-size // BLOCK)
            block = even_part(size, _part_of(inside, size, blocks), blocks)
            ahead = inside - block.start
            taken = min(count, len(block) - ahead)
            begin = (segment.start + block.start) % self.num_samples
            yield self._block(number - lane, begin, len(block))[:, ahead : ahead + taken]
            place, count = place + taken, count - taken

    def _shuffle_block(self, epoch: int, begin: int, length: int) -> Indices:
        """Return [3, length]: epoch, shard and row of the samples ``begin``, ... of an epoch's line, shuffled."""
        sample = begin + hash64(self.seed, epoch, begin, np.arange(length)).argsort(kind="stable")
        order, ends = self._epoch_layout(epoch)
        turn = np.searchsorted(ends, sample, side="right")
        shard = order[turn]
        return np.stack([np.full_like(shard, epoch), shard, sample - ends[turn] + self.shard_sizes[shard]])

    def _lay_out_epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """Return the shards in the epoch's order, and where each ends."""
        order = hash64(self.seed, epoch, np.arange(len(self.shard_sizes))).argsort(kind="stable")
        return order, np.cumsum(self.shard_sizes[order])


def _part_of(place: int, total: int, parts: int) -> int:
    """Return the index of the :func:`~bert.ragged.even_part` that holds ``place``."""
    return ((place + 1) * parts - 1) // total
