"""Restarts by torchrun: the store that the ranks of one attempt share, and how often they were restarted.

``torchrun --max-restarts=3 run_pretraining.py ...`` starts all ranks again when one of them dies; they go on from the
newest checkpoint, as with --resume_from_checkpoint. Agents of several machines need a rendezvous that takes in a
machine that comes back, and stores that do not outlive an attempt::

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=node1:29400 \\
        --rdzv_id=job1 --max-restarts=3 --nproc_per_node=8 run_pretraining.py --resume_from_checkpoint ...
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from bert.errors import UsageError

RESTARTS, MAX_RESTARTS = "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
JOIN = timedelta(minutes=30)  # for all ranks to start: a scheduler may start some much later than others


def restart_count(environ: Mapping[str, str]) -> int:
    """Return how often this rank's agent has restarted its workers after a failure; 0 without torchrun."""
    return int(environ.get(RESTARTS, "0"))


def open_store(environ: Mapping[str, str], rank: int, size: int, patience: timedelta = JOIN) -> dist.Store:
    """Connect to the ranks' store at MASTER_ADDR and MASTER_PORT, empty of what an earlier attempt left.

    Returns when all ranks have. Raises UsageError where a restart would find the keys of the attempt before it, and
    hang; dist.DistError where some rank does not come in time.
    """
    shared = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's own store, which outlives its workers
    if shared and int(environ.get(MAX_RESTARTS, "0")) and int(environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        # Each agent counts its own failures alone, so that no number tells all ranks which attempt this is.
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
