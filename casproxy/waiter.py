"""Owns one task's waiting for another to say that something has changed. Refuses to know what.

It is what a ``trio.lowlevel.ParkingLot`` is for any number of tasks, at a tenth of its memory: a stalled stream keeps
several of these for as long as its client likes.
"""

from __future__ import annotations

from collections.abc import Awaitable

import trio


class Waiter:
    """Where one task waits, and others wake it."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wait(self) -> Awaitable[None]:
        """Wait for the next ``wake``; cancelled, it waits no more. One task at a time.

        It has no coroutine of its own, a quarter of a kilobyte for each task that waits. So it must be awaited at once,
        by the task that calls it: ``start_soon(waiter.wait)`` would make the task that starts it wait.
        """
        if self._task is not None:
            raise trio.BusyResourceError("another task waits here already")
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._give_up)  # noqa: ASYNC105 - see above

    def wake(self) -> bool:
        """Wake the task; False when none is waiting."""
        task, self._task = self._task, None
        if task is None:
            return False
        trio.lowlevel.reschedule(task)
        return True

    def _give_up(self, _raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
