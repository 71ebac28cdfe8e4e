"""Sums of a few numbers over all ranks, in the background, after a number of messages that grows as log2(ranks).

Gloo's own all-reduce is a ring: 2 (n - 1) successive messages however small the tensor, 40 ms among 1,024 ranks at
20 µs a message. Here ranks exchange in pairs, at distances 1, 2, 4, ... (recursive doubling; Thakur et al. 2005), in a
thread and over connections of their own::

    sums = TreeSums()                   # on every rank
    first = sums.start([1, 0, 76])      # returns at once; every rank starts the same sums in the same order
    first.result()                      # waits until every rank has started it
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class TreeSums:
    """Adds lists of int64 over the ranks. Without a process group a sum is the list itself."""

    def __init__(self, patience: timedelta | None = None) -> None:
        """``patience`` is how long to wait for a rank; a sum that gives up raises RuntimeError where it is read."""
        self._group: Any = dist.new_group(backend="gloo", timeout=patience) if dist.is_initialized() else None
        self._tasks: queue.SimpleQueue[tuple[Tensor, Future[list[int]]] | None] = queue.SimpleQueue()
        if self._group is not None:
            # A daemon: after an error it may wait for a rank that has ended.
            threading.Thread(target=self._work, daemon=True, name="sums").start()

    def start(self, values: list[int]) -> Future[list[int]]:
        """Begin to add ``values``, equally many on every rank."""
        done: Future[list[int]] = Future()
        if self._group is None:
            done.set_result(list(values))
        else:
            self._tasks.put((torch.tensor(values, dtype=torch.int64), done))
        return done

    def close(self) -> None:
        """End the thread once the sums that were started are done."""
        self._tasks.put(None)

    def _work(self) -> None:
        rank, size = dist.get_rank(), dist.get_world_size()
        while (task := self._tasks.get()) is not None:
            values, done = task
            try:
                done.set_result(self._sum(values, rank, size).tolist())
            except BaseException as error:  # a rank that ended; whoever reads the sum raises it
                done.set_exception(error)
                return

    def _sum(self, values: Tensor, rank: int, size: int) -> Tensor:
        """Ranks beyond a power of two hand their values to one below it, and get the sum from there."""
        power = 1 << (size.bit_length() - 1)
        if rank >= power:
            self._send(values, rank - power)
            return self._receive(values, rank - power)
        if rank + power < size:
            values = values + self._receive(values, rank + power)
        distance = 1
        while distance < power:
            sent = dist.isend(values, rank ^ distance, group=self._group)
            received = self._receive(values, rank ^ distance)
            if sent is not None:
                sent.wait()
            values, distance = values + received, 2 * distance
        if rank + power < size:
            self._send(values, rank + power)
        return values

    def _send(self, values: Tensor, to: int) -> None:
        dist.send(values, to, group=self._group)

    def _receive(self, like: Tensor, sender: int) -> Tensor:
        received = torch.empty_like(like)
        dist.recv(received, sender, group=self._group)
        return received
