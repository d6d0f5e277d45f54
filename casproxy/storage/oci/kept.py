"""Owns how much of one credential's small artifacts may wait in memory for their last byte. Refuses to know who waits.

A small artifact is kept until it is complete, for then it costs one request less. A thousand senders that stop a byte
short of the end would be a gigabyte; so what is kept is counted, and an upload that finds no room streams.
"""

from __future__ import annotations

from typing import Final

KEPT_BYTES: Final = 16 * 1024 * 1024


class Kept:
    """The bytes that all uploads with one credential keep."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0

    def add(self, size: int) -> bool:
        """Keep ``size`` bytes more; False when that is too much, although it is counted all the same."""
        self._bytes += size
        return self._bytes <= self._limit

    def remove(self, size: int) -> None:
        """They have left, or were dropped."""
        self._bytes -= size
