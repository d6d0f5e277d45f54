"""Owns the way of pieces from one task of a transfer to the next. Refuses to know what a piece is, and what is done.

It is a bounded memory channel like Trio's, with one task at each end and an eighth of the memory: each of ten thousand
uploads that wait for their senders has two.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from casproxy.waiter import Waiter

T = TypeVar("T")


class Handover(Generic[T]):
    """A queue of at most ``capacity`` pieces, and of one more that its receiver waits for."""

    __slots__ = ("_capacity", "_ended", "_left", "_queue", "_sent", "_taken", "_wanted")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: list[T] = []
        self._wanted = False
        self._ended = self._left = False
        self._sent = Waiter()
        self._taken = Waiter()

    # -- the stage before -----------------------------------------------------------------------------

    async def send(self, piece: T) -> None:
        """Queue ``piece``; waits, and is a checkpoint, only when the queue is full.

        Raises ``trio.BrokenResourceError`` when the receiver has left.
        """
        while not self._left and len(self._queue) >= self._capacity + self._wanted:
            await self._taken.wait()
        if self._left:
            raise trio.BrokenResourceError("the next stage has left")
        self._queue.append(piece)
        self._sent.wake()

    def end(self) -> None:
        """Nothing more comes, for whatever reason: what is queued can still be received."""
        self._ended = True
        self._sent.wake()

    # -- the stage behind -----------------------------------------------------------------------------

    async def receive(self) -> T | None:
        """The next piece; None when there is none left and the sender has ended, well or not.

        Cancellation is heard at each call and loses nothing. The turn is given up only to wait: a piece that is taken
        a turn later has left the core's cache meanwhile, for the stage before went on reading. Whoever does much with
        a piece asks ``turns.give_way`` first.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._queue:
            return self._take()
        if not self._ended:
            self._wanted = True
            self._taken.wake()  # with no capacity a sender waits for nothing else
            try:
                await self._sent.wait()
            finally:
                self._wanted = False
        return self._take() if self._queue else None

    def _take(self) -> T:
        self._taken.wake()
        return self._queue.pop(0)

    def leave(self) -> None:
        """Nothing more is taken; what is queued is dropped."""
        self._left = True
        self._queue.clear()
        self._taken.wake()
