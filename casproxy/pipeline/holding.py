"""Owns what one transfer holds of the memory budget, where no window of HTTP/2 bounds it. Refuses to know whose it is.

A download reads from its store at its own pace, and a body over HTTP/1.1 has no credit. So both ask here before they
take more bytes in, and say when they are rid of them. While its account has room a transfer reads ahead; without room
it reads 32 KiB when all but its last piece have left (a download keeps that one back until the digest matched). So
every transfer that has begun goes on, however little room there is. One that has shown that it moves may hold more, an
eighth of what it has moved: the bytes of a fast reader are gone in a moment, and five hundred slow ones beside it must
not slow it down.

What that takes at least is charged when a transfer begins; an account that has no room for it begins no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from casproxy.errors import MemoryShort
from casproxy.storage.api import MAX_PIECE_BYTES

LEAST = 32 * 1024
"""Bytes a transfer may read when there is no room."""
MOVING = 8 * 1024 * 1024
"""Bytes a transfer has let go once nobody takes it for a stalled one: more than a socket's buffers swallow."""
MOVING_MOST = 6 * 1024 * 1024
"""Bytes such a transfer may hold although its account has read ahead enough; its stages have room for no more."""
PROVEN = 8
"""Of what a transfer has let go it may read this part at once although there is no room."""
FLOOR = 2 * LEAST
"""Bytes a transfer is charged from its beginning: a piece kept back, and the one that lets it go."""


class Account(Protocol):
    """A tenant's share of the budget."""

    @property
    def room(self) -> int:
        """Bytes it may grow by."""

    @property
    def room_ahead(self) -> int:
        """Bytes it may read ahead."""

    @property
    def room_moving(self) -> int:
        """Bytes it may read ahead for those that have shown that they move."""

    def charge(self, size: int) -> None:
        """Hold ``size`` bytes more; fewer when it is negative."""

    def rest(self, size: int) -> None:
        """``size`` bytes more of these are not read ahead, but held from the beginning; fewer when it is negative."""


class Accounts(Protocol):
    """The budget of the process."""

    def account(self, payer: str) -> Account:
        """The account of a tenant, by its secret id. Whoever charges it keeps it."""


class Unbounded:
    """An ``Account`` of those who count otherwise."""

    room = room_ahead = room_moving = 1 << 62

    def charge(self, size: int) -> None:
        """See ``Account.charge``."""

    def rest(self, size: int) -> None:
        """See ``Account.rest``."""


@contextmanager
def holding(account: Account) -> Iterator[Holding]:
    """What a transfer holds, given back at the end. Raises ``MemoryShort`` when there is no room for another."""
    if account.room < FLOOR:
        raise MemoryShort
    held = Holding(account)
    try:
        yield held
    finally:
        held.close()


class Holding:
    """The books of one transfer, sizes in bytes. One task takes, any task lets go."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._held = 0
        self._reserved = 0
        self._last = 0
        self._moved = 0
        self._charged = FLOOR
        self._freed = trio.lowlevel.ParkingLot()
        account.charge(FLOOR)
        account.rest(FLOOR)

    @property
    def may_take(self) -> int:
        """How much may be read now, ``LEAST`` to 1 MiB; 0 before something has been let go."""
        room = self._account.room_ahead
        if room < LEAST and self._moved >= MOVING and self._held < MOVING_MOST:
            room = self._account.room_moving
        if room >= LEAST:
            return min(room, MAX_PIECE_BYTES)
        if self._held > self._last:
            return 0
        return max(LEAST, min(self._moved // PROVEN, self._account.room_moving, MAX_PIECE_BYTES))

    async def wait(self) -> int:
        """Wait until something may be read; how much. A checkpoint only if it has to wait."""
        while not (size := self.may_take):
            await self._freed.park()
        return size

    async def reserve(self) -> int:
        """Like ``wait``, and what may be read is charged until ``took`` tells what it was.

        Else five hundred that begin to read together would each be given the same room.
        """
        self._reserved = await self.wait()
        self._charge()
        return self._reserved

    def took(self, size: int) -> None:
        """A piece was read, or nothing was left to read: 0."""
        self._reserved = 0
        self._held += size
        self._last = size
        self._charge()

    def let_go(self, size: int) -> None:
        """``size`` bytes have left the process, or have been dropped."""
        self._held -= size
        self._moved += size
        self._charge()
        self._freed.unpark_all()

    def close(self) -> None:
        """The transfer is over."""
        self._account.charge(-self._charged)
        self._account.rest(-FLOOR)
        self._charged = 0

    def _charge(self) -> None:
        due = max(FLOOR, self._held + self._reserved)
        if due != self._charged:
            self._account.charge(due - self._charged)
            self._charged = due
