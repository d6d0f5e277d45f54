"""Owns the way of pieces from one stage of a transfer to the next. Refuses to know what a stage does.

It is a bounded memory channel like Trio's, with one task at each end and an eighth of the memory: each of ten thousand
uploads that wait for their senders has two.
"""

from __future__ import annotations

import trio

from casproxy.storage.api import Piece
from casproxy.waiter import Waiter


class Handover:
    """A queue of at most ``capacity`` pieces, and of one more that its receiver waits for."""

    __slots__ = ("_capacity", "_ended", "_left", "_queue", "_sent", "_taken", "_wanted")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: list[Piece] = []
        self._wanted = False
        self._ended = self._left = False
        self._sent = Waiter()
        self._taken = Waiter()

    # -- the stage before -----------------------------------------------------------------------------

    async def send(self, piece: Piece) -> None:
        """Queue ``piece``; waits, and is a checkpoint, only when the queue is full.

        Raises ``trio.BrokenResourceError`` when the receiver has left. Not giving up the turn each time lets all
        stages work in the same round of the event loop: ``receive`` does so already.
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

    async def receive(self) -> Piece | None:
        """The next piece; None when there is none left and the sender has ended, well or not. A checkpoint.

        Cancellation loses nothing.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._queue:
            piece = self._take()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return piece
        if not self._ended:
            self._wanted = True
            self._taken.wake()  # with no capacity a sender waits for nothing else
            try:
                await self._sent.wait()
            finally:
                self._wanted = False
        return self._take() if self._queue else None

    def _take(self) -> Piece:
        self._taken.wake()
        return self._queue.pop(0)

    def leave(self) -> None:
        """Nothing more is taken; what is queued is dropped."""
        self._left = True
        self._queue.clear()
        self._taken.wake()
