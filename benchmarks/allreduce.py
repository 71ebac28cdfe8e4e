"""Check the ring formula: time gloo's all-reduce on this machine and fit latency and bandwidth to it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SIZES = [1 << exponent for exponent in range(12, 26, 2)]  # bytes: 4 KiB to 16 MiB
ROUNDS = 15

Ring = Callable[[int, float, float, float], float]


def measure_allreduce(processes: list[int], ring: Ring) -> None:
    """Print measured times next to the fitted formula for each number of processes."""
    print("| processes | bytes | measured, ms | fitted, ms |\n|---:|---:|---:|---:|")
    errors, fits = [], []
    for ranks in processes:
        seconds = time_gloo(ranks)
        latency, bandwidth = fit(ranks, SIZES, seconds)
        for size, measured in zip(SIZES, seconds, strict=True):
            fitted = ring(ranks, size, latency, bandwidth)
            errors.append(abs(fitted / measured - 1))
            print(f"| {ranks} | {size:,} | {1e3 * measured:.3f} | {1e3 * fitted:.3f} |")
        fits.append(f"{ranks} processes: {1e6 * latency:.0f} us per message, {bandwidth / 1e9:.2f} GB/s")
    print(*fits, f"median deviation of the formula: {statistics.median(errors):.1%}", sep="\n")


def fit(ranks: int, sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Fit (latency, bandwidth) of the ring formula by least squares on the relative errors."""
    messages = 2 * (ranks - 1)
    terms = np.array([[messages, messages * size / ranks] for size in sizes]) / np.array(seconds)[:, None]
    (latency, inverse), *_ = np.linalg.lstsq(terms, np.ones(len(sizes)), rcond=None)
    return float(latency), 1 / float(inverse)


def time_gloo(ranks: int) -> list[float]:
    """Return the seconds of an all-reduce of each of SIZES among ``ranks`` processes, the minimum of ROUNDS."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_time, (ranks, folder), nprocs=ranks)
        return np.load(Path(folder) / "seconds.npy").tolist()


def _time(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(minutes=5))
    least = []  # the minimum, since other load on the machine only adds time
    for size in SIZES:
        gradient, times = torch.zeros(size // 4), []
        for _ in range(ROUNDS + 2):  # two to warm up
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(gradient)
            times.append(time.perf_counter() - began)
        least.append(min(times[2:]))
    if rank == 0:
        np.save(Path(folder) / "seconds.npy", least)
    dist.destroy_process_group()
