"""Owns two ways of waiting: beside each other, and a little longer than a cancellation asks. Refuses to know for what.

A step that changes something at a registry is worth a short wait: given up in flight, nobody knows whether it
happened, and what it opened stays open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


async def outlast(
    grace: float,
    longest: float,
    step: Callable[[], Awaitable[None]],
    *,
    on_cancel: Callable[[], None] = lambda: None,
) -> None:
    """Run ``step``; a cancellation from outside reaches it ``grace`` seconds later, ``on_cancel`` is called at once.

    At most ``longest`` seconds in all. ``step`` leaves its outcome where others find it: running out of time raises
    nothing, and a cancellation from outside is raised whatever became of the step.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    failure: Exception | None = None
    ended = trio.Event()
    protected = trio.CancelScope(shield=True, deadline=trio.current_time() + longest)

    async def watch() -> None:
        try:
            await ended.wait()
        except trio.Cancelled:
            protected.deadline = min(protected.deadline, trio.current_time() + grace)
            on_cancel()
            raise

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with protected:
                try:
                    await step()
                except Exception as error:
                    failure = error
            ended.set()
        if failure is not None:
            raise failure
    finally:
        del failure


async def side_by_side(*steps: Callable[[], Awaitable[None]]) -> None:
    """Run all steps at once; the first failure cancels the others and is raised alone."""
    failures: list[Exception] = []  # the first one only: an error in it is in a circle with the frames it went through

    async def run(step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Exception as error:
            if not failures:
                failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(run, step)
    if failures:
        raise failures.pop()
