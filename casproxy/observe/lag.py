"""Owns measuring how late the event loop runs its tasks. Refuses to know why it is late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

_INTERVAL_SECONDS: Final = 0.5


async def watch_lag(report: Callable[[float], None]) -> None:
    """Sleep and report how much longer that took, in seconds, for ever: what every task waits before it may run."""
    while True:
        due = trio.current_time() + _INTERVAL_SECONDS
        await trio.sleep_until(due)
        report(max(0.0, trio.current_time() - due))
