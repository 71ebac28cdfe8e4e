"""A trace of a few optimizer steps, for chrome://tracing or https://ui.perfetto.dev.

with profiling(ProfileConfig(profile=True, profile_start=10), "results", is_main=True) as step_done:
    for batch in loader:
        ...
        step_done()                     # results/profile.json after step 14
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.profiler import profile, schedule

from bert.config import flag

STEPS = 5  # recorded; a trace of more is too large to open


@dataclass
class ProfileConfig:
    profile: bool = flag(False, f"Record {STEPS} optimizer steps to OUTPUT_DIR/profile.json, for ui.perfetto.dev.")
    profile_start: int = flag(0, "First optimizer step that --profile records, counted from 0.", minimum=0)


@contextmanager
def profiling(config: ProfileConfig, output_dir: str, is_main: bool) -> Iterator[Callable[[], None]]:
    """Yield what to call after every optimizer step; it does nothing on ranks other than 0 and without --profile."""
    if not (config.profile and is_main):
        yield lambda: None
        return
    path = Path(output_dir) / "profile.json"

    def save(recorded: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(path))
        print(f"profile of {STEPS} steps: {path}")

    when = schedule(skip_first=config.profile_start, wait=0, warmup=0, active=STEPS, repeat=1)
    with profile(schedule=when, on_trace_ready=save) as profiler:
        yield profiler.step
