"""Tasks beside a block: what leaves the block when either fails, and that nothing goes on when it has been left."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio

from casproxy.background import background
from casproxy_tests.cancellation import Run, cancel_everywhere


@dataclass
class Endless:
    """A task that waits for ever; ``failure``: what it raises when it is cancelled."""

    failure: Exception | None = None
    running: bool = False
    ended: bool = False

    async def run(self) -> None:
        self.running = True
        try:
            await trio.sleep_forever()
        finally:
            self.ended = True
            if self.failure is not None:
                raise self.failure


async def crash() -> None:
    raise OSError("the task")


async def test_tasks_run_beside_the_block_and_end_with_it() -> None:
    tasks = Endless(), Endless()
    later = Endless()
    async with background(*(task.run for task in tasks)) as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        assert all(task.running and not task.ended for task in (*tasks, later))
    assert all(task.ended for task in (*tasks, later))


async def test_a_task_may_return() -> None:
    async with background(trio.lowlevel.checkpoint):
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("own", [ValueError("the block"), ExceptionGroup("the block's own", [ValueError()])])
async def test_the_blocks_error_leaves_as_it_is(own: Exception) -> None:
    task, cause = Endless(), KeyError()
    with pytest.raises(type(own)) as caught:
        async with background(task.run):
            await trio.testing.wait_all_tasks_blocked()
            raise own from cause
    assert caught.value is own
    assert own.__cause__ is cause
    assert task.ended


async def test_a_crash_cancels_the_block_and_leaves_in_a_group() -> None:
    other = Endless()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="the task")):
        async with background(crash, other.run):
            await trio.sleep_forever()
    assert other.ended or not other.running


async def test_a_crash_in_the_nursery_counts_too() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="the task")):
        async with background() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()


async def test_neither_of_two_errors_is_lost() -> None:
    with pytest.RaisesGroup(ValueError, OSError):
        async with background(Endless(OSError()).run):
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError


async def test_the_blocks_error_leaves_as_it_is_when_all_is_cancelled_meanwhile() -> None:
    own = ValueError()
    with pytest.raises(ValueError) as caught, trio.CancelScope() as scope:  # noqa: PT011 - it is looked at below
        async with background(Endless().run):
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            raise own
    assert caught.value is own


async def test_cancelled_at_every_await_nothing_is_left() -> None:
    made: list[Endless] = []

    async def scenario() -> None:
        made[:] = [Endless(), Endless()]
        async with background(made[0].run) as nursery:
            nursery.start_soon(made[1].run)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    async def check(_run: Run[None]) -> None:
        assert all(task.ended or not task.running for task in made)

    assert await cancel_everywhere(scenario, check) >= 3
