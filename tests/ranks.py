"""Run a function on several ranks of gloo, forked from a process that has imported torch: a second after the first use.

::

    sums = run_ranks(2, function, tmp_path, argument)     # function(world, argument) on each; what they return
"""

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bert.distributed import World

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torch._dynamo", "bert.model.objective", "bert.finetune.training"])


def run_ranks(size: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``function(world, *arguments)`` returns on each rank; fails where a rank does."""
    ranks = [SERVER.Process(target=_run, args=(function, rank, size, folder, arguments)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0] * size
    return [torch.load(folder / f"result_{rank}.pt", weights_only=False) for rank in range(size)]


def _run(function: Callable[..., Any], rank: int, size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store_{size}"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=30))
    result = function(World(rank, rank, size, torch.device("cpu")), *arguments)
    torch.save(result, folder / f"result_{rank}.pt")
    dist.destroy_process_group()
