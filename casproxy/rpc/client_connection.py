"""Owns one dialled connection: which calls run on it and whether it takes more. Refuses to know how it was dialled."""

from __future__ import annotations

import math
import ssl

import trio

from casproxy.rpc.client_call import StreamClientCall
from casproxy.rpc.connection import Connection
from casproxy.rpc.errors import RpcError
from casproxy.tls import TlsStream
from casproxy.wire import events
from casproxy.wire.errors import ConnectionBroken
from casproxy.wire.events import RawHeaders
from casproxy.wire.status import StatusCode


class ClientConnection:
    """Makes calls on one connection; implements ``ConnectionOwner``."""

    def __init__(self, connection: Connection, *, max_message_size: int, tls: TlsStream | None = None) -> None:
        self._connection = connection
        self._tls = tls
        self._max_message_size = max_message_size
        self._calls: dict[int, StreamClientCall] = {}
        self._going_away = False
        self._slot_freed = trio.lowlevel.ParkingLot()

    @property
    def usable(self) -> bool:
        """New calls may start here."""
        return not self._going_away and not self._connection.closed

    @property
    def tls_failure(self) -> ssl.SSLError | None:
        """What ended the connection, if it was TLS."""
        return None if self._tls is None else self._tls.failure

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the connection to its end."""
        task_status.started()
        try:
            await self._connection.run(self)
        finally:
            self._slot_freed.unpark_all()

    async def wait_for_slot(self) -> None:
        """Until the server allows one more call, or this connection takes no more."""
        while self.usable and not self._connection.protocol.may_open:
            await self._slot_freed.park()

    def start_call(self, request: RawHeaders) -> StreamClientCall:
        """Open a stream; raises ``RpcError`` UNAVAILABLE when this connection has no ids left."""
        try:
            stream_id = self._connection.protocol.start_request(request)
        except ConnectionBroken as error:
            self._going_away = True
            raise RpcError(StatusCode.UNAVAILABLE, str(error)) from error
        stream = self._connection.open_stream(stream_id)
        call = StreamClientCall(stream, self._connection, max_message_size=self._max_message_size)
        self._calls[stream_id] = call
        self._connection.wake_writer()
        return call

    def end_call(self, call: StreamClientCall) -> None:
        """The caller left."""
        self._calls.pop(call.stream_id, None)
        call.leave()
        self._slot_freed.unpark_all()
        if self._going_away and not self._calls:
            self._connection.close_soon()

    # -- ConnectionOwner --------------------------------------------------------------------------------

    def on_headers(self, event: events.HeadersReceived) -> None:
        """The response of a call, or Trailers-Only."""
        if (call := self._calls.get(event.stream_id)) is not None:
            call.on_headers(event.headers, ended=event.ended)

    def on_trailers(self, event: events.TrailersReceived) -> None:
        """The status of a call."""
        if (call := self._calls.get(event.stream_id)) is not None:
            call.on_trailers(event.headers)

    def on_reset(self, event: events.StreamReset) -> None:
        """The stream knows; the caller finds out when it next sends or receives."""

    def on_go_away(self, event: events.GoAwayReceived) -> None:
        """Calls the server has not seen end with UNAVAILABLE, the others go on."""
        self._going_away = True
        self._slot_freed.unpark_all()
        for stream_id, call in self._calls.items():
            if stream_id > event.last_stream_id:
                call.refused()
        if not self._calls:
            self._connection.close_soon()

    def on_ping_acked(self, event: events.PingAcked) -> None:
        """We send no PINGs yet."""


def deadline_after(timeout: float) -> float:
    """On Trio's clock."""
    return math.inf if math.isinf(timeout) else trio.current_time() + timeout
