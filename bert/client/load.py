"""Load on the gateway: many requests of mixed lengths, some of them hostile, and what became of each.

    counts = await run_load(LoadConfig())
    print(counts.report(), counts.healthy)

A request is answered, or refused with a reason (a 4xx or 503 and one line). Anything else is a failure: no reply, a
reply without a reason, a 500, or an answer to what has none.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx
import numpy as np

from bert.client.ask import GatewayAsker, answer_in, read_file_questions
from bert.client.flow import in_order
from bert.config import flag
from bert.log import progress

WORDS = ["river", "stone", "green", "seven", "walks", "under", "the", "on", "and", "of", "bright", "song", "bridge"]
HOSTILE_SHARE = 0.2
REFUSALS = {400, 403, 404, 408, 411, 413, 415, 421, 422, 429, 503, 504}
BIG_BODY = 64 << 20
LONG_CONTEXT = 100_000


@dataclass
class LoadConfig:
    url: str = flag("http://127.0.0.1:8080", "The gateway.")
    requests: int = flag(1000, "Requests to send.", minimum=1)
    concurrency: int = flag(32, "Requests in flight.", minimum=1)
    predict_file: str | None = flag(None, "SQuAD file with the questions; by default made-up texts of 5 to 400 words.")
    hostile: bool = flag(False, f"Mix in {HOSTILE_SHARE:.0%} of bad requests: not JSON, wrong types, giant bodies ...")
    timeout: float = flag(60.0, "Seconds to wait for a reply; a later one is a failure.", minimum=0.1)
    seed: int = flag(1, "Seed of the texts and their order.")


class Sent(NamedTuple):
    """A request; ``name`` is "" for a good one. Some bad ones may be answered, most must be refused."""

    name: str
    body: bytes
    may_be_answered: bool = False


class Outcome(NamedTuple):
    kind: str  # answered, refused or failed
    reason: str
    seconds: float


@dataclass
class Counts:
    """What became of the requests."""

    seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether every request was answered, or refused with a reason."""
        return not any(outcome.kind == "failed" for outcome in self.outcomes)

    def report(self) -> str:
        lines = []
        for kind in ("answered", "refused", "failed"):
            reasons = Counter(each.reason for each in self.outcomes if each.kind == kind)
            lines.append(f"{kind:9}{sum(reasons.values()):>8}")
            lines += [f"{'':9}{count:>8}  {reason}" for reason, count in reasons.most_common() if reason]
        answered = [each.seconds for each in self.outcomes if each.kind == "answered"]
        if answered:
            values = zip((50, 90, 95, 99), np.percentile(answered, (50, 90, 95, 99)) * 1000, strict=True)
            lines.append("latency  " + ", ".join(f"p{rank} {value:.0f} ms" for rank, value in values))
        lines.append(
            f"{len(answered) / self.seconds:.1f} answers/s, {len(self.outcomes) / self.seconds:.1f} requests/s"
        )
        return "\n".join(lines)


def good_bodies(config: LoadConfig) -> Iterator[bytes]:
    """Yield questions without end, in random order."""
    draw = random.Random(config.seed)
    if config.predict_file is not None:
        items = [item for _, item in read_file_questions(config.predict_file)]
        while True:
            draw.shuffle(items)
            yield from (json.dumps(item).encode() for item in items)
    while True:
        context = " ".join(draw.choices(WORDS, k=draw.randint(5, 400)))
        yield json.dumps({"question": f"Which {draw.choice(WORDS)}?", "context": context}).encode()


def hostile_requests() -> list[Sent]:
    """Return one of each kind of bad request."""

    def asked(question: object, context: object, **more: object) -> bytes:
        return json.dumps({"question": question, "context": context, **more}).encode()

    return [
        Sent("malformed JSON", b'{"question": "Who?", "context": '),
        Sent("not UTF-8", b'{"question": "\xff\xfe", "context": "a"}'),
        Sent("not an object", b'"Who?"'),
        Sent("nested deeply", b"[" * 100_000),
        Sent("wrong types", asked(7, ["Ada"])),
        Sent("n_best out of range", asked("Who?", "Ada wrote it.", n_best=10**9)),
        Sent("unknown field", asked("Who?", "Ada wrote it.", admin=True)),
        Sent("missing field", b'{"question": "Who?"}'),
        Sent("empty question", asked(" ", "Ada wrote it.")),
        Sent("half a character", b'{"question": "\\ud800", "context": "Ada wrote it."}'),
        Sent("empty body", b""),
        Sent(f"context of {LONG_CONTEXT} characters", asked("Who?", "word " * (LONG_CONTEXT // 5)), True),
        Sent("control characters", asked("Who\x00\x07\x1b[31m?", "Ada\x00 wrote\x08 it.\x7f"), True),
        Sent("one long word", asked("Who?", "a" * 10_000), True),
        Sent(f"body of {BIG_BODY >> 20} MB", b'{"question": "' + b"a" * BIG_BODY + b'", "context": "a"}'),
    ]


def requests_of(config: LoadConfig) -> Iterator[Sent]:
    draw, good, hostile = random.Random(config.seed), good_bodies(config), hostile_requests()
    sent = 0
    for _ in range(config.requests):
        if config.hostile and draw.random() < HOSTILE_SHARE:
            yield hostile[sent % len(hostile)]
            sent += 1
        else:
            yield Sent("", next(good))


def judge(sent: Sent, reply: httpx.Response) -> tuple[str, str]:
    """Return what a reply means and, for a bad request or a refusal, why."""
    values = answer_in(reply)
    if "error" not in values:
        if sent.name and not sent.may_be_answered:
            return "failed", f"{sent.name}: answered"
        return "answered", sent.name
    reason = f"{sent.name + ': ' if sent.name else ''}{reply.status_code} {values['error']}"
    has_reason = "HTTP " not in values["error"]
    has_reason = not values["error"].startswith("HTTP ")  # else answer_in() found none
    return ("refused" if has_reason and reply.status_code in REFUSALS else "failed"), reason


async def run_load(config: LoadConfig) -> Counts:
    """Send the requests; raises UsageError if no server answers at the start."""
    counts, asker = Counts(), GatewayAsker(config.url, config.timeout)

    async def send(sent: Sent) -> Outcome:
        began = time.perf_counter()
        try:
            kind, reason = judge(sent, await asker.post(sent.body))
        except httpx.HTTPError as error:
            # A server may close the connection while a body that it has refused still arrives.
            cut_off = len(sent.body) >= BIG_BODY and isinstance(error, httpx.WriteError | httpx.RemoteProtocolError)
            kind = "refused" if cut_off else "failed"
            reason = f"{sent.name + ': ' if sent.name else ''}{type(error).__name__}"
        return Outcome(kind, reason, time.perf_counter() - began)

    async with asker:
        began = time.perf_counter()
        with progress(total=config.requests, description="Sending", unit="request") as bar:
            async for outcome in in_order(send, requests_of(config), config.concurrency):
                counts.outcomes.append(outcome)
                bar.update()
        counts.seconds = time.perf_counter() - began
    return counts
