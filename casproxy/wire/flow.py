"""Owns receive credit: how much each peer may send before somebody takes the bytes. Refuses to know frames.

A byte of a DATA frame costs credit twice, on its stream and on its connection (RFC 9113, 5.2)::

    received ──▶ held ──▶ handed on
                  │           └─ stream credit goes back, in steps of a quarter window
                  └─ connection credit goes back as soon as the budget has room, at the latest here

So a stream that nobody reads keeps its bytes and its credit to itself, and its neighbours on the connection go on.

Windows start small and grow when a whole window was used, a stream's sixteenfold and a connection's twofold, while
the budget has room; when it is tight, stream windows shrink back. The budget bounds what peers CAN make this process
hold, not only what it holds now::

    exposure of a connection = held + min(its credit, the credit of all its streams), less a floor of 64 KiB,
                               + what is queued for a peer that does not read
    sum of all exposures    <= budget

An idle connection exposes nothing, however large its window has grown; opening a stream on it may be refused. A stream
that its peer has ended has no credit any more: a thousand downloads at once expose no windows.

No connection may take all of it: its exposure grows only while it is below a quarter of the room that its account has
(``budget``). So one greedy connection comes to rest at a fifth of that, the next at a fifth of what was left, and after
ten of them there is still room for whoever comes next.

Who pays is not known before somebody says so (``charge_to``). A connection that carries calls of several payers at
once, as a balancer's does, is charged to one account with all others of that kind.
"""

from __future__ import annotations

from collections.abc import Hashable

from casproxy.wire.budget import Budget

FLOOR = 65_535
"""Bytes each connection may hold whatever the budget says, so that all make progress: HTTP/2's initial window."""
LEAST_UPDATE = 16 * 1024
"""Smaller updates of a connection's window wait for more: they would make the peer send crumbs."""

GROWTH = 16
"""A stream's window becomes this many times as large when all of it was used: 1 MiB takes two turns, not five."""

SHARE = 4
"""A connection's exposure is at most the room of its account, divided by this."""


SEVERAL = object()
"""Who pays for connections that several use at once."""


class _StreamWindow:
    """One stream's credit. ``available``: what the peer may send; ``pending``: taken, and not yet given back."""

    __slots__ = ("available", "ended", "held", "pending", "target", "turnover")

    def __init__(self, initial: int) -> None:
        self.ended = False
        self.target = self.available = initial
        self.held = self.pending = self.turnover = 0


