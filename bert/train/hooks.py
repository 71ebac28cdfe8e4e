"""What the training loop exchanges with the command around it: batches in, reports and an outcome out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


class Loader(Protocol):
    """Lists of micro-batches (:class:`bert.batch.TokenStream`), one list per optimizer step."""

    def __next__(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...  # the position after the last list drawn

    @property
    def epoch(self) -> float: ...  # passes over the data so far


@dataclass
class TrainState:
    """The counters that a checkpoint carries."""

    step: int = 0  # optimizer steps applied
    iteration: int = 0  # global batches drawn: applied and skipped
    data: dict[str, Any] = field(default_factory=dict)  # the loader's position


@dataclass
class StepReport:
    """Means over the steps since the last report."""

    step: int
    losses: dict[str, float]
    learning_rate: float
    grad_norm: float
    sequences_per_second: float
    tokens_per_second: float
    flops_per_second: float
    rank_seconds: list[float]  # of each rank's own work in a step, waiting for the others excluded
    device_memory: int  # bytes at the peak; of the rank that held most
    host_memory: int
    eta: float | None  # seconds


@dataclass
class Hooks:
    """What the loop calls, and every how many optimizer steps; ``save`` and ``evaluate`` also run at the end."""

    report: Callable[[StepReport], None]
    report_every: int = 1
    evaluate: Callable[[], None] = lambda: None
    evaluate_every: int = 0  # 0 = only at the end
    save: Callable[[], None] = lambda: None
    save_every: int = 0
    step: Callable[[], None] = lambda: None  # after every optimizer step

    def due(self, step: int, last_step: int) -> bool:
        """Tell whether ``step`` is followed by something that looks at its outcome."""
        return step == last_step or any(
            every and step % every == 0 for every in (self.report_every, self.evaluate_every, self.save_every)
        )


@dataclass
class Outcome:
    """How ``fit`` ended."""

    interrupted: bool
    steps: int  # applied, earlier runs included
    final_loss: float
    sequences_per_second: float
    flops_per_second: float
    device_memory: int  # as in a report
    host_memory: int
    seconds: float
