"""Restarts by torchrun: the store that the ranks of one attempt share, and how often they were restarted.

``torchrun --max-restarts=3 run_pretraining.py ...`` restarts all ranks when one of them dies; they continue from the
newest checkpoint, as with --resume_from_checkpoint. On several machines, the rendezvous must readmit a machine that
comes back, and a store must not outlive its attempt::

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=node1:29400 \\
        --rdzv_id=job1 --max-restarts=3 --nproc_per_node=8 run_pretraining.py --resume_from_checkpoint ...
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from bert.errors import UsageError

RESTARTS, MAX_RESTARTS = "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
JOIN = timedelta(minutes=30)  # time for all ranks to start: a scheduler may start some much later than others


def restart_count(environ: Mapping[str, str]) -> int:
    """Return how often this rank's agent has restarted its workers after a failure; 0 without torchrun."""
    return int(environ.get(RESTARTS, "0"))


def open_store(environ: Mapping[str, str], rank: int, size: int, patience: timedelta = JOIN) -> dist.Store:
    """Connect to the ranks' store at MASTER_ADDR and MASTER_PORT, without the keys of an earlier attempt.

    Returns when all ranks have connected. Raises UsageError if a restart would find the previous attempt's keys and
    hang, and dist.DistError if a rank does not connect in time.
    """
    shared = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's own store, which outlives its workers
    if shared and int(environ.get(MAX_RESTARTS, "0")) and int(environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        # Each agent counts only its own failures, so no number tells all ranks which attempt this is.
        raise UsageError(
            f"--max-restarts {environ[MAX_RESTARTS]} of torchrun on several machines: expected "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment and --rdzv_backend=c10d"
        )
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=patience))
    if shared:
        store = dist.PrefixStore(f"attempt_{restart_count(environ)}", store)
    store.set(f"here/{rank}", "")
    if rank == 0:
        store.wait([f"here/{other}" for other in range(size)], patience)
        store.set("all here", "")
    store.wait(["all here"], patience)
    return store
