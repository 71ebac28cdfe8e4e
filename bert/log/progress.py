"""Progress bars with the remaining time; where stderr is a file, an occasional plain line instead.

``for batch in progress(batches, description="Evaluating", disable=not is_main): ...``
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0  # the least time between two lines where stderr is not a terminal


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: float | None = None,
    initial: float = 0,
    description: str = "",
    unit: str = "step",
    disable: bool = False,
) -> tqdm:
    """Wrap ``iterable``, or count to ``total`` by ``update()``; pass ``disable`` on every rank but the main one."""
    shown: dict[str, Any] = {"dynamic_ncols": True}
    if not sys.stderr.isatty():
        shown = {"file": _Lines(sys.stderr), "mininterval": LINE_SECONDS, "miniters": 1, "ncols": 100}
    shown |= {"unit": unit, "unit_scale": unit == "B"}  # bytes in kB and MB
    return tqdm(iterable, desc=description, total=total, initial=initial, disable=disable, **shown)


class _Lines:
    """Ends each state of the bar with a newline, where tqdm would overwrite it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()
