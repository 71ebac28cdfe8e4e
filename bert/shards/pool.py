"""Independent tasks on several processes, their results in order, and a progress bar with the time that remains.

for entry in run_parallel(make_shard, tasks, num_workers=0, description="Balancing", show=True): ...
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from bert.errors import UsageError
from bert.log.progress import progress

AHEAD = 3  # tasks handed out per worker

T = TypeVar("T")
R = TypeVar("R")


def run_parallel(
    function: Callable[[T], R], tasks: Sequence[T], num_workers: int, *, description: str, show: bool
) -> Iterator[R]:
    """Yield ``function(task)`` for every task; 0 workers means one per core, and 1 works in this process.

    The first error ends the run. Raises UsageError where a worker is killed.
    """
    workers = min(num_workers or len(os.sched_getaffinity(0)), len(tasks))
    with progress(total=len(tasks), description=description, unit="shard", disable=not show) as bar:
        for result in map(function, tasks) if workers <= 1 else _on_processes(function, tasks, workers):
            yield result
            bar.update()


def _on_processes(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    # Fork would copy the threads of the libraries in an undefined state.
    context = multiprocessing.get_context("spawn")
    under_way: deque[Future[R]] = deque()
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        try:
            for task in tasks:
                under_way.append(pool.submit(function, task))
                # Few ahead, so that little is left to wait for after an error: cancelling can hang a broken pool.
                if len(under_way) > AHEAD * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise UsageError(
                f"--num_workers {workers}: a worker process was killed, probably for lack of memory; try fewer"
            ) from error


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, so that no orphan writes while the next run works."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
