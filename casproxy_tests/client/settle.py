"""What may outlive a cancelled client call for a moment, and how to wait for its end."""

from __future__ import annotations

import trio

from casproxy.client.worker_file import _LIMITER


async def abandoned_threads_end() -> None:
    """Return when no worker thread of the client is in a system call any more."""
    while _LIMITER.borrowed_tokens:
        await trio.lowlevel.checkpoint()
