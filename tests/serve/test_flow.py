"""Many requests at once: order, bounds and errors."""

import asyncio

import pytest

from bert.client.flow import AHEAD, in_order


async def collect(ask, items, concurrency):
    return [each async for each in in_order(ask, items, concurrency)]


def test_results_keep_the_order_of_the_items():
    async def ask(number):
        await asyncio.sleep(0.02 if number % 3 == 0 else 0)
        return -number

    assert asyncio.run(collect(ask, range(20), 4)) == [-number for number in range(20)]


def test_never_more_than_the_limit_in_flight():
    running, most = 0, 0

    async def ask(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    asyncio.run(collect(ask, range(50), 5))
    assert most == 5


def test_an_infinite_source_is_read_as_far_as_needed():
    taken = []

    def numbers():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    async def ask(number):
        return number

    async def first_three():
        results = in_order(ask, numbers(), 2)
        found = [await anext(results) for _ in range(3)]
        await results.aclose()
        return found

    assert asyncio.run(first_three()) == [0, 1, 2]
    assert len(taken) <= 3 + 2 * AHEAD + 1


def test_an_answer_comes_before_the_next_item_is_there():
    """A program that waits for each answer before it asks again is not kept waiting."""

    async def talk():
        answered = asyncio.Event()

        async def items():
            yield 1
            await asyncio.wait_for(answered.wait(), 10)
            yield 2

        async def ask(number):
            return number

        found = []
        async for each in in_order(ask, items(), 8):
            found.append(each)
            answered.set()
        return found

    assert asyncio.run(talk()) == [1, 2]


def test_an_error_ends_it_and_cancels_the_rest():
    cancelled = []

    async def ask(number):
        if number == 1:
            raise ValueError("one")
        try:
            await asyncio.sleep(60 if number else 0)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(ValueError, match="one"):
        asyncio.run(collect(ask, range(4), 4))
    assert sorted(cancelled) == [2, 3]


def test_an_error_of_the_source_is_raised():
    def items():
        yield 1
        raise OSError("gone")

    async def ask(number):
        return number

    with pytest.raises(OSError, match="gone"):
        asyncio.run(collect(ask, items(), 4))
