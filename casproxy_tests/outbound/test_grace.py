"""Steps that outlast a cancellation for a moment, and steps side by side."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from casproxy.outbound.grace import outlast, side_by_side
from casproxy_tests.garbage import circles_of, told


async def test_a_cancel_waits_for_a_step_that_ends_in_time(autojump_clock: MockClock) -> None:
    ended = False

    async def step() -> None:
        nonlocal ended
        await trio.sleep(5)
        ended = True

    with trio.move_on_after(4.5) as scope:
        await outlast(1.0, 60.0, step)
    assert ended and scope.cancelled_caught and trio.current_time() == 5


async def test_a_cancel_does_not_wait_longer_than_its_grace(autojump_clock: MockClock) -> None:
    calls: list[float] = []
    with trio.move_on_after(2) as scope:
        await outlast(1.0, 60.0, trio.sleep_forever, on_cancel=lambda: calls.append(trio.current_time()))
    assert scope.cancelled_caught and trio.current_time() == 3 and calls == [2]


async def test_a_step_has_an_end_without_a_cancel(autojump_clock: MockClock) -> None:
    await outlast(1.0, 60.0, trio.sleep_forever)
    assert trio.current_time() == 60


async def test_a_step_is_not_begun_once_cancelled() -> None:
    begun = False

    async def step() -> None:
        nonlocal begun
        begun = True

    with trio.CancelScope() as scope:
        scope.cancel()
        await outlast(1.0, 60.0, step)
    assert scope.cancelled_caught and not begun


async def test_a_failing_step_is_heard_as_it_is() -> None:
    async def step() -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await outlast(1.0, 60.0, step)


async def test_the_first_failure_side_by_side_ends_the_others(autojump_clock: MockClock) -> None:
    async def fail() -> None:
        await trio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await side_by_side(trio.sleep_forever, fail)
    assert trio.current_time() == 1


async def test_side_by_side_takes_as_long_as_the_longest(autojump_clock: MockClock) -> None:
    async def sleep() -> None:
        await trio.sleep(2)

    await side_by_side(sleep, sleep)
    assert trio.current_time() == 2


async def test_a_failure_that_a_cancellation_hides_leaves_no_circle() -> None:
    async def hide() -> None:
        with trio.CancelScope() as scope:

            async def step() -> None:
                scope.cancel()
                raise ValueError

            await outlast(1.0, 60.0, step)
        assert scope.cancelled_caught

    found = await circles_of(hide)
    assert not found, told(found)
