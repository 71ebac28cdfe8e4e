"""Files that come and go while a server runs: each is read once, and again when it changes.

folder = AdapterFolder(path, read)
if folder.look():                   # at most once a second, unless at_once
    folder.held, folder.refused     # {"rte.safetensors": read(...)}, {"bad.safetensors": "not a file of ..."}
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from bert.errors import UsageError

T = TypeVar("T")
SUFFIX = ".safetensors"
LOOK_SECONDS = 1.0
State = tuple[int, ...]  # time, size and number of a file


@dataclass
class AdapterFolder(Generic[T]):
    """The adapter files of a folder; ``read`` returns what is in one or raises an error."""

    path: Path
    read: Callable[[Path], T]
    clock: Callable[[], float] = time.monotonic
    held: dict[str, T] = field(default_factory=dict)  # by file name
    refused: dict[str, str] = field(default_factory=dict)  # why, by file name
    _seen: dict[str, State] = field(default_factory=dict)
    _looked: float = float("-inf")

    def look(self, at_once: bool = False) -> bool:
        """Read what is new and forget what has gone; return whether anything changed.

        If a file is replaced by a wrong one, what it held before stays.
        """
        if not at_once and self.clock() - self._looked < LOOK_SECONDS:
            return False
        self._looked, before, self._seen = self.clock(), self._seen, self._scan()
        for name in before.keys() - self._seen.keys():
            self.held.pop(name, None)
            self.refused.pop(name, None)
        for name in sorted(name for name, state in self._seen.items() if state != before.get(name)):
            self._take(name)
        return self._seen != before

    def _take(self, name: str) -> None:
        try:
            if (self.path / name).is_symlink():
                raise UsageError("a symbolic link, which may lead out of the repository")
            self.held[name] = self.read(self.path / name)
            self.refused.pop(name, None)
        except Exception as error:  # whatever is in a file, it must not harm the others
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.refused[name] = lines[0].rpartition(f"{self.path / name}: ")[2]

    def _scan(self) -> dict[str, State]:
        found: dict[str, State] = {}
        if self.path.is_dir():
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                        with suppress(FileNotFoundError):  # one that has just gone
                            state = entry.stat(follow_symlinks=False)
                            found[entry.name] = (state.st_mtime_ns, state.st_size, state.st_ino)
        return found
