"""Ranks: who this process is, what the ranks tell each other, who is late, and how a restarted run meets again."""

from bert.distributed.world import (
    DistributedConfig,
    StopSignal,
    World,
    agree_any,
    all_gather_ints,
    all_reduce_sum,
    barrier,
    broadcast_error,
    collective_errors,
    derive_seed,
    join_world,
    read_launcher,
    resolve_device,
    seed_everything,
)

__all__ = [
    "DistributedConfig",
    "StopSignal",
    "World",
    "agree_any",
    "all_gather_ints",
    "all_reduce_sum",
    "barrier",
    "broadcast_error",
    "collective_errors",
    "derive_seed",
    "join_world",
    "read_launcher",
    "resolve_device",
    "seed_everything",
]
