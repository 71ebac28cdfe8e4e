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

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from bert.distributed import StopSignal, World, collective_errors
from bert.lock import owning
from bert.log import LogConfig, Logger, build_logger, resolve_tensorboard_dir
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


@contextmanager
def open_log(run: Run[S]) -> Iterator[Run[S]]:
    """Yield ``run`` with its log open, and --output_dir locked until it closes.

    Raises UsageError on every rank, naming the flag, where a file cannot be written or another run writes there.
    """
    log, is_main = run.settings.log, run.world.is_main
    tensorboard = resolve_tensorboard_dir(log.tensorboard_dir, run.output_dir)
    with ExitStack() as held:
        with collective_errors(run.world):
            if is_main:
                held.enter_context(owning(run.output_dir, f"--output_dir {run.output_dir}"))
            logger = held.enter_context(build_logger(log.json_summary, tensorboard, is_main))
        yield replace(run, logger=logger)
