"""Owns one call being made: ``ClientCall`` over a ``MessageStream``, and how its end becomes an ``RpcError``.

Refuses to know how connections are opened.
"""

from __future__ import annotations

from casproxy.rpc.api import Buffer
from casproxy.rpc.connection import Connection
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.rpc.stream import MessageStream
from casproxy.wire import headers
from casproxy.wire.errors import BrokenMessage, CallRefusal, MalformedHeaders
from casproxy.wire.events import RawHeaders
from casproxy.wire.framing import MessageDecoder
from casproxy.wire.headers import CallStatus
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode

CANCEL = 8
_FROM_RESET = {
    0x7: (StatusCode.UNAVAILABLE, "the server refused the stream; try again"),
    0x8: (StatusCode.CANCELLED, "the server cancelled the call"),
    0xB: (StatusCode.RESOURCE_EXHAUSTED, "the server asks this client to calm down"),
    0xC: (StatusCode.PERMISSION_DENIED, "the server wants a better secured transport"),
}
"""gRPC PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping, Errors"; anything else is INTERNAL."""


class StreamClientCall:
    """Implements ``rpc.api.ClientCall``; its contract is there. ``channel`` opens and leaves it."""

    def __init__(self, stream: MessageStream, connection: Connection, *, max_message_size: int) -> None:
        self._stream = stream
        self._connection = connection
        self._protocol = connection.protocol
        self._max_message_size = max_message_size
        self._status: CallStatus | None = None
        self._half_closed = False

    @property
    def stream_id(self) -> int:
        """Its key on the connection."""
        return self._stream.id

    @property
    def trailing_metadata(self) -> Metadata:
        return self._status.metadata if self._status else Metadata()

    # -- called by the connection's reader ----------------------------------------------------------

    def on_headers(self, raw: RawHeaders, *, ended: bool) -> None:
        """The response's headers, or its only ones (Trailers-Only)."""
        try:
            headers.parse_response(raw)
            if ended or any(name == b"grpc-status" for name, _ in raw):
                self._finish(headers.parse_trailers(raw))
        except CallRefusal as refusal:
            self._give_up(refusal.code, refusal.message)
        except MalformedHeaders as error:
            self._give_up(StatusCode.INTERNAL, f"the server's headers are malformed: {error}")
        else:
            gzip = (b"grpc-encoding", b"gzip") in raw
            self._stream.start_receiving(MessageDecoder(self._max_message_size, gzip=gzip))

    def on_trailers(self, raw: RawHeaders) -> None:
        """The call's status."""
        try:
            self._finish(headers.parse_trailers(raw))
        except CallRefusal as refusal:
            self._finish(CallStatus(refusal.code, refusal.message, b"", Metadata()))

    def refused(self) -> None:
        """The server's GOAWAY says it never saw this call."""
        self._give_up(StatusCode.UNAVAILABLE, "the server is going away; try again")

    def _give_up(self, code: StatusCode, message: str) -> None:
        """The call is over, whatever else comes; a body would be somebody's error page."""
        self._finish(CallStatus(code, message, b"", Metadata()))
        self._stream.on_end()

    def _finish(self, status: CallStatus) -> None:
        self._status = self._status or status
        self._stream.stop_sending()

    # -- called by the caller's task ------------------------------------------------------------------

    async def send_message(self, *buffers: Buffer) -> bool:
        try:
            await self._stream.send_message(buffers)
        except StreamGone:
            return False
        return True

    async def half_close(self) -> None:
        if not self._half_closed and not self._stream.send_stopped:
            self._half_closed = True
            self._protocol.end_stream(self._stream.id)
            self._connection.wake_writer()

    async def receive_message(self) -> bytes | None:
        try:
            message = await self._stream.receive_message()
        except StreamGone as gone:
            raise self._error(gone) from None
        except BrokenMessage as error:
            raise RpcError(error.code, error.message) from error
        if message is not None:
            return message
        status = self._status or headers.parse_trailers([])
        if status.code is not StatusCode.OK:
            raise RpcError(status.code, status.message, status.details)
        return None

    def _error(self, gone: StreamGone) -> RpcError:
        """The status if there was one before the stream went away, else what its end means."""
        if self._status is not None and self._status.code is not StatusCode.OK:
            return RpcError(self._status.code, self._status.message, self._status.details)
        if gone.code is None:
            return RpcError(StatusCode.UNAVAILABLE, "the connection to the server was lost")
        code, message = _FROM_RESET.get(
            gone.code, (StatusCode.INTERNAL, f"the server reset the stream with code {gone.code}")
        )
        return RpcError(code, message)

    def leave(self) -> None:
        """The caller is done: reset the stream if either side is still open, and forget it."""
        if self._stream.gone is None:
            self._protocol.reset(self._stream.id, CANCEL)
        self._connection.close_stream(self._stream)
