"""``casproxy.turns``: a turn of the event loop ends when it has lasted long, and not before."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from casproxy import turns


async def test_large_pieces_of_work_share_turns_and_none_is_longer_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each piece takes a millisecond of a clock of ours: two begin in a turn, the third goes to the next."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    turns_taken: list[list[int]] = [[]]

    class Counter(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            turns_taken.append([])

    async def work(number: int) -> None:
        await turns.give_way()
        clock[0] += 0.00101
        turns_taken[-1].append(number)

    await turns.give_way()
    trio.lowlevel.add_instrument(counter := Counter())
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(work, number)
    trio.lowlevel.remove_instrument(counter)
    assert sorted(number for turn in turns_taken for number in turn) == list(range(12))
    assert max(map(len, turns_taken)) == 2


async def test_a_thousand_that_give_way_do_not_all_look_in_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs as well: those who look take turns, and every one of the others has its own in the end."""
    clock, looks = [0.0], 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return clock[0]

    monkeypatch.setattr(time, "perf_counter", now)
    done = 0

    async def work() -> None:
        nonlocal done
        await turns.give_way()
        clock[0] += 0.002
        done += 1

    await turns.give_way()
    cancelled = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(work)
            if number == 500:
                nursery.start_soon(_work_within, cancelled, work)
        await trio.lowlevel.checkpoint()
        cancelled.cancel()
    assert done == 1000
    assert cancelled.cancelled_caught
    assert looks < 1000 * (2 * turns.MOST_CONTENDERS)


async def _work_within(scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()


async def test_what_is_due_at_the_end_of_a_turn_is_done_once() -> None:
    done: list[str] = []
    assert turns.at_end(lambda: done.append("first"))
    assert turns.at_end(lambda: done.append("second"))
    assert not done
    await trio.lowlevel.checkpoint()
    assert done == ["first", "second"]
    await trio.lowlevel.checkpoint()
    assert done == ["first", "second"]


def test_the_end_of_a_run_is_the_end_of_a_turn() -> None:
    done: list[str] = []

    async def run() -> None:
        turns.at_end(lambda: done.append("at last"))

    trio.run(run)
    assert done == ["at last"]
    assert not turns.at_end(lambda: done.append("never"))
    assert done == ["at last"]


async def test_in_a_short_turn_nobody_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is no checkpoint then, not even for who is cancelled."""
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    await trio.lowlevel.checkpoint()
    with trio.CancelScope() as scope:
        scope.cancel()
        await turns.give_way()
    assert not scope.cancelled_caught


async def test_whoever_gives_way_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    await turns.give_way()
    now = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: now + 3600)
    with trio.CancelScope() as scope:
        scope.cancel()
        await turns.give_way()
    assert scope.cancelled_caught
