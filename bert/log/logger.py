"""The logger of a run: converts values to plain ones and sends each event to all backends, flushed on return."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bert.config import flag
from bert.log.backends import NonFinite, Step, build_backends


@dataclass
class LogConfig:
    """Where a run reports, and how often."""

    json_summary: str | None = flag(
        None, 'File to append DLLogger JSON lines to; by default OUTPUT_DIR/dllogger.json; "none": no file.'
    )
    log_freq: int = flag(1, "Optimizer steps between two reports of loss and learning rate.", minimum=1)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")
    tensorboard_dir: str | None = flag(
        None, 'Directory of the TensorBoard event files; by default OUTPUT_DIR/tensorboard; "none": no such files.'
    )


def resolve_log(config: LogConfig, output_dir: str | Path) -> tuple[str, str]:
    """Return the file of JSON lines and the directory for TensorBoard that the flags mean, for :func:`build_logger`."""
    settings = (config.json_summary, "dllogger.json"), (config.tensorboard_dir, "tensorboard")
    json_path, tensorboard = (str(Path(output_dir) / name) if value is None else value for value, name in settings)
    return json_path, tensorboard


def build_logger(json_path: str | Path | None, tensorboard_dir: str | Path | None, is_main: bool) -> Logger:
    """Open the log of a run; a process may open several.

    None, ``""`` and ``"none"`` switch a file off; stdout always gets the lines. Raises UsageError naming the flag
    where a file cannot be written.
    """
    if not is_main:
        return Logger()
    return Logger(build_backends(_given(json_path), _given(tensorboard_dir)))


class Logger:
    """Writes events as DLLogger does, see :mod:`bert.log`; without backends nothing, and then reads no value."""

    def __init__(self, backends: Sequence[Any] = ()):
        self._backends = backends  # none once closed, and on every rank but 0
        self._start = datetime.now(UTC)

    def parameter(self, **data: Any) -> None:
        """Record settings and facts of the run, not of one step."""
        self._log("PARAMETER", data)

    def metadata(self, metric: str, unit: str | None = None, format: str | None = None) -> None:
        """State a metric's unit and its format on stdout, such as ``":.3f"``."""
        given = {"unit": unit, "format": format}
        self._send("metadata", metric, {key: value for key, value in given.items() if value is not None})

    def log(self, step: tuple[int, ...], data: Mapping[str, Any]) -> None:
        """Record metrics at ``(epoch, iteration)`` or ``(epoch, iteration, validation iteration)``."""
        self._log(list(step), data)

    def summary(self, data: Mapping[str, Any]) -> None:
        """Record metrics of the whole run."""
        self._log([], data)

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        for backend in self._backends:
            backend.flush()

    def close(self) -> None:
        """Flush and close the files; later events are dropped, and a second call does nothing."""
        self.flush()
        for backend in self._backends:
            if hasattr(backend, "close"):  # dllogger's backends close at exit
                backend.close()
        self._backends = []

    def _log(self, step: Step, data: Mapping[str, Any]) -> None:
        if not self._backends:  # converting the values could wait for the device
            return
        with tqdm.external_write_mode(file=sys.stdout):  # clears a progress bar and redraws it below the line
            self._send("log", step, plain(data))

    def _send(self, method: str, *event: Any) -> None:
        """Call ``method`` of each backend with the time, the seconds since the start and the event."""
        now = datetime.now(UTC)
        times = now.astimezone().replace(tzinfo=None), (now - self._start).total_seconds()
        for backend in self._backends:
            getattr(backend, method)(*times, *event)
        self.flush()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def plain(value: Any) -> Any:
    """Convert ``value`` to what strict JSON can hold: numbers, strings, booleans, None, lists, dicts with string keys.

    numpy and torch values become Python ones, NaN and the infinities strings, and anything else ``str(value)``.
    """
    if hasattr(value, "tolist"):  # a numpy or torch scalar or array
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else NonFinite(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def _given(setting: str | Path | None) -> str | None:
    return None if setting is None or str(setting).lower() in ("", "none") else str(setting)
