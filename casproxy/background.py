"""Owns running tasks beside a block, for as long as the block takes. Refuses to know what either of them does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background(*tasks: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.Nursery]:
    """Run ``tasks`` beside the block; leaving cancels them, and more that the block has started in the nursery.

    ::

        the block raises an Exception    it leaves as it is, not in a group as out of a bare nursery
        a task raises                    cancels the block and the other tasks, leaves in a group
        both                             a group of both
        cancelled from outside           all of them are, and the cancellation leaves unless the block raises an error

    A task may return. Nothing runs any more when the block has been left.
    """
    failure: Exception | None = None
    try:
        try:
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task)
                try:
                    yield nursery
                except Exception as error:  # past the nursery, which would wrap it in a group, and copy it if it is one
                    failure = error
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if failure is None:
                raise
            _, others = group.split(trio.Cancelled)
            if others is not None:
                raise BaseExceptionGroup("a block and a task beside it", [failure, *others.exceptions]) from None
        if failure is not None:
            raise failure
    finally:
        del failure  # or it would be in a circle with this frame, which is in its traceback
