"""Owns what has arrived for one request and waits for its application. Refuses to know HTTP versions.

Hypercorn's own queue counts messages and makes the connection's only reader wait when it is full, also when the
application has ended and nobody will ever take from it. This one counts bytes, never waits for an application that is
gone, and tells the protocol when bytes were taken, so that credit can go back then and not earlier.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

Taken: TypeAlias = Callable[[int], Awaitable[None]]
"""Called with the number of body bytes that were taken since the last call, before each wait for more."""

_SMALL_BYTES = 4096


async def _nothing(_size: int) -> None:
    pass


class Inbox:
    """A queue of ASGI messages with one reader, the application, and one writer, the protocol."""

    def __init__(self) -> None:
        self.high_water: float = math.inf
        """Bytes beyond which the writer waits. HTTP/2 leaves it: there credit bounds what can come."""
        self.taken: Taken = _nothing
        self.gone = trio.Event()
        """Set when the client has left."""
        self._messages: deque[Any] = deque()
        self._held = 0
        self._untold = 0
        self._open = True
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    async def __call__(self, message: Any) -> None:
        """Put a message; waits while too much is held."""
        if message["type"].endswith(".disconnect"):
            self.gone.set()
        size = len(message.get("body") or b"")
        if not self._open:
            await self.taken(size)
            return
        self._append(message, size)
        self._arrived.unpark_all()
        while self._open and self._held > self.high_water and not self.gone.is_set():
            await self._room.park()

    async def receive(self) -> Any:
        """ASGI's ``receive``. Cancellation loses nothing. After a disconnect it says so again and again."""
        await trio.lowlevel.checkpoint()
        untold, self._untold = self._untold, 0
        await self.taken(untold)
        while not self._messages:
            await self._arrived.park()
        if len(self._messages) == 1 and self._messages[0]["type"].endswith(".disconnect"):
            return self._messages[0]
        message = self._messages.popleft()
        size = len(message.get("body") or b"")
        self._held -= size
        self._untold += size
        self._room.unpark_all()
        return message

    async def close(self) -> None:
        """The application has ended: what is held is dropped, and so is what still comes."""
        self._open = False
        dropped, self._held, self._untold = self._held + self._untold, 0, 0
        self._messages.clear()
        self._room.unpark_all()
        if dropped:
            await self.taken(dropped)

    def _append(self, message: Any, size: int) -> None:
        """Small parts are joined: a client that sends byte by byte must not cost a message each."""
        last = self._messages[-1] if self._messages else None
        if last is not None and 0 < size < _SMALL_BYTES and 0 < len(last.get("body") or b"") < _SMALL_BYTES:
            last["body"] += message["body"]
        else:
            self._messages.append(message)
        self._held += size
