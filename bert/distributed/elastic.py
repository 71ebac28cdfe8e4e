"""Where the ranks of an attempt meet, and how often torchrun restarted them.

``torchrun --max-restarts=3 run_pretraining.py ...`` restarts all ranks when one of them dies; they continue from the
newest checkpoint, as with --resume_from_checkpoint. On several machines, the rendezvous must readmit a machine that
comes back, and a store must not outlive its attempt::

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=node1:29400 \\
        --rdzv_id=job1 --max-restarts=3 --nproc_per_node=8 run_pretraining.py --resume_from_checkpoint ...
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from bert.distributed.launcher import Meeting, meeting_place
from bert.errors import UsageError

RESTARTS, MAX_RESTARTS = "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"
SHOWN = 8  # ranks that an error names
GRACE = 1.0  # seconds in which the ranks that came learn who did not


def restart_count(environ: Mapping[str, str]) -> int:
    """Return how often this rank's agent has restarted its workers after a failure; 0 without torchrun."""
    return int(environ.get(RESTARTS, "0"))


def open_store(environ: Mapping[str, str], rank: int, size: int, patience: timedelta) -> dist.Store:
    """Connect to the ranks' store at MASTER_ADDR and MASTER_PORT, without the keys of an earlier attempt.

    Returns when all ranks have connected. Raises UsageError if a restart would find the previous attempt's keys and
    hang, and, naming the address and the ranks, if some do not come within ``patience``.
    """
    shared = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's own store, which outlives its workers
    if shared and int(environ.get(MAX_RESTARTS, "0")) and int(environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        # Each agent counts only its own failures, so no number tells all ranks which attempt this is.
        raise UsageError(
            f"--max-restarts {environ[MAX_RESTARTS]} of torchrun on several machines: expected "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment and --rdzv_backend=c10d"
        )
    meeting = meeting_place(environ)
    store: dist.Store = _serve(meeting, size, patience) if rank == 0 and not shared else _call(meeting, rank, patience)
    prefix = f"attempt_{restart_count(environ)}" if shared else meeting.prefix
    if prefix:
        store = dist.PrefixStore(prefix, store)
    absent = _meet(store, rank, size, patience)
    if absent:
        raise UsageError(f"{_where(meeting)}: {_named(absent)} of {size} did not come {_within(patience)}")
    return store


def _serve(meeting: Meeting, size: int, patience: timedelta) -> dist.Store:
    """Open the store on this machine. Raises UsageError where the port cannot be had."""
    try:
        # By its own name: whether the others can resolve MASTER_ADDR is theirs to say.
        return dist.TCPStore("localhost", meeting.port, size, True, patience, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        reason = re.search(r"message: (.*)", str(error))
        raise UsageError(
            f"{_where(meeting)}: rank 0 cannot listen there: {reason[1] if reason else error}; expected a free port"
        ) from error


def _call(meeting: Meeting, rank: int, patience: timedelta) -> dist.Store:
    """Connect to the store of rank 0 as soon as something listens there. Raises UsageError after ``patience``."""
    deadline, pause = time.monotonic() + patience.total_seconds(), 0.05
    while True:
        left = deadline - time.monotonic()
        try:
            # PyTorch would print many lines about a connection that fails.
            socket.create_connection(meeting[:2], timeout=max(left, 0.01)).close()
            break
        except OSError as error:
            if left <= pause:
                why = f"found no rank 0 there {_within(patience)} ({error.strerror or error})"
                raise UsageError(f"{_where(meeting)}: rank {rank} {why}") from error
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    store = _connected(meeting, deadline, patience)
    if store is None:
        raise UsageError(f"{_where(meeting)}: rank {rank} found another program there, expected rank 0")
    return store


def _connected(meeting: Meeting, deadline: float, patience: timedelta) -> dist.Store | None:
    """Return the store, None where what listens is none: a program that stays silent would be waited for forever."""
    stores: queue.Queue[dist.Store | None] = queue.Queue()

    def connect() -> None:
        store = None
        with suppress(RuntimeError):
            store = dist.TCPStore(meeting.host, meeting.port, None, False, patience, wait_for_workers=False)
        stores.put(store)

    threading.Thread(target=connect, daemon=True).start()
    try:
        return stores.get(timeout=max(deadline - time.monotonic(), GRACE))
    except queue.Empty:
        return None


def _meet(store: dist.Store, rank: int, size: int, patience: timedelta) -> list[int]:
    """Wait until all ranks are here; return those that are not after ``patience``. Rank 0 tells the others."""
    everyone, seconds = list(range(size)), patience.total_seconds()
    store.set(f"here/{rank}", "")
    try:
        if rank == 0:
            _poll(store, [f"here/{other}" for other in everyone], seconds)
            absent = _absent(store, everyone)
            store.set("absent", ",".join(map(str, absent)))
            if absent:
                _poll(store, [f"told/{other}" for other in everyone[1:] if other not in absent], GRACE)
            return absent
        if not _poll(store, ["absent"], seconds + GRACE):
            return _absent(store, everyone)
        text = store.get("absent").decode()
        store.set(f"told/{rank}", "")
        return [int(other) for other in text.split(",") if other]
    except dist.DistError:
        return [0]  # it ended, and its store with it


def _poll(store: dist.Store, keys: list[str], seconds: float) -> bool:
    """Wait until the store has all ``keys``: ``store.wait`` would print lines of PyTorch's own when it gives up."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not store.check(keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.25)
    return True


def _absent(store: dist.Store, ranks: list[int]) -> list[int]:
    keys = [f"here/{rank}" for rank in ranks]
    return [] if store.check(keys) else [rank for rank, key in zip(ranks, keys, strict=True) if not store.check([key])]


def _where(meeting: Meeting) -> str:
    return f"MASTER_ADDR {meeting.host}, MASTER_PORT {meeting.port}"


def _within(patience: timedelta) -> str:
    return f"within {patience.total_seconds():g} s (--timeout)"


def _named(ranks: Sequence[int]) -> str:
    """Return "rank 3", or "ranks 1, 2, 5"."""
    shown = ", ".join(map(str, ranks[:SHOWN]))
    return f"rank{'s' * (len(ranks) > 1)} {shown}" + (f" and {len(ranks) - SHOWN} more" if len(ranks) > SHOWN else "")
