"""Outputs of a model for many sequences: batches of near-equal length, dealt to the ranks, results in input order.

The batches are the same for any number of ranks, and so are the results, bit for bit::

    outputs = predict(objective, sequences, batch_size=8, precision, world)
    outputs.values              # [n, classes], or [T, 2] for an objective that scores tokens
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bert.distributed import World, all_reduce_sum
from bert.finetune.loader import by_task
from bert.log import progress
from bert.memory import HostCopy
from bert.ragged import ranges
from bert.sequences import Sequences, collate
from bert.train.precision import Precision

AHEAD = {"cuda": 2}  # batches that the device has queued while the host stores an earlier one; bounds their memory


class Predictor(Protocol):
    """What :func:`predict` needs of an objective."""

    per_token: bool
    width: int

    def predict(self, batch: Any) -> Any: ...
    def eval(self) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass
class Outputs:
    """The outputs of a model and how long they took."""

    values: NDArray[np.float32]  # [rows, width], a row per sequence or per token
    seconds: float
    latencies: list[float] = field(default_factory=list)  # seconds of each batch of this rank, not counting a queue
    batch_sizes: list[int] = field(default_factory=list)


@torch.no_grad()
def predict(
    objective: Predictor, sequences: Sequences, batch_size: int, precision: Precision, world: World, show: bool = False
) -> Outputs:
    """Run all ``sequences``; every rank gets all results. Raises RuntimeError if one is missing or duplicated."""
    began = time.perf_counter()
    starts = sequences.offsets[:-1] if objective.per_token else np.arange(len(sequences))
    rows = int(sequences.offsets[-1]) if objective.per_token else len(sequences)
    values = torch.zeros(rows, objective.width)
    seen = torch.zeros(len(sequences), dtype=torch.int64)
    outputs = Outputs(values.numpy(), 0.0)
    cuda = world.device.type == "cuda"
    queued: deque[tuple[NDArray[np.int64], HostCopy, Instant, Instant]] = deque()

    def store() -> None:
        chosen, result, start, end = queued.popleft()
        counts = sequences.lengths[chosen] if objective.per_token else np.ones(len(chosen), np.int64)
        values[torch.from_numpy(ranges(starts[chosen], counts))] = result.wait()
        outputs.latencies.append(end - start)
        outputs.batch_sizes.append(len(chosen))
        seen[torch.from_numpy(chosen)] += 1

    mine = batches_of(sequences, batch_size)[world.rank :: world.size]
    objective.eval()
    for chosen in progress(mine, description="Predicting", unit="batch", disable=not (show and world.is_main)):
        start = Instant(world.device)
        batch = collate(sequences, chosen)
        with precision.autocast():
            logits = objective.predict((batch.pinned() if cuda else batch).to(world.device))
        queued.append((chosen, HostCopy(logits.float()), start, Instant(world.device)))
        while len(queued) > AHEAD.get(world.device.type, 0):
            store()
    while queued:
        store()
    objective.train()
    # Every row is filled by one rank and zero on the others, so that the sum is exact.
    outputs.values = all_reduce_sum(values.to(world.device)).cpu().numpy()
    if not bool((all_reduce_sum(seen.to(world.device)) == 1).all()):
        raise RuntimeError("predictions are missing or duplicated")
    outputs.seconds = time.perf_counter() - began
    return outputs


class Instant:
    """A point in time; of a GPU's queue, where there is one, so that taking it does not wait."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        self._host = time.perf_counter()
        if self._event:
            self._event.record()

    def __sub__(self, earlier: Instant) -> float:
        """Wait for this instant and return the seconds since ``earlier``."""
        if self._event and earlier._event:
            self._event.synchronize()
            return earlier._event.elapsed_time(self._event) / 1000
        return self._host - earlier._host


def batches_of(sequences: Sequences, batch_size: int) -> list[NDArray[np.int64]]:
    """Cut the sequences, longest first, into batches; within one, those of a task are neighbours."""
    order = np.argsort(-sequences.lengths, kind="stable")
    return [by_task(sequences, order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
