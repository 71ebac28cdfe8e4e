"""Many requests at once, their results in order.

async for reply in in_order(ask, items, concurrency=16):
    print(reply)
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 4  # results that may wait for an earlier one, per request in flight
LONGEST_LINE = 64 << 20


async def in_order(
    ask: Callable[[A], Awaitable[B]], items: Iterable[A] | AsyncIterable[A], concurrency: int
) -> AsyncIterator[B]:
    """Yield ``await ask(item)`` for every item as soon as those before it are done.

    At most ``concurrency`` are in flight, and an infinite ``items`` is read only as fast as results are taken. The
    first error ends it, and cancels what is still in flight.
    """
    asked: asyncio.Queue[asyncio.Future[B] | None] = asyncio.Queue()
    room, window = asyncio.Semaphore(concurrency), asyncio.Semaphore(concurrency * AHEAD)
    tasks: set[asyncio.Future[B]] = set()

    async def limited(item: A) -> B:
        async with room:
            return await ask(item)

    async def feed() -> None:
        async for item in _asynchronous(items):
            await window.acquire()
            task = asyncio.ensure_future(limited(item))
            tasks.add(task)
            asked.put_nowait(task)

    feeder = asyncio.ensure_future(feed())
    feeder.add_done_callback(lambda _: asked.put_nowait(None))
    try:
        while (task := await asked.get()) is not None:
            yield await task
            tasks.discard(task)
            window.release()
        await feeder  # raises what ``items`` raised
    finally:
        for task in (feeder, *tasks):
            task.cancel()
        await asyncio.gather(feeder, *tasks, return_exceptions=True)


async def _asynchronous(items: Iterable[A] | AsyncIterable[A]) -> AsyncIterator[A]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def stdin_lines() -> AsyncIterator[bytes]:
    """Yield the lines of stdin that are not blank, without keeping the event loop from its work."""
    read = _blocking_readline
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):  # no thread, which could not be stopped while it waits
        reader = asyncio.StreamReader(LONGEST_LINE)
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        read = reader.readline
    while line := await read():
        if line.strip():
            yield line


async def _blocking_readline() -> bytes:
    return await asyncio.to_thread(sys.stdin.buffer.readline)
