"""How far the clocks of other machines differ from this one's."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

from bert.doctor.checks import Skew


def skew_over_ssh(host: str, run: Callable[..., subprocess.CompletedProcess] = subprocess.run) -> Skew:
    """Ask ``host`` for its time; accurate to half of the round trip (Cristian 1989)."""
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", host, "date +%s.%N"]
    before = time.time()
    try:
        answer = run(command, capture_output=True, text=True, timeout=15)
        after = time.time()
        return float(answer.stdout) - (before + after) / 2, (after - before) / 2
    except ValueError:
        return (answer.stderr.strip().splitlines() or ["no answer"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}"


def skews_of_ranks() -> dict[str, Skew] | None:
    """Compare the clocks of a job's machines with rank 0's. Every rank must call it; returns None on all but rank 0."""
    # Not at the top: it needs torch.
    from bert.distributed import DistributedConfig, all_gather_ints, barrier, join_world

    skews: dict[str, Skew] = {}
    with join_world(DistributedConfig(device="cpu")) as world:
        for _ in range(3):  # the first round connects
            barrier()
            began = time.monotonic_ns()
            answers = all_gather_ints([time.time_ns(), *socket.gethostname().encode()])
        uncertainty = (time.monotonic_ns() - began) / 1e9
        for nanoseconds, *host in answers[1:]:
            skews[bytes(host).decode()] = ((nanoseconds - answers[0][0]) / 1e9, uncertainty)
        return skews if world.is_main else None
