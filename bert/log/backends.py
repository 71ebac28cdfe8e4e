"""Where events go: JSON lines, stdout and TensorBoard, behind the backend interface of NVIDIA's dllogger 1.1.0.

A backend has ``log(timestamp, elapsedtime, step, data)``, ``metadata(timestamp, elapsedtime, metric, metadata)`` and
``flush()``, so that dllogger's own JSON and stdout backends can replace the ones here. A timestamp is local time
without a zone, as dllogger's.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from bert.errors import naming_os_errors

Step = Sequence[int] | str

STEP_NAMES = ("Training Epoch", "Training Iteration", "Validation Iteration")


def format_step(step: Step) -> str:
    """Format a step as NVIDIA's BERT does: a string unchanged, ``[0, 10]`` with names, and ``[]`` as nothing."""
    if isinstance(step, str):
        return step
    return "".join(f"{name}: {number} " for name, number in zip(STEP_NAMES, step, strict=False))


def build_backends(json_path: str | None, tensorboard_dir: str | None) -> list[Any]:
    """Open the backends; a ``None`` path leaves that one out."""
    dllogger = _find_dllogger()
    backends: list[Any] = []
    if json_path is not None:
        backends.append(_build_json_backend(dllogger, Path(json_path)))
    if dllogger is None:
        backends.append(StdoutBackend())
    else:
        backends.append(dllogger.StdOutBackend(dllogger.Verbosity.VERBOSE, step_format=format_step))
    if tensorboard_dir is not None:
        backends.extend(_build_tensorboard_backends(tensorboard_dir))
    return backends


class NonFinite(str):
    """NaN or an infinity as the string that ``float`` reads back, which prints under any number format."""

    def __new__(cls, value: float) -> NonFinite:
        return super().__new__(cls, "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")

    def __format__(self, spec: str) -> str:
        return str(self)  # a plain string would refuse a metric's ".3f"


class JsonBackend:
    """``DLLL {json}`` lines, appended to a file."""

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf8")

    def log(self, timestamp: datetime, elapsedtime: float, step: Step, data: Mapping[str, Any]) -> None:
        seconds, date = _spell(timestamp)
        times = {"timestamp": seconds, "datetime": date, "elapsedtime": str(elapsedtime)}
        self._write({**times, "type": "LOG", "step": step, "data": data})

    def metadata(self, timestamp: datetime, elapsedtime: float, metric: str, metadata: dict[str, Any]) -> None:
        seconds, date = _spell(timestamp)
        times = {"timestamp": seconds, "elapsedtime": str(elapsedtime), "datetime": date}
        self._write({**times, "type": "METADATA", "metric": metric, "metadata": metadata})

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(f"DLLL {json.dumps(event, allow_nan=False)}\n")


def _spell(timestamp: datetime) -> tuple[str, str]:
    """Return the time in seconds since 1970 and as a date in UTC."""
    return str(timestamp.timestamp()), str(timestamp.astimezone(UTC))


class StdoutBackend:
    """``DLL <local time> - <step> <metric> : <value> <unit>`` lines."""

    def __init__(self) -> None:
        self._metadata: dict[str, dict[str, Any]] = {}

    def log(self, timestamp: datetime, elapsedtime: float, step: Step, data: Mapping[str, Any]) -> None:
        print(f"DLL {timestamp} - {format_step(step)} {' '.join(self._metric(*item) for item in data.items())}")

    def metadata(self, timestamp: datetime, elapsedtime: float, metric: str, metadata: dict[str, Any]) -> None:
        self._metadata.setdefault(metric, {}).update(metadata)

    def flush(self) -> None:
        sys.stdout.flush()

    def _metric(self, name: str, value: Any) -> str:
        known = self._metadata.get(name, {})
        template = f"{{{known.get('format', '')}}}" if isinstance(value, (int, float)) else "{}"
        return f"{name} : {template.format(value)} {known.get('unit', '')}"


class TensorboardBackend:
    """Numbers as scalars by iteration, those of the whole run under ``summary/``, parameters as text."""

    def __init__(self, writer: Any):
        self._writer = writer
        self._iteration = 0

    def log(self, timestamp: datetime, elapsedtime: float, step: Step, data: Mapping[str, Any]) -> None:
        if isinstance(step, str):
            for name, value in data.items():
                self._writer.add_text(f"{step.lower()}/{name}", str(value))
            return
        if step:
            self._iteration = step[min(1, len(step) - 1)]  # (epoch, iteration, ...)
        for name, value in data.items():
            if isinstance(value, (int, float, NonFinite)):
                self._writer.add_scalar(name if step else f"summary/{name}", float(value), self._iteration)

    def metadata(self, timestamp: datetime, elapsedtime: float, metric: str, metadata: dict[str, Any]) -> None:
        pass

    def flush(self) -> None:
        pass  # the writer's own thread flushes every two minutes; flushing here would delay every event

    def close(self) -> None:
        self._writer.close()


def _find_dllogger() -> ModuleType | None:
    """Return NVIDIA's dllogger if it is importable; another module of that name does not count."""
    try:
        import dllogger  # type: ignore[import-not-found]
    except ImportError:
        return None
    return dllogger if hasattr(dllogger, "JSONStreamBackend") and hasattr(dllogger, "StdOutBackend") else None


def _build_json_backend(dllogger: ModuleType | None, path: Path) -> Any:
    with naming_os_errors(f"--json_summary {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_last_line(path)
        if dllogger is None:
            return JsonBackend(path)
        if "append" in inspect.signature(dllogger.JSONStreamBackend).parameters:
            return dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, str(path), append=True)
        if path.stat().st_size == 0:
            return dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, str(path))
        return JsonBackend(path)  # this dllogger would truncate what an earlier run wrote


def _end_last_line(path: Path) -> None:
    """Create ``path``, or end the line that a killed run left unfinished, so that the next event starts its own."""
    with path.open("ab+") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _build_tensorboard_backends(directory: str) -> list[TensorboardBackend]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("no TensorBoard files: the package tensorboard is not installed", file=sys.stderr)
        return []
    with naming_os_errors(f"--tensorboard_dir {directory}"):
        return [TensorboardBackend(SummaryWriter(directory))]
