"""Owns the first stage of an upload: parts from the sender become pieces.

A piece is handed on when it is full, when the sender has no credit left to fill it (a piece larger than the credit
outstanding would otherwise wait for ever), or when the sender pauses for ``linger``. Its credit returns when the store
has taken it (``upload``).

The stage also ends a sender that holds credit and does not use it: progress decides, not total time.
"""

from __future__ import annotations

import trio

from casproxy.errors import PeerTooSlow
from casproxy.handover import Handover
from casproxy.pipeline.api import Limits, UploadSource
from casproxy.pipeline.pieces import PieceAssembler
from casproxy.storage.api import Piece


class Chunker:
    """The stage, as an object with one method to run. One per upload."""

    __slots__ = ("_assembler", "_limits", "_patience", "_pieces", "_source")

    def __init__(self, source: UploadSource, pieces: Handover[Piece], limits: Limits) -> None:
        self._source = source
        self._pieces = pieces
        self._limits = limits
        self._assembler = PieceAssembler(limits.piece_size)
        self._patience = _Patience(limits)

    async def run(self) -> None:
        """Pass on everything the sender sends, then say that it was all.

        Errors: ``PeerTooSlow``; what ``source.receive`` raises.
        """
        try:
            while True:
                parts = self._source.receive_nowait()
                if parts is None:
                    if not self._assembler.pending:
                        parts = await self._wait()
                    elif (parts := await self._linger()) is None:
                        await self._pieces.send(self._assembler.flush())
                        continue
                if not parts:
                    break
                self._patience.progressed(parts)
                await self._pass_on(parts)
            if self._assembler.pending:
                await self._pieces.send(self._assembler.flush())
        finally:
            self._pieces.end()

    async def _pass_on(self, parts: list[Piece]) -> None:
        """Not in ``run``, whose variables would hold a part and a piece for as long as the sender pauses."""
        for part in parts:
            for piece in self._assembler.add(part):
                await self._pieces.send(piece)

    async def _linger(self) -> list[Piece] | None:
        """What arrives while a part-filled piece may wait; None when it should wait no longer."""
        if not self._source.starved():
            with trio.move_on_after(self._limits.linger):
                return await self._source.receive()
        return None

    async def _wait(self) -> list[Piece]:
        """What arrives next, while nothing of the sender's is held here."""
        while True:
            began = trio.current_time()
            starved = self._source.starved()
            with trio.move_on_after(self._patience.left):
                parts = await self._source.receive()
                self._patience.waited(trio.current_time() - began)
                return parts
            if starved or self._source.starved():  # its credit is held back elsewhere: not the sender's fault
                self._patience.renew()
                continue
            raise PeerTooSlow(f"the sender made no progress for {self._limits.idle_timeout:g} s")


class _Patience:
    """How long the sender may still be waited for: ``idle_timeout`` for each ``min_rate * idle_timeout`` bytes."""

    __slots__ = ("_bytes_owed", "_limits", "left")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.renew()

    def renew(self) -> None:
        self.left = self._limits.idle_timeout
        self._bytes_owed = self._limits.min_rate * self._limits.idle_timeout

    def waited(self, seconds: float) -> None:
        self.left = max(0.0, self.left - seconds)

    def progressed(self, parts: list[Piece]) -> None:
        self._bytes_owed -= sum(map(len, parts))
        if self._bytes_owed <= 0 or not all(parts):  # an empty part is a keepalive
            self.renew()
