"""Owns receive credit: how much each peer may send before somebody takes the bytes. Refuses to know frames.

A byte of a DATA frame costs credit twice, on its stream and on its connection (RFC 9113, 5.2)::

    received ──▶ held ──▶ handed on
                  │           └─ stream credit goes back, in steps of a quarter window
                  └─ connection credit goes back at once while this connection holds less than its share of
                     the process's budget, else when the byte is handed on or discarded; exactly once

A stream that nobody reads therefore keeps its bytes and its credit to itself, and its neighbours keep theirs.
Windows start small and double each time a whole window was handed on, up to a cap, while the budget has room.
"""

from __future__ import annotations

CONNECTION_FLOOR = 64 * 1024
"""Bytes each connection may hold whatever the budget says, so that every connection makes progress."""


class Budget:
    """Payload bytes held by the whole process. ``total`` and ``held`` in bytes."""

    __slots__ = ("held", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0

    @property
    def tight(self) -> bool:
        """Half of it is held: windows stop growing and connections fall back to their floor."""
        return self.held * 2 >= self.total

    @property
    def exhausted(self) -> bool:
        """All of it is held: new streams are refused."""
        return self.held >= self.total

    def share(self) -> int:
        """Bytes one connection may hold and still get its credit back on receipt."""
        return CONNECTION_FLOOR if self.tight else max(CONNECTION_FLOOR, self.total // 4)


class StreamWindow:
    """The receive window of one stream. All sizes in bytes."""

    __slots__ = ("_largest", "_turnover", "available", "held", "pending", "target")

    def __init__(self, initial: int, largest: int) -> None:
        self.target = initial
        self.available = initial
        self.held = 0
        self.pending = 0
        self._largest = largest
        self._turnover = 0

    def received(self, size: int) -> None:
        """The peer spent ``size`` bytes of credit."""
        self.available -= size
        self.held += size

    def hand_on(self, size: int, *, may_grow: bool) -> int:
        """``size`` held bytes were taken. Returns the credit to send to the peer now, often 0."""
        self.held -= size
        self.pending += size
        self._turnover += size
        if self._turnover >= self.target:
            self._turnover = 0
            if may_grow and self.target < self._largest:
                growth = min(self.target, self._largest - self.target)
                self.target += growth
                self.pending += growth
        if self.pending * 4 < self.target and self.available > 0:
            return 0
        credit, self.pending = self.pending, 0
        self.available += credit
        return credit

    @property
    def starved(self) -> bool:
        """The peer can send nothing until something is handed on."""
        return self.available <= 0


class ConnectionWindow:
    """The receive window of one connection, a share of the budget. All sizes in bytes."""

    __slots__ = ("_budget", "available", "held", "owed", "pending", "target")

    def __init__(self, target: int, budget: Budget) -> None:
        self._budget = budget
        self.target = target
        self.available = target
        self.held = 0
        self.owed = 0
        self.pending = 0

    def received(self, size: int) -> None:
        """The peer spent ``size``: credit goes back now if this connection is within its share."""
        self.available -= size
        self.held += size
        self._budget.held += size
        if self.held <= self._budget.share():
            self.pending += size
        else:
            self.owed += size

    def released(self, size: int) -> None:
        """``size`` bytes are no longer held: handed on, or discarded unread."""
        self.held -= size
        self._budget.held -= size
        repaid = min(size, self.owed)
        self.owed -= repaid
        self.pending += repaid

    def take_credit(self) -> int:
        """The credit to send to the peer now, often 0 so that small updates do not flood the wire."""
        if self.pending * 4 < self.target and self.available * 2 > self.target:
            return 0
        credit, self.pending = self.pending, 0
        self.available += credit
        return credit

    def close(self) -> None:
        """The connection is gone: what it held no longer counts."""
        self._budget.held -= self.held
        self.held = 0

    @property
    def starved(self) -> bool:
        """The peer can send nothing on any stream until something is handed on."""
        return self.available <= 0
