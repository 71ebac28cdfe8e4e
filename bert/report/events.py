"""Reads DLLogger files into phases: what was logged at which optimizer step.

A resumed or restarted run replaces what an earlier one wrote from its first step on, and a line that a killed run left
unfinished is skipped::

    phases = collect(read_events("results/dllogger.json"))
    phases[0].points("mlm_loss")                        # [(1, 10.4), (2, 10.1), ...]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert.errors import naming_os_errors

Points = list[tuple[float, float]]  # (step, value)

PREFIX = "DLLL "


@dataclass
class Phase:
    """What the logs say of one phase."""

    number: int
    facts: dict[str, Any] = field(default_factory=dict)  # PARAMETER events; the flags of the run are under "Config"
    steps: dict[int, dict[str, float]] = field(default_factory=dict)  # optimizer step -> metric -> value
    summary: dict[str, Any] = field(default_factory=dict)

    def points(self, *metrics: str) -> Points:
        """Return (step, value) of the first of ``metrics`` that was logged at a step, in order of steps."""
        found = ((step, next((data[m] for m in metrics if m in data), None)) for step, data in self.steps.items())
        return sorted((step, value) for step, value in found if value is not None)

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)


def read_events(path: str | Path, flag: str = "--logs") -> Iterator[dict[str, Any]]:
    """Yield the events of one log. Raises UsageError, which names ``flag``, where the file cannot be read."""
    with naming_os_errors(f"{flag} {path}"), Path(path).open(encoding="utf8", errors="replace") as file:
        yield from filter(None, map(_parse, file))


def collect(events: Iterable[dict[str, Any]]) -> list[Phase]:
    """Group the events of one or more runs by phase; runs that name no phase belong to phase 1."""
    phases: dict[int, Phase] = {}
    current, started = 1, False
    for event in events:
        step, data = event.get("step"), event.get("data")
        if event.get("type") != "LOG" or not isinstance(data, dict):
            continue
        if step == "PARAMETER":
            if "phase" in data:
                current, started = int(data["phase"]), False
            phases.setdefault(current, Phase(current)).facts.update(data)
        elif step == []:
            phases.setdefault(current, Phase(current)).summary.update(data)
        elif isinstance(step, list) and len(step) > 1:
            phase = phases.setdefault(current, Phase(current))
            if not started:  # a resumed run repeats the steps since its checkpoint
                phase.steps = {known: values for known, values in phase.steps.items() if known < step[1]}
                started = True
            phase.steps.setdefault(step[1], {}).update(_numbers(data))
    return [phases[number] for number in sorted(phases) if phases[number].steps]


def _parse(line: str) -> dict[str, Any] | None:
    """Return the event in a line; None for any other line and for one that was cut off."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line[len(PREFIX) :])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _numbers(data: dict[str, Any]) -> dict[str, float]:
    """Keep what is a number; NaN and the infinities are logged as strings."""
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity")
    }
