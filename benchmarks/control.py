"""Time what the ranks exchange around an optimizer step: gathered messages and votes, or one sum read a step later.

    python benchmarks/control.py                     # 2, 4, 8 and 16 gloo ranks of this machine
    python benchmarks/control.py --ranks 2 --steps 100

A step computes for --pause milliseconds, as on a GPU: the host sleeps. Only the calls around it are timed, in which the
host could not have queued work. Both ways run in turns, block by block, and every rank's median block enters.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.config import flag, run_command
from bert.distributed import World, agree_any, all_reduce_sum, collective_errors
from bert.train.control import Control

BLOCKS = 5  # of each way


@dataclass
class ControlConfig:
    ranks: list[int] = field(default_factory=lambda: [2, 4, 8, 16], metadata={"help": "Numbers of processes."})
    steps: int = flag(20, "Optimizer steps of a block.", minimum=1)
    pause: float = flag(20.0, "Milliseconds that a step computes.", minimum=0)


class Batch:
    def loss_weights(self) -> dict[str, int]:
        return {"mlm_loss": 76, "nsp_loss": 4}


class Loader:
    """Gives the same step for ever."""

    epoch, requested = 0.0, False

    def __next__(self) -> list[Batch]:
        return [Batch()]

    def state_dict(self) -> dict[str, Any]:
        return {}


def gathered(world: World, pause: float, steps: int) -> float:
    """Return the seconds of ``steps`` steps in which messages are gathered, votes cast and terms summed."""
    loader, spent = Loader(), 0.0
    for _ in range(steps):
        began = time.perf_counter()
        with collective_errors(world):
            (batch,) = next(loader)
        all_reduce_sum(torch.tensor(list(batch.loss_weights().values())))
        spent += time.perf_counter() - began
        time.sleep(pause)
        began = time.perf_counter()
        agree_any(False)
        spent += time.perf_counter() - began
    return spent


def summed(world: World, pause: float, steps: int) -> float:
    """Return the seconds of the same with :class:`Control`."""
    control, spent = Control(world, Loader(), Loader()), 0.0
    for _ in range(steps):
        began = time.perf_counter()
        control.next()
        spent += time.perf_counter() - began
        time.sleep(pause)
        began = time.perf_counter()
        control.stopping()
        spent += time.perf_counter() - began
    control.close()
    return spent


WAYS: dict[str, Callable[[World, float, int], float]] = {"gathered": gathered, "summed": summed}


def _time(rank: int, ranks: int, folder: str, config: ControlConfig) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(minutes=5))
    world, seconds = World(rank, rank, ranks, torch.device("cpu")), []
    for block in range(BLOCKS + 1):
        pair = [way(world, config.pause / 1e3, config.steps) for way in WAYS.values()]
        if block:  # the first warms up
            seconds.append(pair)
    np.save(Path(folder) / f"seconds_{rank}.npy", seconds)
    dist.destroy_process_group()


def measure(ranks: int, config: ControlConfig) -> list[float]:
    """Return the milliseconds a step of each way: the median of all ranks' blocks."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_time, (ranks, folder, config), nprocs=ranks)
        blocks = np.concatenate([np.load(Path(folder) / f"seconds_{rank}.npy") for rank in range(ranks)])
    return [1e3 * statistics.median(column) / config.steps for column in blocks.T.tolist()]


def main(config: ControlConfig) -> None:
    print("| ranks | gathered, ms a step | summed in the background, ms a step | ratio |\n|---:|---:|---:|---:|")
    for ranks in config.ranks:
        before, after = measure(ranks, config)
        print(f"| {ranks} | {before:.2f} | {after:.2f} | {before / after:.1f} |", flush=True)


if __name__ == "__main__":
    run_command(main, ControlConfig)
