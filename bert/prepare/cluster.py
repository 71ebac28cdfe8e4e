"""Where the blocks are processed: on this machine, by a running Dask scheduler, or by the ranks of an MPI job.

``--schedule mpi`` assigns the ranks as LDDL does: rank 0 is the scheduler, rank 1 runs this command, and ranks 2 and
up are workers, so ``mpirun -np 34`` gives 32 of them::

    with connect(ClusterConfig(local_n_workers=2)) as client:
        client.submit(work, block)
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bert.config import flag
from bert.errors import UsageError

CONNECT_SECONDS = 30
WORKERS_SECONDS = 120  # for the first worker to join: the nodes of a job start at different times

# One thread in each library: the worker processes already take all cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass
class ClusterConfig:
    schedule: str = flag(
        "local",
        "local: processes on this machine. mpi: under mpirun or srun, rank 0 is the scheduler, rank 1 runs this "
        "command, the others are workers.",
        choices=["local", "mpi"],
    )
    local_n_workers: int = flag(
        0, "Worker processes on this machine; 0 = one per core.", aliases=["num_workers"], minimum=0
    )
    local_threads_per_worker: int = flag(1, "Threads in each worker process; more than 1 rarely pays.", minimum=1)
    scheduler: str | None = flag(None, "Address of a running Dask scheduler, such as tcp://node1:8786.")
    scheduler_file: str | None = flag(None, "File that a running Dask scheduler wrote its address to.")
    memory_limit: str = flag(
        "auto",
        "Memory of a worker process, such as 4GB; auto = its share of the machine. A worker that exceeds it is ended.",
    )


def start_ranks(config: ClusterConfig) -> None:
    """Under ``--schedule mpi``, return only on the rank that runs the command; the others serve it and then exit.

    Raises UsageError where there are too few ranks. Without MPI this only checks the flags.
    """
    if sum(map(bool, (config.schedule == "mpi", config.scheduler, config.scheduler_file))) > 1:
        raise UsageError("--scheduler, --scheduler_file and --schedule mpi: expected one of them")
    if config.schedule != "mpi":
        return
    try:
        import dask_mpi
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UsageError(f"--schedule mpi: needs an MPI library and pip install '.[prepare,mpi]' ({error})") from error
    size = MPI.COMM_WORLD.Get_size()
    if size < 3:
        raise UsageError(
            f"--schedule mpi: started as {size} process{'es' * (size > 1)}, expected at least 3 (scheduler, command, "
            "worker): mpirun -np 3 ..., or leave the flag out to use this machine alone"
        )
    os.environ.update(ENVIRONMENT)
    logging.getLogger("distributed").setLevel(logging.ERROR)
    memory_bytes(config)  # raises UsageError where it is not a size
    dask_mpi.initialize(nthreads=1, memory_limit=config.memory_limit, dashboard=False)


@contextmanager
def connect(config: ClusterConfig) -> Iterator[Any]:
    """Yield a ``distributed.Client``; raises UsageError where no scheduler or worker answers."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed, expected dask[distributed]: pip install '.[prepare]'"
        ) from error
    elsewhere = config.schedule == "mpi" or config.scheduler or config.scheduler_file
    with dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
        yield from (_join if elsewhere else _start)(distributed, config)


def memory_bytes(config: ClusterConfig) -> int | None:
    """Return --memory_limit in bytes; None for auto."""
    if config.memory_limit == "auto":
        return None
    from dask.utils import parse_bytes

    try:
        return parse_bytes(config.memory_limit)
    except ValueError as error:
        raise UsageError(f"--memory_limit {config.memory_limit}: expected a size such as 4GB, or auto") from error


def _start(distributed: Any, config: ClusterConfig) -> Iterator[Any]:
    """Start workers on this machine and yield a client connected to them."""
    # A terminal sends Ctrl-C to every process. The workers inherit that it is ignored; this process ends them.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster = distributed.LocalCluster(
            n_workers=config.local_n_workers or len(os.sched_getaffinity(0)),
            threads_per_worker=config.local_threads_per_worker,
            memory_limit=memory_bytes(config) or "auto",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any port: two runs may share a machine
            scheduler_kwargs={"dashboard": False},
            silence_logs="CRITICAL",
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    with cluster, distributed.Client(cluster) as client:
        yield client


def _join(distributed: Any, config: ClusterConfig) -> Iterator[Any]:
    """Connect to a running scheduler; that of MPI is in Dask's configuration."""
    if config.scheduler_file and not os.path.exists(config.scheduler_file):
        raise UsageError(f"--scheduler_file {config.scheduler_file}: no such file; is the scheduler running?")
    given = {"scheduler": config.scheduler, "scheduler_file": config.scheduler_file, "schedule": config.schedule}
    where = next(f"--{name} {value}" for name, value in given.items() if value)
    try:
        client = distributed.Client(config.scheduler, scheduler_file=config.scheduler_file, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: no Dask scheduler answers ({str(error).splitlines()[0]})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            raise UsageError(f"{where}: no worker joined within {WORKERS_SECONDS} s") from error
        yield client
