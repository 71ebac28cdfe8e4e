"""Ranks: which one this process is, collectives, detection of late ranks, and restarts by torchrun."""

from bert.distributed.broadcast import read_once
from bert.distributed.launcher import read_launcher
from bert.distributed.tree import TreeSums
from bert.distributed.world import (
    DistributedConfig,
    StopSignal,
    World,
    agree_any,
    all_gather_floats,
    all_gather_ints,
    all_reduce_max,
    all_reduce_sum,
    barrier,
    broadcast_error,
    collective_errors,
    derive_seed,
    join_world,
    resolve_device,
    seed_everything,
)
