"""Limits that hold before a request is understood: who may ask, how much, how often and how long.

:class:`Guard` is plain ASGI, so that a body is counted while it arrives. It hands the application whole bodies only,
and cancels the work of a client that has left::

    app = Guard(app, Limits())
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bert.config import flag
from bert.gateway.refusal import Refusal, error_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
GUARDED = "/v1/"  # the paths that cost an inference
ADDRESSES = 10_000  # whose rate is remembered
DRAIN_SECONDS = 5.0  # of a body that is refused
SILENCE_SECONDS = 0.5  # after which no more of it is expected


@dataclass
class Limits:
    allowed_host: list[str] | None = flag(
        None, f"Names of this server, without port, besides {', '.join(LOCAL_HOSTS)}."
    )
    max_body_bytes: int = flag(1 << 20, "Largest body of a request.", minimum=1)
    body_seconds: float = flag(10.0, "Time for a body to arrive.", minimum=0.01)
    deadline_seconds: float = flag(10.0, "Time for an answer, from the whole body on.", minimum=0.01)
    max_in_flight: int = flag(256, "Requests answered at once. Twice as many may be sending their bodies.", minimum=1)
    rate: float = flag(100.0, "Requests a second from one address; 0: any number.", minimum=0)
    burst: int = flag(200, "Requests that an address may send at once after a pause.", minimum=1)
    max_list: int = flag(64, "Objects in a list.", minimum=1)
    list_parallel: int = flag(8, "Objects of a list that are answered at once.", minimum=1)
    max_question_chars: int = flag(1000, "Characters of a question.", minimum=1)
    max_context_chars: int = flag(50_000, "Characters of a context.", minimum=1)
    max_text_chars: int = flag(50_000, "Characters of a text to classify or embed.", minimum=1)


class Rates:
    """A token bucket for each address: ``burst`` tokens, of which ``rate`` return every second."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: tokens, time

    def wait(self, address: str) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        if not self.rate:
            return 0.0
        now = self.clock()
        tokens, then = self._buckets.pop(address, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        self._buckets[address] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if tokens >= 1 else (1 - tokens) / self.rate


class Guard:
    """ASGI middleware that refuses what is beyond the limits."""

    def __init__(self, app: App, limits: Limits):
        self.app, self.limits = app, limits
        self.hosts = {host.lower() for host in [*LOCAL_HOSTS, *(limits.allowed_host or [])]}
        self.rates = Rates(limits.rate, limits.burst)
        self.slots = {"reading": 2 * limits.max_in_flight, "answering": limits.max_in_flight}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin1"): value.decode("latin1") for name, value in scope["headers"]}
        try:
            check_origin(headers, self.hosts)
            if scope["method"] != "POST" or not scope["path"].startswith(GUARDED):
                return await self.app(scope, receive, send)
            await check_body_headers(headers, self.limits.max_body_bytes, receive)
            self.check_rate(address_of(scope))
            with self.slot("reading"):
                body = await read_body(receive, self.limits)
            with self.slot("answering"):
                await run_while_connected(self.app, scope, body, receive, send)
        except Refusal as refusal:
            await send_refusal(send, refusal)

    def check_rate(self, address: str) -> None:
        if wait := self.rates.wait(address):
            line = f"more than {self.limits.rate:g} requests a second from your address"
            raise Refusal(429, line, retry_after=int(wait) + 1)

    @contextmanager
    def slot(self, kind: str) -> Iterator[None]:
        if not self.slots[kind]:
            raise Refusal(503, "too many requests at once, try again shortly", retry_after=1)
        self.slots[kind] -= 1
        try:
            yield
        finally:
            self.slots[kind] += 1


def check_origin(headers: dict[str, str], hosts: set[str]) -> None:
    """Refuse other names for this server (DNS rebinding), and pages of other servers."""
    host = headers.get("host", "").lower()
    if re.sub(r":\d+$", "", host) not in hosts:
        raise Refusal(421, "Host: not a name of this server (--allowed_host)")
    if "origin" in headers and server_of(headers["origin"].lower()) != host:
        raise Refusal(403, "Origin: a page of another server may not ask here")


def server_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ("http", "https") else None


async def check_body_headers(headers: dict[str, str], max_bytes: int, receive: Receive) -> None:
    if refusal := refusal_of_body(headers, max_bytes):
        if "expect" not in headers:  # otherwise the client waits before it sends
            await drain(receive)
        raise refusal


def refusal_of_body(headers: dict[str, str], max_bytes: int) -> Refusal | None:
    if "transfer-encoding" in headers or not headers.get("content-length", "").isdecimal():
        return Refusal(411, "Content-Length: needed; chunked bodies are not accepted")
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return Refusal(415, "Content-Type: expected application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Refusal(415, "Content-Encoding: compressed bodies are not accepted")
    if int(headers["content-length"]) > max_bytes:
        return Refusal(413, too_large(max_bytes))
    return None


async def drain(receive: Receive) -> None:
    """Throw away what comes, for a while: a client that is still sending would not see the refusal."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            more = True
            while more:
                async with asyncio.timeout(SILENCE_SECONDS):
                    more = (await receive()).get("more_body", False)


def too_large(max_bytes: int) -> str:
    return f"body: larger than {max_bytes} bytes (--max_body_bytes)"


def address_of(scope: Message) -> str:
    """Return the client's address; of IPv6 the network of 64 bits, which one client can have all to itself."""
    address = (scope.get("client") or ("unknown",))[0]
    return ":".join(address.split(":")[:4]) if ":" in address else address


async def read_body(receive: Receive, limits: Limits) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(499, "the client left")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limits.max_body_bytes:  # whatever Content-Length said
                    raise Refusal(413, too_large(limits.max_body_bytes))
    except TimeoutError:
        raise Refusal(408, f"body: not here after {limits.body_seconds:g} s (--body_seconds)") from None
    return bytes(body)


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_while_connected(app: App, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
    """Run ``app`` on the whole body, and cancel it when the client leaves."""

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    work = asyncio.ensure_future(app(scope, replay, send))
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "the client left")
        work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def send_refusal(send: Send, refusal: Refusal) -> None:
    body = error_body(refusal.line)
    # The rest of a refused body is not read, so the connection cannot be used again.
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in (headers | refusal.headers).items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
