"""A task waits, another wakes it; a cancelled one waits no more."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from casproxy.waiter import Waiter


async def _wait(waiter: Waiter) -> None:
    await waiter.wait()


async def test_a_waiting_task_is_woken_once() -> None:
    waiter, woken = Waiter(), 0

    async def wait_twice() -> None:
        nonlocal woken
        for _ in range(2):
            await waiter.wait()
            woken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_twice)
        await trio.testing.wait_all_tasks_blocked()
        assert waiter.wake()
        assert not waiter.wake()  # it is on its way, and waits nowhere
        await trio.testing.wait_all_tasks_blocked()
        assert woken == 1
        assert waiter.wake()
    assert woken == 2


async def test_a_wake_without_a_waiter_is_not_remembered() -> None:
    waiter = Waiter()
    assert not waiter.wake()
    with trio.move_on_after(0) as scope:
        await waiter.wait()
    assert scope.cancelled_caught


async def test_a_cancelled_task_leaves_the_place_to_another() -> None:
    waiter = Waiter()
    with trio.move_on_after(0):
        await waiter.wait()
    assert not waiter.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait, waiter)
        await trio.testing.wait_all_tasks_blocked()
        assert waiter.wake()


async def test_a_second_task_is_refused() -> None:
    waiter = Waiter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait, waiter)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await waiter.wait()
        assert waiter.wake()
