"""The two ends of a transfer, played by a test: a sender with a window, a receiver that can stall."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from casproxy.storage.api import Piece


class Sender:
    """An ``UploadSource``: sends ``parts`` within ``window`` bytes, then ends, fails with ``error``, or is silent.

    Its books: ``held`` is what was received and not handed on, ``most_held`` the highest it got.
    """

    def __init__(
        self,
        parts: Iterable[Piece] = (),
        *,
        window: int = 1 << 20,
        error: Exception | None = None,
        silent: bool = False,
    ) -> None:
        self._parts = list(parts)
        self._window = window
        self._error = error
        self._silent = silent
        self._wake = trio.lowlevel.ParkingLot()
        self.withheld = False
        """True: other streams use up the connection's credit, this sender can send nothing."""
        self.held = 0
        self.most_held = 0
        self.sent = 0

    def send(self, *parts: Piece) -> None:
        """Have more to send."""
        self._parts += parts
        self._wake.unpark_all()

    def end(self) -> None:
        """No longer silent once everything has been sent."""
        self._silent = False
        self._wake.unpark_all()

    async def receive(self) -> list[Piece]:
        await trio.lowlevel.checkpoint()
        while (parts := self.receive_nowait()) is None:
            await self._wake.park()
        return parts

    def receive_nowait(self) -> list[Piece] | None:
        arrived: list[Piece] = []
        while self._parts and not self.withheld and (room := self._window - self.held) > 0:
            part = self._parts.pop(0)
            if len(part) > room:
                self._parts.insert(0, memoryview(part)[room:])
                part = memoryview(part)[:room]
            arrived.append(part)
            self.held += len(part)
            self.sent += len(part)
        self.most_held = max(self.most_held, self.held)
        if arrived:
            return arrived
        if self._parts or self._silent:
            return None
        if self._error is not None:
            raise self._error
        return []

    def hand_on(self, size: int) -> None:
        assert 0 <= size <= self.held, "more was handed on than was held"
        self.held -= size
        self._wake.unpark_all()

    def starved(self) -> bool:
        return self.withheld or self.held >= self._window


class Receiver:
    """A ``DownloadSink`` that keeps what it gets; ``stalled``: takes nothing until ``resume``."""

    def __init__(self, *, stalled: bool = False, error: Exception | None = None) -> None:
        self.pieces: list[bytes] = []
        self._error = error
        self._stalled = stalled
        self._wake = trio.lowlevel.ParkingLot()

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def resume(self) -> None:
        self._stalled = False
        self._wake.unpark_all()

    async def send(self, piece: Piece) -> None:
        await trio.lowlevel.checkpoint()
        while self._stalled:
            await self._wake.park()
        if self._error is not None:
            raise self._error
        self.pieces.append(bytes(piece))


def content(size: int) -> bytes:
    """``size`` bytes without a short period, so that a swapped or repeated piece is seen."""
    block = b"".join(number.to_bytes(4, "big") for number in range(16_411))
    return (block * (size // len(block) + 1))[:size]
