"""An in-memory ``ServerCall``: a test plays the client, with flow control that can be watched and withheld.

::

    call = FakeCall(info, window=64 * 1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run, handler)
        await call.client_send(message)     # waits for credit, as a client does
        call.client_half_close()
    assert call.responses == [...]

It keeps the books that a leak would spoil: ``held`` is what was received and not yet handed on.
"""

from __future__ import annotations

import math
from typing import TypeVar

import trio

from casproxy.rpc.api import Buffer, Handler, MethodInfo, MethodKind
from casproxy.rpc.errors import StreamGone
from casproxy.wire.framing import MESSAGE_END, MessageEnd, MessageStart, Part
from casproxy.wire.metadata import Metadata, Value

T = TypeVar("T")

WRITE = MethodInfo("google.bytestream.ByteStream", "Write", MethodKind.CLIENT_STREAM)


class FakeCall:
    """One call in flight. ``window``: bytes the client may have outstanding; ``part_size``: its largest buffer."""

    def __init__(
        self,
        info: MethodInfo = WRITE,
        *,
        metadata: Metadata | None = None,
        peer: str = "127.0.0.1:4242",
        deadline: float = math.inf,
        window: int = 1 << 20,
        part_size: int = 1 << 20,
    ) -> None:
        self._info = info
        self._metadata = metadata or Metadata()
        self._peer = peer
        self._deadline = deadline
        self._attached: dict[type[object], object] = {}
        self._inbox: list[Part] = []
        self._half_closed = False
        self._credit_returned = trio.lowlevel.ParkingLot()
        self._arrived = trio.lowlevel.ParkingLot()
        self._sending = trio.lowlevel.ParkingLot()
        self.window = window
        self.part_size = part_size
        self.held = 0
        self.most_held = 0
        self.parts_taken = False
        self.payer = ""
        self.responses: list[bytes] = []
        self.response_buffers: list[tuple[Buffer, ...]] = []
        self.trailing_metadata: list[tuple[str, Value]] = []
        self.stalled = False
        """While True the client takes no responses: ``send_message`` waits for ``client_resume``."""
        self.scope = trio.CancelScope()
        self._gone: StreamGone | None = None

    # What handlers see

    @property
    def info(self) -> MethodInfo:
        return self._info

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def deadline(self) -> float:
        return self._deadline

    def attach(self, value: object) -> None:
        self._attached[type(value)] = value

    def attached(self, kind: type[T]) -> T:
        value = self._attached[kind]
        assert isinstance(value, kind)
        return value

    def find(self, kind: type[T]) -> T | None:
        return self.attached(kind) if kind in self._attached else None

    def charge_to(self, payer: str) -> None:
        self.payer = payer

    def add_trailing_metadata(self, key: str, value: str | bytes) -> None:
        self.trailing_metadata.append((key, value))

    async def receive_message(self) -> bytes | None:
        """Whole messages, for unary requests."""
        message = bytearray()
        while True:
            while MESSAGE_END not in self._inbox:
                if self._half_closed:
                    return None
                await self._arrived.park()
            while (part := self._inbox.pop(0)) is not MESSAGE_END:
                if isinstance(part, bytes | memoryview):
                    message += part
                    self.hand_on(len(part))
            await trio.lowlevel.checkpoint()
            return bytes(message)

    async def receive_parts(self) -> list[Part]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (parts := self.receive_parts_nowait()) is None:
            await self._arrived.park()
        return parts

    def receive_parts_nowait(self) -> list[Part] | None:
        self.parts_taken = True
        if not self._inbox and self._gone is not None:
            raise self._gone
        if not self._inbox and not self._half_closed:
            return None
        parts, self._inbox = self._inbox, []
        return parts

    def receive_only_message_nowait(self) -> bytes | None:
        match self._inbox:
            case [MessageStart(size), (bytes() | memoryview()) as part, MessageEnd()] if self._half_closed:
                if size <= 16 * 1024:
                    self.parts_taken = True
                    self._inbox = []
                    return bytes(part)
        return None

    def hand_on(self, size: int) -> None:
        assert 0 <= size <= self.held, "more was handed on than was held"
        self.held -= size
        self._credit_returned.unpark_all()

    def starved(self) -> bool:
        return self.held >= self.window

    async def send_message(self, *buffers: Buffer) -> None:
        await trio.lowlevel.checkpoint()
        while self.stalled and self._gone is None:
            await self._sending.park()
        if self._gone is not None:
            raise self._gone
        self.response_buffers.append(buffers)
        self.responses.append(b"".join(buffers))

    # What tests do

    async def run(self, handler: Handler) -> None:
        """Run a handler in the call's own scope, as a connection does."""
        with self.scope:
            await handler(self)

    async def client_send(self, message: bytes) -> None:
        """Send one message, waiting for credit."""
        self.client_push(MessageStart(len(message)))
        position = 0
        while position < len(message):
            while self.starved():
                await self._credit_returned.park()
            room = min(self.window - self.held, self.part_size)
            self.client_push(memoryview(message)[position : position + room])
            position += room
        self.client_push(MESSAGE_END)
        await trio.lowlevel.checkpoint()

    def client_push(self, *parts: Part) -> None:
        """Put parts on the wire without asking for credit."""
        for part in parts:
            if isinstance(part, bytes | memoryview):
                self.held += len(part)
        self.most_held = max(self.most_held, self.held)
        self._inbox.extend(parts)
        self._arrived.unpark_all()

    def client_push_message(self, message: bytes) -> None:
        """Put one whole message on the wire without asking for credit."""
        self.client_push(MessageStart(len(message)), *([message] if message else []), MESSAGE_END)

    def client_half_close(self) -> None:
        self._half_closed = True
        self._arrived.unpark_all()

    def client_reset(self) -> None:
        """The client leaves: the handler's scope is cancelled."""
        self.scope.cancel()

    def client_vanish(self) -> None:
        """The connection dies, and the handler sees it before its scope is cancelled."""
        self._gone = StreamGone(None)
        self._arrived.unpark_all()
        self._sending.unpark_all()

    def client_resume(self) -> None:
        self.stalled = False
        self._sending.unpark_all()
