"""Owns the way of blocking work into a worker thread and of what it raises back. Refuses to know what the work is.

An error that comes back by Trio alone is in a circle: it is in variables of Trio's frames, and these are in its
traceback, or behind one that is (``f_back``). Only a full collection of garbage finds that, with the frames of whoever
waited for the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T], *, limiter: trio.CapacityLimiter) -> T:
    """Run ``work`` in a thread within ``limiter``; what it raises is raised here, with the thread's traceback.

    Cancelled, it returns at once and the thread is left to end on its own: what ``work`` uses belongs to it until then.
    """
    failures: list[Exception] = []  # the frames hold the list, which is empty before anybody catches what was in it
    abandoned = False

    def in_thread() -> T | None:
        try:
            return work()
        except Exception as error:
            failures.append(error)
            if abandoned:
                failures.clear()
            return None

    try:
        result = await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        abandoned = True
        failures.clear()
        raise
    if failures:
        raise failures.pop()
    return result  # type: ignore[return-value]  # None is a result of the work's own unless it has failed
