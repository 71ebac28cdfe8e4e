"""Find late ranks: every few seconds each rank tells the store that it is alive and where in the program it is.

A collective does not name the rank that it waits for. So rank 0 watches all ranks, the others watch rank 0, and a run
that has lost a rank ends with a line such as ::

    error: rank 3 (node7, process 4242) has been silent for 1800 s; its last step was 41

A rank that is alive but does not join the collective (its file system hangs) is named when the collective times out,
with the line of code it is at. The last step is the watching rank's own, since every optimizer step needs all ranks. A
silence is counted in wake-ups, not by a clock: a run stopped as a whole (Ctrl-Z, a paused machine) continues unharmed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

MAX_INTERVAL = 10.0  # seconds between two beats, or a tenth of the timeout where that is less
SHOWN = 8  # ranks that an error names
PACKAGE = Path(__file__).parents[1]


@dataclass
class Progress:
    """How far this rank is; the training loop updates it."""

    step: int = 0  # optimizer steps applied


@dataclass(frozen=True)
class Beat:
    """What a rank reports of itself."""

    number: int
    host: str
    process: int
    place: str  # where its main thread is
    idle: float  # seconds since its step or its place changed, accurate to one beat
    done: bool = False

    def who(self, rank: int) -> str:
        return f"rank {rank} ({self.host}, process {self.process})"


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Beats and watches in two threads while active; ends the process when a watched rank is silent for ``timeout``.

    ``timeout`` is in seconds. Entering publishes the first beat, ``start`` reads those of the others.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: float, progress: Progress) -> None:
        self.rank, self.timeout, self.progress = rank, timeout, progress
        self.interval = min(MAX_INTERVAL, timeout / 10)
        self.beats: dict[int, Beat] = {}
        # A separate connection: a store that does not answer must not stop training.
        self._store: dist.Store = store.clone()  # type: ignore[attr-defined]
        watched = range(1, size) if rank == 0 else [0]
        self._missed = dict.fromkeys(watched, 0)  # wake-ups since the last news
        self._main = threading.main_thread().ident
        self._own, self._step = Beat(0, socket.gethostname(), os.getpid(), "", 0.0), progress.step
        self._closed = threading.Event()
        # Daemons: one may be stuck in a store that never answers.
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), daemon=True, name="heartbeat")
            for work in (self.exchange, self.check)
        ]

    def __enter__(self) -> Heartbeat:
        self.beat()
        return self

    def start(self) -> None:
        """Read the first beats and start the threads."""
        self.exchange()
        for thread in self._threads:
            thread.start()

    def __exit__(self, kind: Any, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(self.interval)
        if kind is None:
            with suppress(dist.DistError):
                self.beat(done=True)

    def beat(self, done: bool = False) -> None:
        """Publish this rank's state."""
        last, place, step = self._own, _place(self._main), self.progress.step
        idle = last.idle + self.interval if (place, step) == (last.place, self._step) else 0.0
        self._own, self._step = Beat(last.number + 1, last.host, last.process, place, idle, done), step
        self._store.set(f"heartbeat/{self.rank}", json.dumps(asdict(self._own)))

    def exchange(self) -> None:
        """Publish this rank's state and read that of the ranks it watches."""
        self.beat()
        texts = self._store.multi_get([f"heartbeat/{rank}" for rank in self._missed])
        for rank, text in zip(self._missed, texts, strict=True):
            beat = Beat(**json.loads(text))
            if beat != self.beats.get(rank):
                self.beats[rank], self._missed[rank] = beat, 0

    def check(self) -> None:
        """Count one more wake-up without news; end the process after too many."""
        for rank, beat in self.beats.items():
            self._missed[rank] += not beat.done
        silent = self.silent_ranks(self.timeout)
        if silent and not self._closed.is_set():
            _report(silent)
            os._exit(1)  # not sys.exit: the main thread is in a collective that does not end

    def silent_ranks(self, seconds: float) -> list[str]:
        """Name the watched ranks that have been silent for this long."""
        silences = {rank: missed * self.interval for rank, missed in self._missed.items()}
        return [
            f"{self.beats[rank].who(rank)} has been silent for {silence:.0f} s; its last step was {self.progress.step}"
            for rank, silence in silences.items()
            if silence >= seconds
        ]

    def late_ranks(self, seconds: float) -> list[str]:
        """Name the watched ranks that, while this rank waited, have been elsewhere for this long."""
        if self._own.idle < seconds:
            return []
        return [
            f"{beat.who(rank)} is late: at {beat.place} for {beat.idle:.0f} s; its last step was {self.progress.step}"
            for rank, beat in self.beats.items()
            if beat.idle >= seconds and beat.place != self._own.place and not beat.done
        ]

    def explain(self) -> None:
        """Print which ranks are late, after a collective has failed."""
        long = self.timeout / 2
        _report(self.silent_ranks(long) or self.late_ranks(long))

    def _repeat(self, work: Any) -> None:
        while not self._closed.wait(self.interval):
            try:
                work()
            except dist.DistNetworkError:
                self._closed.set()  # the process with the store ended, which its launcher handles
            except dist.DistStoreError:
                pass  # it did not answer in time: no news


def _report(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"error: {line}", file=sys.stderr, flush=True)
    if len(lines) > SHOWN:
        print(f"error: ... and {len(lines) - SHOWN} more ranks", file=sys.stderr, flush=True)


def _place(thread: int | None) -> str:
    """Return "bert/train/trainer.py:214 fit": the innermost line of this package on a stack, else of all."""
    innermost = frame = sys._current_frames()[thread or 0]
    while frame is not None and PACKAGE not in Path(frame.f_code.co_filename).parents:
        frame = frame.f_back
    frame = frame or innermost
    file = Path(frame.f_code.co_filename)
    name = file.relative_to(PACKAGE.parent) if PACKAGE in file.parents else file.name
    return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
