"""What may outlive a cancelled client call for a moment, and how to wait for its end."""

from __future__ import annotations

import trio
import trio.testing

from casproxy.client.worker_file import _LIMITER


async def abandoned_threads_end() -> None:
    """Return when no worker thread of the client is in a system call any more."""
    while _LIMITER.borrowed_tokens:
        await trio.lowlevel.checkpoint()


async def settled() -> None:
    """Return when that is over, and the server's side of the connection as well."""
    await abandoned_threads_end()
    before = None
    while (now := trio.lowlevel.current_statistics().tasks_living) != before:
        before = now
        await trio.testing.wait_all_tasks_blocked(0.01)
