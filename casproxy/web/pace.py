"""Owns when a peer is too slow: progress decides, not total time. Refuses to know clocks and sockets.

The same rule as for uploads over gRPC (``pipeline/chunk.py``): within each ``idle_timeout`` the peer must move at least
``min_rate * idle_timeout`` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """``idle_timeout`` in seconds, ``min_rate`` in bytes per second."""

    idle_timeout: float = 60.0
    min_rate: float = 1.0


class Pace:
    """How long one peer may still be waited for."""

    __slots__ = ("_limits", "_owed", "left")

    def __init__(self, limits: PaceLimits) -> None:
        self._limits = limits
        self._renew()

    @property
    def exhausted(self) -> bool:
        """True when the peer had its time and did not move enough."""
        return self.left <= 0

    def waited(self, seconds: float, moved: int) -> None:
        """``seconds`` went by in which the peer moved ``moved`` bytes."""
        self.left -= seconds
        self._owed -= moved
        if self._owed <= 0:
            self._renew()

    def _renew(self) -> None:
        self.left = self._limits.idle_timeout
        self._owed = max(1.0, self._limits.min_rate * self._limits.idle_timeout)
