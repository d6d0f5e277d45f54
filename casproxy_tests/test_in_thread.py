"""Work in a thread: its result, its error with the thread's own frames, and what is left when nobody waits for it."""

from __future__ import annotations

import threading
import traceback
from contextlib import suppress

import pytest
import trio
import trio.testing

from casproxy.in_thread import run_in_thread
from casproxy_tests.garbage import circles_of, told


class Failed(Exception):
    """What the work raises."""


def fail() -> None:
    raise Failed


@pytest.mark.parametrize("result", ["done", None])
async def test_the_result_comes_back(result: str | None) -> None:
    assert await run_in_thread(lambda: result, limiter=trio.CapacityLimiter(1)) == result


async def test_an_error_tells_where_in_the_thread_it_was_raised() -> None:
    with pytest.raises(Failed) as caught:
        await run_in_thread(fail, limiter=trio.CapacityLimiter(1))
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "fail"
    assert caught.value.__context__ is None


async def test_an_error_leaves_no_circle() -> None:
    limiter = trio.CapacityLimiter(1)

    async def call() -> None:
        with suppress(Failed):
            await run_in_thread(fail, limiter=limiter)

    found = await circles_of(call)
    assert not found, told(found)


async def test_an_error_that_nobody_waits_for_leaves_no_circle() -> None:
    limiter = trio.CapacityLimiter(1)

    async def abandon() -> None:
        released = threading.Event()

        def fail_when_released() -> None:
            released.wait()
            raise Failed

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run_in_thread(fail_when_released, limiter=limiter))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert limiter.borrowed_tokens == 1
        released.set()
        async with limiter:
            """The thread has ended."""

    found = await circles_of(abandon)
    assert not found, told(found)
