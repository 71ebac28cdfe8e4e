"""What the ranks agree on for every optimizer step, without one rank waiting for another.

A step is drawn before the one in front of it is computed. One sum over the ranks then starts on the host, of O(log n)
messages: who met a bad file, who was asked to stop, how many terms each loss has. It is read when that step begins, so
it runs while the step in front of it is computed. A stop is therefore agreed on at most one step late, by all ranks at
the same step::

    control = Control(world, loader, stop)
    drawn = control.next()              # raises the UsageError that any rank met
    ...                                 # control.interrupted() between micro-batches
    state.data = drawn.position         # the loader itself is a step ahead
    if control.stopping():
        break

With one process nothing communicates, a step is drawn when it begins, and a stop is seen at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from bert.distributed import TreeSums, World, agree_any, broadcast_error
from bert.errors import UsageError
from bert.train.hooks import Loader

LOSSES = 6  # of a step at most: the sums of all ranks have one length, also where drawing failed


@dataclass
class Drawn:
    """One optimizer step, as the loader gave it."""

    micro_batches: list[Any]
    terms: dict[str, int]  # of each loss; of this rank until Control.next returns it, then of all ranks
    position: dict[str, Any]  # the loader's, after this step
    epoch: float
    seconds: float  # that drawing took
    error: str | None
    sums: Future[list[int]]  # [errors, stops, terms of each loss in the order of their names, 0, ...]


class Control:
    """Draws the steps of a run and agrees on them; every rank makes the same calls in the same order."""

    def __init__(self, world: World, loader: Loader, stop: Any) -> None:
        """``stop.requested`` tells whether this rank was asked to stop."""
        self.world, self.loader, self.stop = world, loader, stop
        self._ahead: Drawn | None = None
        self._sums = TreeSums(world.patience)
        self._vote: Future[list[int]] | None = None  # of the last micro-batch: who was asked to stop

    def next(self) -> Drawn:
        """Return the next step and draw the one after it. Raises the UsageError that any rank met while drawing."""
        drawn = self._ahead or self._draw()
        errors, _, *terms = drawn.sums.result()
        if errors:
            broadcast_error(drawn.error)
        drawn.terms = dict(zip(drawn.terms, terms, strict=False))
        self._ahead = self._draw() if self.world.size > 1 else None
        return drawn

    def interrupted(self) -> bool:
        """Tell between micro-batches whether a rank was asked to stop before its previous call of this."""
        if self.world.size == 1:
            return self.stop.requested
        before, self._vote = self._vote, self._sums.start([int(self.stop.requested)])
        return before is not None and before.result()[0] > 0

    def stopping(self) -> bool:
        """Tell after a step whether a rank had been asked to stop when the step began or within its accumulation."""
        if self._ahead is None:
            return self.stop.requested
        vote, self._vote = self._vote, None
        return self._ahead.sums.result()[1] > 0 or (vote is not None and vote.result()[0] > 0)

    def close(self) -> bool:
        """Wait for what is under way; return whether any rank has been asked to stop by now."""
        self.stopping()
        self._sums.close()
        return agree_any(self.stop.requested)

    def _draw(self) -> Drawn:
        micro_batches, error, began = [], None, time.perf_counter()
        try:
            micro_batches = next(self.loader)
        except UsageError as raised:
            error = str(raised)
        seconds, terms = time.perf_counter() - began, count_terms(micro_batches)
        assert len(terms) <= LOSSES, terms
        padding = [0] * (LOSSES - len(terms))
        sums = self._sums.start([int(error is not None), int(self.stop.requested), *terms.values(), *padding])
        return Drawn(micro_batches, terms, self.loader.state_dict(), self.loader.epoch, seconds, error, sums)


def count_terms(micro_batches: Iterable[Any]) -> dict[str, int]:
    """Return how many terms each loss has in ``micro_batches``, by name."""
    terms: Counter[str] = Counter()
    for batch in micro_batches:
        for name, count in batch.loss_weights().items():
            terms[name] += count
    return dict(sorted(terms.items()))
