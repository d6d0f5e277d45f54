"""Owns one accepted connection: requests become calls, each in a task; draining says goodbye twice.

Refuses to know how connections are accepted and what methods do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from casproxy.rpc.api import Method
from casproxy.rpc.connection import Connection
from casproxy.rpc.errors import StreamGone
from casproxy.rpc.server_call import NO_ERROR, CallLimits, StreamCall
from casproxy.rpc.stream import MessageStream
from casproxy.wire import events, headers
from casproxy.wire.errors import CallRefusal, HttpRefusal, MalformedHeaders
from casproxy.wire.events import RawHeaders
from casproxy.wire.framing import MessageDecoder
from casproxy.wire.status import StatusCode

DRAIN_PING = b"draining"
DRAIN_PING_TIMEOUT = 5.0
"""Seconds the client has to answer the PING of a drain before new streams are refused all the same."""
EVERY_STREAM = 2**31 - 1


class ServerConnection:
    """Serves ``methods`` (by path) on one connection; implements ``ConnectionOwner``."""

    def __init__(
        self, connection: Connection, methods: Mapping[str, Method], limits: CallLimits, *, max_age: float = math.inf
    ) -> None:
        self._connection = connection
        self._protocol = connection.protocol
        self._methods = methods
        self._limits = limits
        self._max_age = max_age
        self._calls: dict[int, StreamCall] = {}
        self._nursery: trio.Nursery | None = None
        self._ping_acked = trio.Event()
        self._draining = False
        self._last_goaway_sent = False
        self._last_request: tuple[RawHeaders, headers.RequestHead] | None = None

    @property
    def held(self) -> int:
        """Payload bytes that were received and not yet handed on."""
        return self._protocol.held

    async def run(self, *, draining: bool = False) -> None:
        """Serve until the connection ends. Calls still running then are cancelled and gone on return.

        ``draining``: it was accepted before a drain and is ready only now, after a long TLS handshake for instance.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if draining:
                self.start_draining()
            if self._max_age < math.inf:
                nursery.start_soon(self._grow_old)
            await self._connection.run(self)
            nursery.cancel_scope.cancel()

    async def _grow_old(self) -> None:
        await trio.sleep(self._max_age)
        self._connection.limit_reached("max_age")
        self.start_draining()

    # -- drain ------------------------------------------------------------------------------------------

    def start_draining(self) -> None:
        """Begin the two-step goodbye of RFC 9113, 6.8; the connection closes when its last call has ended."""
        if not self._draining and self._nursery is not None and not self._connection.closed:
            self._draining = True
            self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        self._protocol.go_away(EVERY_STREAM)
        self._protocol.ping(DRAIN_PING)
        self._connection.wake_writer()
        with trio.move_on_after(DRAIN_PING_TIMEOUT):
            await self._ping_acked.wait()
        self._protocol.go_away(self._protocol.last_peer_stream)
        self._last_goaway_sent = True
        self._connection.wake_writer()
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        if self._last_goaway_sent and not self._calls:
            self._connection.close_soon()

    def shut_down_calls(self) -> None:
        """The grace is over: every call ends with UNAVAILABLE."""
        for call in list(self._calls.values()):
            call.shut_down()

    # -- ConnectionOwner --------------------------------------------------------------------------------

    def on_headers(self, event: events.HeadersReceived) -> None:
        """Start the call's task, or refuse; a refused stream never gets a task."""
        stream_id = event.stream_id
        if self._last_goaway_sent:
            self._refuse(stream_id, code=7)  # REFUSED_STREAM: the client raced our second GOAWAY and may retry
            return
        try:
            head = self._parse(event.headers)
            method = self._methods.get(head.path)
            if method is None:
                raise CallRefusal(StatusCode.UNIMPLEMENTED, f"unknown method {head.path[:200]}")
            if head.timeout <= 0:
                raise CallRefusal(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")
        except MalformedHeaders:
            self._protocol.reset_malformed(stream_id)
            self._protocol.close_stream(stream_id)
        except HttpRefusal as refusal:
            self._running().start_soon(self._explain, self._connection.open_stream(stream_id), refusal)
        except CallRefusal as refusal:
            status = headers.response_headers() + headers.trailers(refusal.code, refusal.message)
            self._protocol.send_headers(stream_id, status, end=True)
            self._refuse(stream_id, code=NO_ERROR)
        else:
            self._start(method, head, stream_id)

    def _parse(self, raw: RawHeaders) -> headers.RequestHead:
        """``parse_request``, or what it said of the same headers just before: clients repeat themselves."""
        if self._last_request is not None and self._last_request[0] == raw:
            return self._last_request[1]
        head = headers.parse_request(raw)
        self._last_request = raw, head
        return head

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise AssertionError("events arrive only while run() is running")
        return self._nursery

    async def _explain(self, stream: MessageStream, refusal: HttpRefusal) -> None:
        """Answer a request that is not gRPC in plain HTTP, for the person or probe behind it."""
        try:
            with trio.move_on_after(self._limits.request_timeout):
                self._protocol.send_headers(stream.id, headers.plain_headers(refusal.http_status))
                await stream.send([str(refusal).encode()])
                self._protocol.end_stream(stream.id)
                await stream.receive_end()
        except StreamGone:
            pass  # nobody to answer
        finally:
            self._protocol.reset(stream.id, NO_ERROR)
            self._connection.close_stream(stream)

    def _start(self, method: Method, head: headers.RequestHead, stream_id: int) -> None:
        stream = self._connection.open_stream(stream_id)
        stream.start_receiving(MessageDecoder(self._limits.max_message_size, gzip=head.gzip))
        call = StreamCall(method.info, head, stream, self._connection, self._limits)
        self._calls[stream_id] = call
        self._running().start_soon(call.run, method.handler, self._call_ended, name=method.info.path)

    def _call_ended(self, stream_id: int) -> None:
        del self._calls[stream_id]
        self._close_if_drained()

    def _refuse(self, stream_id: int, *, code: int) -> None:
        if not self._protocol.peer_ended(stream_id) or code != NO_ERROR:
            self._protocol.reset(stream_id, code)
        self._protocol.close_stream(stream_id)

    def on_trailers(self, event: events.TrailersReceived) -> None:
        """A client's trailers carry nothing; the stream's end follows, unless they break the rules."""
        try:
            headers.check_fields(event.headers, pseudo=frozenset())
        except MalformedHeaders:
            self._protocol.reset_malformed(event.stream_id)
            if (call := self._calls.get(event.stream_id)) is not None:
                call.cancel()

    def on_reset(self, event: events.StreamReset) -> None:
        """The handler's scope dies with its stream."""
        if (call := self._calls.get(event.stream_id)) is not None:
            call.cancel()

    def on_go_away(self, event: events.GoAwayReceived) -> None:
        """A client that leaves still wants the answers of its open calls."""

    def on_ping_acked(self, event: events.PingAcked) -> None:
        """Every stream the client opened before it saw our first GOAWAY has arrived."""
        if event.data == DRAIN_PING:
            self._ping_acked.set()