class ReceiveCredit:
    """The credit of one connection and its streams. All sizes in bytes."""

    def __init__(self, budget: Budget, *, initial: int, largest: int, largest_connection: int) -> None:
        self._account = budget.account()
        self._initial = initial
        self._largest = largest
        self._largest_connection = largest_connection
        self._streams: dict[int, _StreamWindow] = {}
        self._streams_available = 0
        self._exposure = 0
        self._turnover = 0
        self.target = FLOOR
        self.available = FLOOR
        self.held = 0
        self._queued = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def charge_to(self, payer: Hashable) -> None:
        """A stream of this connection turned out to be ``payer``'s."""
        current = self._account.payer
        if payer == current or current is SEVERAL:
            return
        self._move(payer if current is None else SEVERAL)

    def _move(self, payer: Hashable) -> None:
        exposure = self._exposure
        self._account.charge(-exposure)
        self._account = self._account.budget.account(payer)
        self._account.charge(exposure)

    def open_stream(self, stream_id: int) -> bool:
        """Make room for a stream with the initial window; False when the budget has none."""
        exposure = self._exposed(self._streams_available + self._initial)
        if exposure - self._exposure > self._headroom:
            return False
        self._streams[stream_id] = _StreamWindow(self._initial)
        self._streams_available += self._initial
        self._settle()
        return True

    def close_stream(self, stream_id: int) -> bool:
        """Nobody will read it any more: what it held is released. False when it was not open."""
        window = self._streams.pop(stream_id, None)
        if window is None:
            return False
        self.held -= window.held
        self._streams_available -= window.available
        self._settle()
        if not self._streams and self._account.payer is not None:
            self._move(None)  # whoever comes next on it may be somebody else
        return True

    def received(self, stream_id: int, size: int) -> bool:
        """The peer spent ``size``. False for a stream that is not open: the bytes are to be dropped."""
        self.available -= size
        self._turnover += size
        if self._turnover >= self.target:
            self._turnover = 0
            self.target = min(self.target * 2, self._largest_connection)
        window = self._streams.get(stream_id)
        if window is not None:
            window.available -= size
            window.held += size
            self._streams_available -= size
            self.held += size
        self._settle()
        return window is not None

    def peer_ended(self, stream_id: int) -> None:
        """The peer sends no more on it: what is left of its credit is nobody's, and no more is given."""
        window = self._streams.get(stream_id)
        if window is not None and not window.ended:
            window.ended = True
            self._streams_available -= window.available
            window.available = 0
            self._settle()

    def hand_on(self, stream_id: int, size: int) -> int:
        """``size`` held bytes were taken. Returns the stream credit to send to the peer now, often 0."""
        window = self._streams.get(stream_id)
        if window is None:
            return 0
        window.held -= size
        self.held -= size
        if window.ended:
            self._settle()
            return 0
        window.pending += size
        window.turnover += size
        self._resize(window)
        credit = 0
        # Less than a quarter can wait also when the peer has no credit at all, for then three quarters are held and
        # will be handed on: the five bytes of a prefix, credited ahead of their message, cost a round trip.
        if window.pending * 4 >= window.target:
            credit, window.pending = window.pending, 0
            window.available += credit
            self._streams_available += credit
        self._settle()
        return credit

    def _resize(self, window: _StreamWindow) -> None:
        if self._account.tight:
            excess = min(window.pending, max(0, window.target - self._initial))
            window.target -= excess
            window.pending -= excess
        elif window.turnover >= window.target:
            window.turnover = 0
            growth = min((GROWTH - 1) * window.target, self._largest - window.target, self._headroom)
            window.target += growth
            window.pending += growth

    def queued(self, size: int) -> None:
        """``size`` bytes more wait to be written to the peer; fewer when it is negative."""
        self._queued += size
        self._settle()

    @property
    def may_queue(self) -> int:
        """How much may wait to be written: the floor, and what else this connection may expose."""
        return FLOOR + self._headroom

    def connection_credit(self) -> int:
        """The connection credit to send to the peer now, often 0."""
        missing = self.target - self.available
        if self._may_wait(missing):
            return 0
        room = max(self._headroom, FLOOR - self.held - self.available)
        due = min(missing, room)
        if self._may_wait(due):
            return 0
        self.available += due
        self._settle()
        return due

    def _may_wait(self, due: int) -> bool:
        """So little credit is not worth a frame yet; then neither is less."""
        target = self.target
        return due < min(target // 4, LEAST_UPDATE) or (due * 4 < target and self.available * 2 > target)

    def starved(self, stream_id: int) -> bool:
        """The peer can send nothing on this stream until something is handed on."""
        window = self._streams.get(stream_id)
        return window is not None and not window.ended and (window.available <= 0 or self.available <= 0)

    @property
    def _headroom(self) -> int:
        """What this connection's exposure may grow by, so as to stay below its share of the room there is then."""
        return max(0, self._account.room - SHARE * self._exposure) // (SHARE + 1)

    def close(self) -> None:
        """The connection is gone and exposes nothing."""
        self._account.charge(-self._exposure)
        self._exposure = self._queued = 0

    def _exposed(self, streams_available: int) -> int:
        return max(0, self.held + min(self.available, streams_available) - FLOOR) + self._queued

    def _settle(self) -> None:
        # ``_exposed``, spelled out: this runs seven times for a small call
        promised = self._streams_available if self._streams_available < self.available else self.available
        exposure = self.held + promised - FLOOR
        exposure = self._queued + exposure if exposure > 0 else self._queued
        if exposure == self._exposure:
            return
        self._account.charge(exposure - self._exposure)
        self._exposure = exposure
