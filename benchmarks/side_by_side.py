"""Contenders that run in turns (A B C A B C ...), so that a machine whose speed drifts is fair to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, steps: int = 1
) -> dict[str, list[float]]:
    """Run ``steps`` steps of every contender per round and return the seconds of one, round by round."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            wait()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            wait()
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds
