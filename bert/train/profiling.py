"""A trace of a few optimizer steps, for chrome://tracing or https://ui.perfetto.dev.

with build_profiler(ProfileConfig(profile=True, profile_start=10), "results", is_main=True) as profiler:
    for batch in loader:
        ...
        profiler.step()                 # results/profile.json after step 14
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from bert.config import flag

STEPS = 5  # recorded; a trace of more is too large to open


@dataclass
class ProfileConfig:
    profile: bool = flag(False, f"Record {STEPS} optimizer steps to OUTPUT_DIR/profile.json, for ui.perfetto.dev.")
    profile_start: int = flag(0, "First optimizer step that --profile records, counted from 0.", minimum=0)


class Profiler(Protocol):
    def step(self) -> None: ...


class NullProfiler(AbstractContextManager["NullProfiler"]):
    """Records nothing: ranks other than 0, and runs without --profile."""

    def step(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def build_profiler(config: ProfileConfig, output_dir: str, is_main: bool) -> AbstractContextManager[Profiler]:
    """Return a profiler whose ``step`` is called after every optimizer step."""
    if not (config.profile and is_main):
        return NullProfiler()
    path = Path(output_dir) / "profile.json"

    def save(recorded: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(path))
        print(f"profile of {STEPS} steps: {path}")

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    when = schedule(skip_first=config.profile_start, wait=0, warmup=0, active=STEPS, repeat=1)
    return profile(activities=activities, schedule=when, on_trace_ready=save)
