"""The harness itself: it finds what it is made to find."""

from __future__ import annotations

import os

import pytest
import trio

from casproxy_tests.cancellation import Run, cancel_everywhere


async def _nothing(run: Run[object]) -> None:
    await trio.lowlevel.checkpoint()


async def test_every_await_of_every_task_is_cancelled_once() -> None:
    reached: list[tuple[str, int]] = []

    async def worker(name: str, awaits: int) -> None:
        for number in range(awaits):
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                reached.append((name, number))
                raise

    async def scenario() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, "a", 2)
            nursery.start_soon(worker, "b", 3)
        return "done"

    runs: list[Run[str]] = []

    async def check(run: Run[str]) -> None:
        runs.append(run)

    hits = await cancel_everywhere(scenario, check)
    assert set(reached) == {("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)}
    assert runs[0] == runs[-1] == Run(at=None, cancelled=False, value="done")
    assert [run.at for run in runs[1:-1]] == list(range(1, hits + 1))
    assert all(run.cancelled or run.value == "done" for run in runs)


async def test_places_are_the_same_in_each_run() -> None:
    async def places() -> list[str]:
        found: list[str] = []

        async def worker(name: str) -> None:
            try:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                found.append(name)
                raise

        async def scenario() -> None:
            async with trio.open_nursery() as nursery:
                for name in "abcdef":
                    nursery.start_soon(worker, name)

        await cancel_everywhere(scenario, _nothing)
        return found

    assert await places() == await places()


async def test_a_shield_is_seen_as_finished() -> None:
    runs: list[Run[int]] = []

    async def scenario() -> int:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return 7

    async def check(run: Run[int]) -> None:
        runs.append(run)

    assert await cancel_everywhere(scenario, check) >= 1
    assert all(run.value == 7 and not run.cancelled for run in runs)


async def test_an_open_file_is_found() -> None:
    left: list[int] = []

    async def scenario() -> None:
        fd = os.open("/dev/null", os.O_RDONLY)
        left.append(fd)
        await trio.lowlevel.checkpoint()  # cancelled here, nobody closes it
        os.close(left.pop())

    try:
        with pytest.raises(AssertionError, match="/dev/null"):
            await cancel_everywhere(scenario, _nothing)
    finally:
        for fd in left:
            os.close(fd)


async def test_a_task_left_behind_is_found() -> None:
    async with trio.open_nursery() as elsewhere:

        async def scenario() -> None:
            elsewhere.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()

        with pytest.raises(AssertionError, match="tasks left behind"):
            await cancel_everywhere(scenario, _nothing)
        elsewhere.cancel_scope.cancel()


async def test_another_error_is_not_taken_for_the_cancel() -> None:
    async def scenario() -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise OSError("clean-up failed") from None

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="clean-up failed")):
        await cancel_everywhere(scenario, _nothing)


async def test_a_scenario_longer_than_max_steps_fails() -> None:
    async def scenario() -> None:
        for _ in range(10):
            await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="after 4"):
        await cancel_everywhere(scenario, _nothing, max_steps=4)
