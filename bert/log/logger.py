"""The logger of a run: converts values to plain ones and sends each event to all backends, flushed on return."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bert.config import flag
from bert.log.backends import Dispatcher, NonFinite, build_dispatcher


@dataclass
class LogConfig:
    """Where a run reports, and how often."""

    json_summary: str = flag("results/dllogger.json", 'File to append DLLogger JSON lines to; "none": no file.')
    log_freq: int = flag(1, "Optimizer steps between two reports of loss and learning rate.", minimum=1)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")
    tensorboard_dir: str | None = flag(
        None, 'Directory of the TensorBoard event files; by default OUTPUT_DIR/tensorboard; "none": no such files.'
    )


def resolve_tensorboard_dir(setting: str | None, output_dir: str | Path) -> str | None:
    """Turn ``--tensorboard_dir`` into the directory to write to, or None for no TensorBoard."""
    return str(Path(output_dir) / "tensorboard") if setting is None else _given(setting)


def build_logger(json_path: str | Path | None, tensorboard_dir: str | Path | None, is_main: bool) -> Logger:
    """Open the log of a run; a process may open several.

    None, ``""`` and ``"none"`` switch a file off; stdout always gets the lines. Raises UsageError naming the flag
    where a file cannot be written.
    """
    if not is_main:
        return NullLogger()
    return Logger(build_dispatcher(_given(json_path), _given(tensorboard_dir)))


class Logger:
    """Writes events as DLLogger does; :mod:`bert.log` has an example."""

    def __init__(self, dispatcher: Dispatcher | None):
        self._dispatcher = dispatcher  # None: closed

    def parameter(self, **data: Any) -> None:
        """Record settings and facts of the run, not of one step."""
        self._emit("PARAMETER", data)

    def metadata(self, metric: str, unit: str | None = None, format: str | None = None) -> None:
        """State a metric's unit and its format on stdout, such as ``":.3f"``."""
        if self._dispatcher is not None:
            given = {"unit": unit, "format": format}
            self._dispatcher.metadata(metric, {key: value for key, value in given.items() if value is not None})
            self._dispatcher.flush()

    def log(self, step: tuple[int, ...], data: Mapping[str, Any]) -> None:
        """Record metrics at ``(epoch, iteration)`` or ``(epoch, iteration, validation iteration)``."""
        self._emit(list(step), data)

    def summary(self, data: Mapping[str, Any]) -> None:
        """Record metrics of the whole run."""
        self._emit([], data)

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        if self._dispatcher is not None:
            self._dispatcher.flush()

    def close(self) -> None:
        """Flush and close the files; later events are dropped, and a second call does nothing."""
        self.flush()
        if self._dispatcher is not None:
            self._dispatcher.close()
        self._dispatcher = None

    def _emit(self, step: Sequence[int] | str, data: Mapping[str, Any]) -> None:
        if self._dispatcher is None:
            return
        with tqdm.external_write_mode(file=sys.stdout):  # clears a progress bar and redraws it below the line
            self._dispatcher.log(step, plain(data))
            self._dispatcher.flush()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class NullLogger(Logger):
    """The logger of every rank but 0: writes nothing, and so never waits for a value on the device."""

    def __init__(self) -> None:
        super().__init__(None)


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
