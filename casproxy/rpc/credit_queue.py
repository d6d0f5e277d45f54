"""Owns whose turn it is when the peer gives credit to a connection that many streams wait for. Refuses to know bytes.

Waking every stream for every WINDOW_UPDATE would let a peer with a thousand stalled downloads buy a thousand wake-ups
with 13 bytes. So one is woken, first come first served; when it is done, or cannot use what is there, the next.
"""

from __future__ import annotations

from typing import Protocol as TypingProtocol


class Waiting(TypingProtocol):
    """A stream in the queue."""

    @property
    def id(self) -> int:
        """The stream's id."""

    def wake_sender(self) -> bool:
        """Let the sender look again; False when nobody is waiting there any more."""


class Window(TypingProtocol):
    """The connection's send window."""

    @property
    def connection_capacity(self) -> int:
        """Bytes that may be sent now."""


class CreditQueue:
    """The streams of one connection whose own window is open while the connection's is not."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._queue: dict[int, Waiting] = {}

    def join(self, stream: Waiting) -> None:
        """Wait for a turn; who waits already keeps its place."""
        self._queue.setdefault(stream.id, stream)

    def leave(self, stream: Waiting) -> None:
        """It waits no more, whether or not it did."""
        self._queue.pop(stream.id, None)

    def pass_on(self) -> None:
        """Wake the next in the queue if there is credit. Whoever was woken calls this when it is done or gives up."""
        while self._queue and self._window.connection_capacity > 0:
            if self._queue.pop(next(iter(self._queue))).wake_sender():
                return
