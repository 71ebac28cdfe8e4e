"""Speed: the work in a step, rates by an injected clock, and the ceiling that utilisation is measured against.

Time is wall time from ``start`` on, so waiting for data, for a checkpoint or for other ranks counts. Work is counted
from real tokens, not from padded ones::

    meter = Meter(warmup_steps=4)
    meter.start()                               # before the first batch is fetched
    for step, batch in enumerate(loader):
        ...                                     # forward, backward, optimizer step
        meter.update(sequences, tokens, training_flops(config, tokens, sum_squared_lengths, predictions, sequences))
    rates = meter.total()                       # after the last step's loss was read, so that a GPU has finished it
    print(rates.sequences_per_second, rates.flops_per_second / measure_peak("cuda", torch.bfloat16))
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from operator import add
from typing import Any, NamedTuple

import torch

from bert.model.config import BertConfig

# Per device: the side of the square matrices, large enough to fill it, and the products in one timing, enough that the
# wait at its end does not show.
PEAK_WORK = {"cuda": (8192, 10), "cpu": (512, 1)}
PEAK_TIMINGS = 10


def training_flops(
    config: BertConfig, tokens: int, sum_squared_lengths: int, predictions: int, sequences: int
) -> float:
    """Return the floating-point operations of a forward and backward pass over unpadded sequences.

    A multiply-add counts as two; the backward pass as twice the forward; embeddings, LayerNorm, softmax and activations
    as nothing; so does recomputation (activation checkpointing), which is not useful work. ``sum_squared_lengths``
    is the sum of every sequence's length squared: attention within a sequence takes 4·length²·hidden per layer.
    ``predictions`` are the masked positions, the only rows that the MLM head sees; its columns are the ``vocab_size``
    of ``config``, so give the padded one.
    """
    hidden = config.hidden_size
    linear = 8 * hidden**2 + 4 * hidden * config.intermediate_size  # per token and layer: Q, K, V, output; two dense
    attention = 4 * hidden * sum_squared_lengths  # per layer: scores, and probabilities times values
    mlm_head = 2 * hidden**2 + 2 * hidden * config.vocab_size  # per prediction
    pooler_and_nsp = 2 * hidden**2 + 4 * hidden  # per sequence
    encoder = config.num_hidden_layers * (linear * tokens + attention)
    return 3.0 * (encoder + mlm_head * predictions + pooler_and_nsp * sequences)


def flops_of_batches(config: BertConfig) -> Callable[[Any], float]:
    """Return the function that counts :func:`training_flops` of a micro-batch."""

    def flops(batch: Any) -> float:
        squares = int(batch.cu_seqlens.diff().long().square().sum())
        predictions = batch.loss_weights().get("mlm_loss", 0)
        return training_flops(config, batch.num_tokens, squares, predictions, batch.num_sequences)

    return flops


class Rates(NamedTuple):
    """What ``steps`` steps did in ``seconds``; rates over no time are 0."""

    seconds: float
    steps: int = 0
    sequences: int = 0
    tokens: int = 0
    flops: float = 0.0

    @property
    def steps_per_second(self) -> float:
        return self._per_second(self.steps)

    @property
    def sequences_per_second(self) -> float:
        return self._per_second(self.sequences)

    @property
    def tokens_per_second(self) -> float:
        return self._per_second(self.tokens)

    @property
    def flops_per_second(self) -> float:
        return self._per_second(self.flops)

    def since(self, earlier: Rates) -> Rates:
        """Return the difference of two counts whose ``seconds`` are times of one clock."""
        return Rates._make(now - then for now, then in zip(self, earlier, strict=True))

    def _per_second(self, amount: float) -> float:
        return amount / self.seconds if self.seconds > 0 else 0.0


class Meter:
    """Counts steps and reads the clock; on a GPU, read the step's loss first or queued work counts as done.

    The first ``warmup_steps`` updates (compilation, allocation, filling of the loader) are left out of ``total`` and
    ``eta``, as long as there is a later one. A step here is whatever ``update`` is called for.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, warmup_steps: int = 0):
        self._clock = clock
        self._warmup_steps = warmup_steps
        self._start: Rates | None = None

    def start(self) -> None:
        """Start the clock. Call it before the first batch is fetched, so that waiting for data counts."""
        self._start = self._counts = self._window = self._warm = Rates(self._clock())

    def update(self, sequences: int, tokens: int, flops: float) -> None:
        """Count one step that has just ended."""
        self._counts = Rates._make(map(add, self._now(), (0, 1, sequences, tokens, flops)))
        if self._counts.steps == self._warmup_steps:
            self._warm = self._counts

    def window(self) -> Rates:
        """Return the rates since the last call, or since ``start``."""
        now = self._now()
        rates = now.since(self._window)
        self._window = now
        return rates

    def total(self) -> Rates:
        """Return the rates since the warm-up; since ``start`` where no step came after the warm-up."""
        now = self._now()
        return now.since(self._warm if now.steps > self._warmup_steps else self._start or now)

    def eta(self, remaining_steps: int) -> float | None:
        """Return the seconds that ``remaining_steps`` more steps take at the rate of ``total``; None before any."""
        rate = self.total().steps_per_second
        return remaining_steps / rate if rate else None

    def _now(self) -> Rates:
        if self._start is None:
            raise RuntimeError("Meter.start() was not called: call it before the first batch is fetched")
        return self._counts._replace(seconds=self._clock())


