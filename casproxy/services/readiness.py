"""Owns whether this process should get traffic, and tells those who wait for a change. Refuses to know who asks.

Trouble is something else: what works badly and is worth telling, though traffic is still served.
"""

from __future__ import annotations

import trio


class Readiness:
    """Not ready until ``started``; not ready for good from ``drain`` on; in between, not ready while ``failing``."""

    def __init__(self) -> None:
        self._started = False
        self._failing: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether this process should get traffic now."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it should get none; empty when it should."""
        if self.draining:
            return "draining"
        if not self._started:
            return "starting"
        return _joined(self._failing)

    @property
    def trouble(self) -> str:
        """What works badly, whether or not it keeps traffic away; empty when all is well."""
        return _joined(self._troubles)

    def started(self) -> None:
        """Calls are accepted."""
        self._started = True
        self._changed.unpark_all()

    def drain(self) -> None:
        """No new calls, for good. Idempotent."""
        self.draining = True
        self._changed.unpark_all()

    def failing(self, part: str, why: str) -> None:
        """``part`` cannot do its work; an empty ``why`` says that it can again."""
        if why:
            self._failing[part] = why
        else:
            self._failing.pop(part, None)
        self._changed.unpark_all()

    def troubled(self, part: str, why: str) -> None:
        """``part`` works badly; an empty ``why`` says that it no longer does."""
        if why:
            self._troubles[part] = why
        else:
            self._troubles.pop(part, None)

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.park()


def _joined(parts: dict[str, str]) -> str:
    return "; ".join(f"{part}: {why}" for part, why in sorted(parts.items()))
