"""Launchers: which rank this process is, and where the ranks meet, from the variables that a launcher sets.

torchrun, ``mpirun`` of Open MPI, MVAPICH2, MPICH, Intel MPI and Cray, and ``srun``::

    rank, local_rank, size = read_launcher(os.environ)          # (0, 0, 1) without a launcher
    host, port, prefix = meeting_place(os.environ)

Running alone would be worse than an error: each of several processes would consider itself rank 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from bert.errors import UsageError

NEEDED = "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT"
PORTS = range(20000, 32768)  # below those that Linux gives to outgoing connections


class Launcher(NamedTuple):
    """The names of a launcher's variables."""

    rank: str
    size: str
    local_rank: str
    local_size: str = ""  # ranks on this machine
    machines: str = ""
    job: tuple[str, ...] = ()  # together different for any two jobs that run on a machine


TORCHRUN = Launcher("RANK", "WORLD_SIZE", "LOCAL_RANK")
MPI = (
    Launcher(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        job=("PMIX_NAMESPACE",),
    ),
    Launcher("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    Launcher("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
    Launcher("PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK"),  # Cray
)
# The number of tasks of the step: SLURM_NTASKS is also set in a batch script and in a shell inside an allocation.
SLURM = Launcher(
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    machines="SLURM_STEP_NUM_NODES",
    job=("SLURM_JOB_ID", "SLURM_STEP_ID"),
)
LAUNCHERS = (*MPI, SLURM)  # in this order: within an allocation mpirun may start its own daemons with srun


class Meeting(NamedTuple):
    """Where the ranks meet; ``prefix`` keeps apart jobs that meet at one place by accident."""

    host: str
    port: int
    prefix: str = ""


def read_launcher(environ: Mapping[str, str], local_rank: int = -1) -> tuple[int, int, int]:
    """Return (rank, local rank, world size): torchrun's, else those of MPI, else of a step of Slurm, else (0, 0, 1).

    The local rank is LOCAL_RANK, else ``local_rank`` (the flag), else the launcher's, else 0. Raises UsageError where
    variables are missing or contradict each other.
    """
    names = _find_launcher(environ)
    local = 0
    if "LOCAL_RANK" in environ:
        local = _integer(environ, "LOCAL_RANK")
    elif local_rank >= 0:
        local = local_rank
    elif names and names.local_rank in environ:
        local = _integer(environ, names.local_rank)
    if names is None:
        return 0, local, 1
    rank, size = _integer(environ, names.rank), _integer(environ, names.size)
    if not 0 <= rank < size or local < 0:
        raise UsageError(f"{names.rank} {rank}, {names.size} {size}, local rank {local}: expected 0 <= rank < size")
    if size > 1:
        meeting_place(environ)
    return rank, local, size


def meeting_place(environ: Mapping[str, str]) -> Meeting:
    """Return MASTER_ADDR and MASTER_PORT, or what follows from the number of a job on one machine.

    Raises UsageError where they are missing.
    """
    if "MASTER_ADDR" in environ:
        return Meeting(environ["MASTER_ADDR"], _integer(environ, "MASTER_PORT"))
    names = _find_launcher(environ) or TORCHRUN
    size, job = environ.get(names.size), ".".join(environ.get(name, "") for name in names.job)
    if job.strip(".") and (environ.get(names.local_size) == size or environ.get(names.machines) == "1"):
        number = int.from_bytes(hashlib.sha256(job.encode()).digest()[:8], "big")
        return Meeting("127.0.0.1", PORTS[number % len(PORTS)], job)
    raise UsageError(
        f"{names.size} is {size} but MASTER_ADDR is not set; expected the host name of rank 0, and in MASTER_PORT a "
        "free port there"
    )


def _find_launcher(environ: Mapping[str, str]) -> Launcher | None:
    if TORCHRUN.rank in environ and TORCHRUN.size in environ:
        return TORCHRUN
    for names in LAUNCHERS:
        if all(name in environ for name in names[:3]):
            return names
    if TORCHRUN.rank in environ or TORCHRUN.size in environ:
        raise UsageError(
            f"the environment sets only one of {TORCHRUN.rank} and {TORCHRUN.size}; "
            "expected both, from a launcher, or none"
        )
    for name in ("PMIX_RANK", "PMI_RANK"):
        if name in environ:
            raise UsageError(
                f"{name} is {environ[name]}, and the environment does not say of how many or on which GPU; expected "
                f"{NEEDED}, or RANK=0 and WORLD_SIZE=1 for one process"
            )
    return None


def _integer(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name)
    if text is None:
        raise UsageError(f"{name} is not set; expected a whole number in the environment")
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} {text!r} in the environment is not a whole number") from None
