"""Who is late: every rank tells the store, every few seconds, that it lives, its step, and where its program is.

When a rank stops or its machine is gone, the others wait for it in a collective, where nothing says for whom. Here rank
0 watches all ranks and the others watch rank 0, and the run ends with a line such as ::

    error: rank 3 (node7, process 4242) has been silent for 1800 s; its last step was 41

A rank that lives but does not come (its file system hangs) is named when the collective gives up: see `late_ranks`.
Training does nothing for it but to count its steps. A silence is counted in wake-ups, not by a clock, so that a run
which was stopped as a whole (Ctrl-Z, a paused virtual machine) goes on unharmed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

MAX_INTERVAL = 10.0  # seconds between two beats, or a tenth of the timeout where that is less
SHOWN = 8  # ranks in a line
PACKAGE = Path(__file__).parent


@dataclass
class Progress:
    """How far this rank is; the training loop keeps it."""

    step: int = 0  # optimizer steps applied


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself."""

    number: int
    host: str
    process: int
    step: int
    place: str  # where its main thread is
    idle: float  # seconds since step or place changed, to the accuracy of a beat
    done: bool = False

    def who(self, rank: int) -> str:
        return f"rank {rank} ({self.host}, process {self.process})"


class Heartbeat(AbstractContextManager["Heartbeat"]):
    """Beats and watches in two threads while active; ends the process when a watched rank is silent for ``timeout``.

    ``timeout`` is in seconds. Entering publishes the first beat; a collective must follow before ``start``.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: float, progress: Progress) -> None:
        self.rank, self.timeout, self.progress = rank, timeout, progress
        self.interval = min(MAX_INTERVAL, timeout / 10)
        self.beats: dict[int, Beat] = {}
        self._store = store.clone()  # a connection of its own: a store that does not answer must not stop training
        self._watched = [other for other in range(size) if other != rank] if rank == 0 else [0]
        self._missed = dict.fromkeys(self._watched, 0)
        self._main = threading.main_thread().ident
        self._own = Beat(0, socket.gethostname(), os.getpid(), progress.step, "", 0.0)
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
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def __exit__(self, kind: Any, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(self.interval)
        if kind is None:
            self.beat(done=True)

    def beat(self, done: bool = False) -> None:
        """Publish this rank's state."""
        last, place = self._own, _place(self._main)
        same = (last.step, last.place) == (self.progress.step, place)
        idle = last.idle + self.interval if same else 0.0
        self._own = Beat(last.number + 1, last.host, last.process, self.progress.step, place, idle, done)
        try:
            self._store.set(f"heartbeat/{self.rank}", json.dumps(asdict(self._own)))
        except dist.DistError:
            self._closed.set()  # the process that held the store ended, which its launcher has seen

    def exchange(self) -> None:
        """Publish this rank's state and read that of the watched ones."""
        self.beat()
        try:
            texts = self._store.multi_get([f"heartbeat/{rank}" for rank in self._watched])
        except dist.DistError:
            self._closed.set()
            return
        for rank, text in zip(self._watched, texts, strict=True):
            beat = Beat(**json.loads(text))
            if beat != self.beats.get(rank):
                self.beats[rank], self._missed[rank] = beat, 0

    def check(self) -> None:
        """Count one more wake-up without news; end the process where there were too many."""
        silent = []
        for rank, beat in self.beats.items():
            self._missed[rank] += not beat.done
            if self._missed[rank] * self.interval >= self.timeout:
                silent.append(f"{beat.who(rank)} has been silent for {self.timeout:g} s; its last step was {beat.step}")
        if silent and not self._closed.is_set():
            _say(silent)
            os._exit(1)  # not sys.exit: the main thread is in a collective that does not end

    def late_ranks(self) -> list[str]:
        """Name the watched ranks that have long been somewhere else than this rank, which waited for them."""
        late = (
            f"{beat.who(rank)} is late: at {beat.place} for {beat.idle:.0f} s; its last step was {beat.step}"
            for rank, beat in sorted(self.beats.items())
            if beat.place != self._own.place and beat.idle >= self.timeout / 2 and not beat.done
        )
        return list(late) if self._own.idle >= self.timeout / 2 else []

    def explain(self) -> None:
        """Say which ranks are late, after a collective has failed."""
        _say(self.late_ranks())

    def _repeat(self, work: Any) -> None:
        while not self._closed.wait(self.interval):
            work()


def _say(lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"error: {line}", file=sys.stderr, flush=True)
    if len(lines) > SHOWN:
        print(f"error: ... and {len(lines) - SHOWN} more ranks", file=sys.stderr, flush=True)


def _place(thread: int | None) -> str:
    """Return "bert/trainer.py:214 fit": the innermost line of this package on a stack, else the innermost of all."""
    innermost = frame = sys._current_frames()[thread or 0]
    while frame is not None and PACKAGE not in Path(frame.f_code.co_filename).parents:
        frame = frame.f_back
    frame = frame or innermost
    file = Path(frame.f_code.co_filename)
    name = file.relative_to(PACKAGE.parent) if PACKAGE in file.parents else file.name
    return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
