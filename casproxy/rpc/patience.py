"""Owns how long a silent or slow peer is waited for. Refuses to know what it is to send.

Progress decides, never total time: every limit here is measured from the last sign of life, or from the first byte of
something the peer did not finish. How fast a body must come is the pipeline's business.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """All in seconds; ``math.inf`` switches one off."""

    greeting: float = 10.0
    """From accepting to the peer's preface and SETTINGS."""
    headers: float = 10.0
    """From the first byte of a header block, or of any frame but DATA, to its last."""
    idle: float = 3600.0
    """Without a stream, to a friendly GOAWAY."""
    keepalive: float = 7200.0
    """Without a byte, to a PING of ours."""
    keepalive_answer: float = 20.0
    """From that PING to any byte."""
    write: float = 60.0
    """The longest one write may take before the peer counts as dead."""


class Expired(enum.Enum):
    """Why the wait is over. The values name the metric's label."""

    GREETING = "slow_greeting"
    HEADERS = "slow_headers"
    IDLE = "idle"
    KEEPALIVE = "keepalive"
    DEAD = "dead_peer"


class Patience:
    """When to stop waiting for the next byte. Times are on any one clock, in seconds."""

    def __init__(self, timeouts: ConnectionTimeouts, now: float) -> None:
        self._timeouts = timeouts
        self._started = now
        self._last_byte = now
        self._busy_at = now
        self._unfinished_since = math.inf
        self._greeted = False
        self._pinged_at = math.inf

    def received(self, now: float, *, greeted: bool, unfinished: bool) -> None:
        """Bytes arrived. ``greeted``: SETTINGS were among all so far; ``unfinished``: they ended inside a frame."""
        self._last_byte = now
        self._pinged_at = math.inf
        self._greeted = greeted
        if not unfinished:
            self._unfinished_since = math.inf
        elif self._unfinished_since == math.inf:
            self._unfinished_since = now

    def busy(self, now: float) -> None:
        """The last stream has just closed."""
        self._busy_at = now

    def pinged(self, now: float) -> None:
        """Our PING is on its way."""
        self._pinged_at = now

    def deadline(self, *, has_streams: bool) -> tuple[float, Expired]:
        """When to stop waiting, and why then."""
        timeouts = self._timeouts
        if not self._greeted:
            return self._started + timeouts.greeting, Expired.GREETING
        candidates = [
            (self._unfinished_since + timeouts.headers, Expired.HEADERS),
            (self._pinged_at + timeouts.keepalive_answer, Expired.DEAD),
        ]
        if self._pinged_at == math.inf:
            candidates.append((self._last_byte + timeouts.keepalive, Expired.KEEPALIVE))
        if not has_streams:
            candidates.append((max(self._busy_at, self._last_byte) + timeouts.idle, Expired.IDLE))
        return min(candidates, key=lambda candidate: candidate[0])
