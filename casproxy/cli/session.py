"""Owns the frame of a client command: one Trio run, ended cleanly by a signal. Refuses to know what runs in it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from casproxy.cli.errors import Terminated

T = TypeVar("T")


def run(command: Callable[[], Awaitable[T]]) -> T:
    """Run ``command``; the first signal cancels it, and is raised as ``Terminated`` once its clean-up is done.

    A second Ctrl-C does not wait for the clean-up. Temporary files go also when a supervisor says SIGTERM. What
    ``command`` raises arrives in an ``ExceptionGroup``; ``cli/errors.py`` unwraps it.
    """
    return trio.run(_with_signals, command)


async def _with_signals(command: Callable[[], Awaitable[T]]) -> T:
    result: list[T] = []
    received: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch, nursery.cancel_scope, received)
        result.append(await command())
        nursery.cancel_scope.cancel()
    if result:
        return result[0]
    raise Terminated(received[0])


async def _watch(
    scope: trio.CancelScope, received: list[int], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    # A signal that was ignored when we started (nohup, a background job) stays ignored.
    wanted = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    if not wanted:
        task_status.started()
        return
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        received.append(await anext(signals))
        scope.cancel()


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
