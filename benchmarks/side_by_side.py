"""Contenders that run in turns (A B C A B C ...), so that a drift of the machine's speed affects all of them alike."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bert.errors import naming_os_errors
from bert.files import replacing


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, steps: int = 1
) -> dict[str, list[float]]:
    """Run ``steps`` steps of every contender per round and return the seconds per step of each round."""
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


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios within a round."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def describe_device(device: torch.device) -> str:
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU with {torch.get_num_threads()} threads"
    return f"{where}, torch {torch.__version__}"


def write_json(path: str | None, device: torch.device, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table for a program to read, where ``path``, the value of --json, is given."""
    if path is not None:
        with naming_os_errors(f"--json {path}"), replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps({"device": describe_device(device), "rows": rows}, indent=1) + "\n")
