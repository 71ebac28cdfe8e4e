"""Keeps the text models answering: a model whose process has died is reloaded.

Triton calls a model ready whose Python process is dead, so only an inference tells. Every text model is asked once a
second, ahead of the queue; and since one dead process of several is met by luck, the errors of all other requests
count too. A model that is slow, but alive, is left alone::

    watchdog = Watchdog(upstream, config, meters)
    await watchdog.infer("bert_qa", inputs, seconds=10)     # a Refusal at once while bert_qa is being restarted
    await watchdog.check()                                  # {"bert_qa": "ok", "bert_embed": "restarting bert_embed"}
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bert.config import flag
from bert.gateway.refusal import Refusal
from bert.gateway.texts import PROBES
from bert.gateway.traffic import Meters
from bert.gateway.upstream import ModelAbsent, ModelDown, Unreachable, Upstream

LOG = logging.getLogger("gateway")
OK = "ok"
AHEAD = 1  # priority; the models' default is 2
GRACE = 0.5  # seconds for calls in flight when a reload begins: other instances may still answer
CALM = 30.0  # seconds without a death, after which reloads start without delay again
SHUTDOWN = 10.0  # seconds
MAX_DELAY = 30.0  # seconds between reloads that do not help


@dataclass
class WatchdogConfig:
    probe_seconds: float = flag(1.0, "Time between two inferences that prove each model alive.", minimum=0.01)
    # Triton takes 1 s to notice a dead process, once it is asked.
    probe_deadline: float = flag(2.5, "Time for such an inference.", minimum=0.01)


class Reloads:
    """What is known of one model's reloads."""

    def __init__(self):
        self.task: asyncio.Task[None] | None = None
        self.fronts: set[str] = set()  # the text models that it has kept from answering
        self.done_at = float("-inf")
        self.repeated = 0
        self.waiting = False  # for its delay, and not begun

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def delay(self, now: float) -> float:
        """Return the seconds to wait: none at first, then 0.5, 1, 2 ... while reloads do not help for long."""
        self.repeated = min(self.repeated + 1, 7) if now - self.done_at < CALM else 0
        return min(MAX_DELAY, 0.25 * 2**self.repeated) if self.repeated else 0.0


class Watchdog:
    def __init__(self, upstream: Upstream, config: WatchdogConfig, meters: Meters):
        self.upstream, self.config, self.meters = upstream, config, meters
        self.states: dict[str, str] = {}  # of each text model that the server has
        self.tasks: list[dict[str, Any]] | None = None  # of bert_multitask, by its last probe: name and labels
        self._refused: list[str] = []  # its adapter files that cannot be served, and why
        self._seen: set[str] = set()  # text models that have answered
        self._reloads: dict[str, Reloads] = {}
        self._numbers = itertools.count()
        self._round: asyncio.Task[None] | None = None

    async def infer(self, front: str, values: Mapping[str, str | int], seconds: float, priority: int = 0) -> Any:
        """Ask a text model, and take note of a dead process."""
        if priority != AHEAD or not self._waits(front):  # meanwhile the server may have been started again
            self.refuse_while_restarting(front)
        asked_at = asyncio.get_running_loop().time()
        try:
            return await self.upstream.infer(front, values, seconds, priority)
        except ModelDown as error:
            self.report(front, error.model, asked_at)
            raise
        except ModelAbsent:
            if front in self._seen:  # a reload was cut off
                self.report(front, front, asked_at)
                raise ModelDown(front) from None
            raise
        except Refusal as refusal:
            if refusal.status == 504:  # perhaps hurried by a reload
                self.refuse_while_restarting(front)
            raise

    def refuse_while_restarting(self, front: str) -> None:
        if name := self.restarting(front):
            raise ModelDown(name)

    def restarting(self, front: str) -> str | None:
        """Return the model whose reload ``front`` waits for: itself or its engine."""
        return next((name for name, each in self._reloads.items() if front in each.fronts and each.running), None)

    def report(self, front: str, dead: str, asked_at: float) -> None:
        """Begin to reload ``dead`` unless that happens already, or has since the failed request was sent."""
        now = asyncio.get_running_loop().time()
        reloads = self._reloads.setdefault(dead, Reloads())
        reloads.fronts.add(front)
        if not reloads.running and asked_at > reloads.done_at:
            reloads.task = asyncio.create_task(self._reload(dead, reloads, reloads.delay(now)))
        if reloads.running:
            self.states[front] = f"restarting {dead}"
            self.upstream.hurry(front, GRACE)

    def _waits(self, front: str) -> bool:
        """Whether every reload that keeps ``front`` from answering waits for its delay."""
        return all(each.waiting for each in self._reloads.values() if front in each.fronts and each.running)

    def _forget_delays(self, front: str) -> None:
        """Drop the reloads of ``front`` that wait for their delay: the model answers."""
        for name, reloads in list(self._reloads.items()):
            if front in reloads.fronts and reloads.running and reloads.waiting and reloads.task:
                reloads.task.cancel()
                del self._reloads[name]

    async def _reload(self, name: str, reloads: Reloads, delay: float) -> None:
        LOG.warning("%s: down, reloading in %.1f s", name, delay)
        reloads.waiting = True
        await asyncio.sleep(delay)
        reloads.waiting = False
        result = "ok"
        try:
            await self.upstream.reload(name)
            LOG.info("%s: reloaded", name)
        except Refusal as refusal:
            result = "failed"
            LOG.error("%s: reload failed: %s", name, refusal.line)
        reloads.done_at = asyncio.get_running_loop().time()
        self.meters.reloads.labels(name, result).inc()

    async def check(self) -> dict[str, str]:
        """Ask every text model now; returns the state of those that the server has. Callers share a round."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._probe_all())
        await asyncio.shield(self._round)
        return dict(self.states)

    async def _probe_all(self) -> None:
        await asyncio.gather(*(self._probe(front) for front in PROBES))

    async def _probe(self, front: str) -> None:
        try:
            probe = PROBES[front](next(self._numbers))
            outputs = await self.infer(front, probe, self.config.probe_deadline, AHEAD)
            if "tasks" in outputs:
                self._note_tasks(front, **json.loads(outputs["tasks"]))
            self._forget_delays(front)
            self._seen.add(front)
            state = OK
        except ModelAbsent:
            self.states.pop(front, None)
            return
        except Unreachable as error:
            self._seen.clear()  # another server may have other models
            state = error.line
        except ModelDown as error:
            state = f"restarting {error.model}"
        except Refusal as refusal:
            slow = f"no answer from {front} within {self.config.probe_deadline:g} s"
            state = slow if refusal.status == 504 else refusal.line
        if state != self.states.get(front):
            LOG.log(logging.INFO if state == OK else logging.WARNING, "%s: %s", front, state)
        self.states[front] = state

    def _note_tasks(self, front: str, tasks: list[dict[str, Any]], refused: list[str]) -> None:
        """Keep the list of tasks, and log what changes: adapter files come and go while the server runs."""
        for line in refused:
            if line not in self._refused:
                LOG.warning("%s: %s", front, line)
        if tasks != self.tasks:
            LOG.info("%s: %s", front, ", ".join(task["name"] for task in tasks) or "no task yet")
        self.tasks, self._refused = tasks, refused

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.config.probe_seconds)
            try:
                await self.check()
            except Exception:  # nothing may end the watch
                LOG.exception("the probe failed")

    async def close(self) -> None:
        """Wait for reloads: one that is cut off leaves its model unloaded."""
        tasks = [task for task in (self._round, *(each.task for each in self._reloads.values())) if task]
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN)
