"""Owns the sender's side of a Write: a ``ServerCall`` seen as an ``UploadSource``. Refuses to know where bytes go.

When is a Write over? When its client half-closes; or a moment after ``finish_write``, for some clients wait for the
answer before they half-close. What arrives in that moment is still checked
(docs/decisions/0006-when-a-write-is-over.md).
"""

from __future__ import annotations

import trio

from casproxy.errors import InvalidRequest, PeerGone
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import StreamGone
from casproxy.services.write_request import WriteRequestReader
from casproxy.storage.api import Piece
from casproxy.wire.framing import Part

FINISH_GRACE = 0.25
"""How long after ``finish_write`` a client may take to half-close, in seconds."""


class WriteSource:
    """An ``UploadSource`` over the messages of one Write. Errors: ``InvalidRequest``, ``PeerGone``."""

    __slots__ = ("_call", "_ended", "_finish_by", "_reader", "_ready", "drained")

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._reader = WriteRequestReader()
        self._ready: list[Piece] = []
        self._finish_by: float | None = None
        self._ended = False
        self.drained = False
        """True once whoever receives has been told of the end: nobody was faster with the same artifact."""

    async def read_name(self) -> str:
        """Wait until the first message has named the resource. ``InvalidResourceName`` when it does not."""
        while not self._reader.resource_name:
            if self._ready and self._call.starved():
                raise InvalidRequest("resource_name must come before data that does not fit into the window")
            await self._read_on()
        return self._reader.resource_name

    def read_name_nowait(self) -> str:
        """The name if what has arrived tells it, else ``""``. Errors as ``read_name``."""
        if self._reader.resource_name:
            return self._reader.resource_name
        if (message := self._call.receive_only_message_nowait()) is not None:
            self._reader.read_only(message, self._ready)
            self._ended = True
            self._call.hand_on(len(message) - self._reader.received)
        elif (parts := self._parts_nowait()) is not None:
            self._absorb(parts)
        return self._reader.resource_name

    async def receive(self) -> list[Piece]:
        """See ``UploadSource.receive``."""
        while not self._ready and not self._ended:
            await self._read_on()
        return self._take()

    def receive_nowait(self) -> list[Piece] | None:
        """See ``UploadSource.receive_nowait``."""
        while not self._ready and not self._ended:
            parts = self._parts_nowait()
            if parts is None:
                return None
            self._absorb(parts)
        return self._take()

    def _parts_nowait(self) -> list[Part] | None:
        try:
            return self._call.receive_parts_nowait()
        except StreamGone as error:
            raise PeerGone("the client is gone") from error

    def hand_on(self, size: int) -> None:
        """See ``UploadSource.hand_on``."""
        self._call.hand_on(size)

    def starved(self) -> bool:
        """See ``UploadSource.starved``."""
        return self._call.starved()

    def _take(self) -> list[Piece]:
        ready, self._ready = self._ready, []
        self.drained = not ready
        return ready

    async def _read_on(self) -> None:
        """Wait for more and parse it. Cancellation loses nothing: parsing does not wait."""
        try:
            if self._finish_by is None:
                parts = await self._call.receive_parts()
            else:
                parts = await self._last_parts(self._finish_by)
        except StreamGone as error:
            raise PeerGone("the client is gone") from error
        self._absorb(parts)

    async def _last_parts(self, finish_by: float) -> list[Part]:
        """What comes until ``finish_by``; ``[]``, the end, when nothing does."""
        with trio.CancelScope(deadline=finish_by):
            return await self._call.receive_parts()
        return []

    def _absorb(self, parts: list[Part]) -> None:
        """Take what arrived, and give back the credit of what is not data: tags, names, lengths."""
        if not parts:
            self._reader.check_named()
            self._ended = True
            return
        received, keepalives = self._reader.received, self._reader.keepalives
        size = 0
        for part in parts:
            if isinstance(part, bytes | memoryview):
                size += len(part)
            self._reader.feed(part, self._ready)
        self._call.hand_on(size - (self._reader.received - received))
        if self._reader.received == received and self._reader.keepalives > keepalives:
            self._ready.append(b"")
        if self._reader.finished and self._finish_by is None:
            self._finish_by = trio.current_time() + FINISH_GRACE
