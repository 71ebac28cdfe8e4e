"""A run: the one value that a training command carries from function to function.

It holds the flags, this process among the ranks, the number format, the stop signal and the log. ``build_run`` makes
it, nothing changes it, and whatever a function needs of its surroundings it takes from here::

    with join_world(settings.distributed) as world, StopSignal() as stop:
        run = build_run(settings, world, stop)      # reads only: nothing is written yet
        run.notice(run.geometry.banner())           # printed once, not once a rank
        with open_log(run) as run:                  # the same run, with a log that writes
            run.logger.parameter(SEED=run.seed)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from bert.distributed import StopSignal, World, collective_errors
from bert.errors import UsageError
from bert.lock import owning
from bert.log import LogConfig, Logger, build_logger, resolve_log
from bert.optim.build import OptimizerConfig
from bert.optim.schedules import ScheduleConfig
from bert.train.batch_geometry import BatchConfig, BatchGeometry, batch_geometry
from bert.train.parallel import ParallelConfig
from bert.train.precision import Precision, PrecisionConfig


class Settings(Protocol):
    """The flags that every training command has, grouped as they are declared."""

    @property
    def run(self) -> Any: ...  # output_dir, seed
    @property
    def batch(self) -> BatchConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def precision(self) -> PrecisionConfig: ...
    @property
    def parallel(self) -> ParallelConfig: ...
    @property
    def log(self) -> LogConfig: ...


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Run(Generic[S]):
    settings: S
    world: World
    precision: Precision
    stop: StopSignal = field(default_factory=StopSignal)
    logger: Logger = field(default_factory=Logger)

    @property
    def seed(self) -> int:
        return self.settings.run.seed

    @property
    def output_dir(self) -> str:
        return self.settings.run.output_dir

    @property
    def geometry(self) -> BatchGeometry:
        """How a global batch is divided. Raises UsageError where the flags do not divide."""
        return batch_geometry(self.settings.batch, self.world.size)

    @property
    def shows_progress(self) -> bool:
        return self.world.is_main and not self.settings.log.disable_progress_bar

    def notice(self, line: object) -> None:
        """Tell the user, once and not from every rank."""
        if self.world.is_main:
            print(line)


def build_run(settings: S, world: World, stop: StopSignal) -> Run[S]:
    """Return a run that has written nothing yet; its log opens with :func:`open_log`."""
    notice = print if world.is_main else lambda line: None
    return Run(settings, world, Precision(settings.precision, world.device, notice), stop)


def check_output_dir(run: Run[Any]) -> None:
    """Raise UsageError, on every rank, unless --output_dir is, or can become, a folder that files can go to."""
    with collective_errors(run.world):
        path = Path(run.output_dir).absolute()
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if run.world.is_main and not there.is_dir():
            raise UsageError(f"--output_dir {run.output_dir}: expected a folder, {there} is none")
        if run.world.is_main and not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"--output_dir {run.output_dir}: no permission to write to {there}")


@contextmanager
def open_log(run: Run[S]) -> Iterator[Run[S]]:
    """Yield ``run`` with its log open, and --output_dir locked until it closes.

    Raises UsageError on every rank, naming the flag, where a file cannot be written or another run writes there.
    """
    with ExitStack() as held:
        with collective_errors(run.world):
            if run.world.is_main:
                held.enter_context(owning(run.output_dir, f"--output_dir {run.output_dir}"))
            files = resolve_log(run.settings.log, run.output_dir)
            logger = held.enter_context(build_logger(*files, run.world.is_main))
        yield replace(run, logger=logger)