class Stopwatch:
    """Seconds that a rank works on a step by itself: from ``start`` to ``stop``, by the device's own clock.

    With ranks that wait for each other all steps take the same time, so a meter does not show who is slow.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._on_gpu, self._clock = device.type == "cuda", clock
        self._laps: deque[tuple[Any, Any]] = deque(maxlen=1000)
        self._extra = 0.0

    def add(self, seconds: float) -> None:
        """Count ``seconds`` that the host spent on a step before it."""
        self._extra += seconds

    def start(self) -> None:
        """Begin a step."""
        self._began = self._now()

    def stop(self) -> None:
        """End the part of the step that needs no other rank."""
        self._laps.append((self._began, self._now()))

    def mean(self) -> float:
        """Return the mean since the last call; on a GPU, after the step's loss or gradient norm was read."""
        laps = [(begin.elapsed_time(end) / 1e3 if self._on_gpu else end - begin) for begin, end in self._laps]
        mean = (sum(laps) + self._extra) / max(len(laps), 1)
        self._laps.clear()
        self._extra = 0.0
        return mean

    def _now(self) -> Any:
        if not self._on_gpu:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Ceiling:
    """The FLOP/s that utilisation is a share of: measured at the start, and again where training exceeds it."""

    def __init__(self, measure: Callable[[], float], notice: Callable[[str], None]) -> None:
        self.measure, self.notice = measure, notice
        self.value = measure()

    def utilisation(self, flops_per_second: float) -> float:
        """Return ``flops_per_second``, of one device, as a share of the ceiling: at most 1."""
        if flops_per_second > self.value:  # other work slowed the measurement down
            before, self.value = self.value, max(self.measure(), flops_per_second)
            self.notice(
                f"flop_utilisation: training exceeds the measured ceiling of {before:.3g} FLOP/s, perhaps since this "
                f"machine was busy; measured again, it is {self.value:.3g}"
            )
        return flops_per_second / self.value


def measure_peak(
    device: torch.device | str,
    dtype: torch.dtype,
    size: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the FLOP/s of ``device`` in a large square matrix product, the best of ten timings.

    Model-FLOP utilisation is reported against this measured ceiling, not against a data sheet: a power-capped or shared
    device does not reach the sheet's number in any kernel. The best, since other work on the machine only adds to a
    timing. Takes about a second.
    """
    device = torch.device(device)
    default_size, products = PEAK_WORK.get(device.type, PEAK_WORK["cpu"])
    size = size or default_size
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def time_when_done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    warm_up, seconds = 2, []  # the first timings choose the kernel and raise the clock
    for _ in range(warm_up + PEAK_TIMINGS):
        start = time_when_done()
        for _ in range(products):
            torch.matmul(left, right, out=out)
        seconds.append(time_when_done() - start)
    return 2.0 * size**3 * products / min(seconds[warm_up:])
