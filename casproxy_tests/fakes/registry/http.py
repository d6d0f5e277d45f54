"""A small HTTP/1.1 server on Trio and h11, every byte of which a test may spoil. Refuses to know registries.

A handler is given an ``Exchange``: it reads the request's body and answers once. Faults are attached to an exchange
and happen at their own phase; a handler knows nothing of them. Connections are counted, so that a test can tell whether
one was left busy.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

from casproxy_tests.fakes.registry.faults import Answer, Fault, Hangup, Phase

READ_SIZE = 256 * 1024
SLICE = 64 * 1024
"""Bytes of an answer that are sent at once; a fault may cut anywhere in between."""
_SEND_BUFFER = 64 * 1024
_DRAINED_BYTES = 256 * 1024
_LINGER_SECONDS = 1.0
_DEAD = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, h11.RemoteProtocolError)

Body: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. ``headers`` by lower-case name; ``connection`` counts the server's connections from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


class Exchange:
    """One request and its answer."""

    def __init__(self, request: Request, wire: _Wire) -> None:
        self.request = request
        self.received = 0
        self.status: int | None = None
        """What was answered; None before."""
        self._wire = wire
        self._faults: Sequence[Fault] = ()

    async def meet(self, faults: Sequence[Fault]) -> None:
        """Attach the faults of this exchange; those of its head happen now."""
        self._faults = faults
        await self._happen(Phase.HEAD)

    async def receive(self) -> bytes:
        """The next bytes of the request's body; ``b""`` at its end."""
        await self._happen(Phase.BODY, self.received)
        data = await self._wire.receive_body(self._until_fault(Phase.BODY, self.received))
        self.received += len(data)
        return data

    async def read(self) -> bytes:
        """The whole body, for small ones."""
        pieces = []
        while data := await self.receive():
            pieces.append(data)
        return b"".join(pieces)

    async def respond(self, status: int, headers: Mapping[str, str] | None = None, body: Body = b"") -> None:
        """Answer. ``Content-Length`` is the body's unless ``headers`` say otherwise (an answer to HEAD)."""
        await self._happen(Phase.ANSWER)
        fields = {"content-length": str(len(body)), **(headers or {})}
        for fault in self._faults:
            fields |= fault.headers
        await self._send(status, fields, body)

    async def _send(self, status: int, fields: Mapping[str, str], body: Body) -> None:
        self.status = status
        await self._wire.send_head(status, {name: value for name, value in fields.items() if value})
        if self.request.method == "HEAD":
            body = b""
        body = memoryview(body)[: int(fields.get("content-length", len(body)))]  # an answer of another size is whole
        sent = 0
        while sent < len(body):
            await self._happen(Phase.ANSWER_BODY, sent)
            end = min(sent + SLICE, len(body), sent + (self._until_fault(Phase.ANSWER_BODY, sent) or SLICE))
            await self._wire.send_body(self._flipped(body[sent:end], sent))
            sent = end
        await self._wire.end()

    def _until_fault(self, phase: Phase, offset: int) -> int:
        """Bytes until the next fault of ``phase`` happens; 0 when there is none."""
        return min(
            (f.after_bytes - offset for f in self._faults if f.phase is phase and f.after_bytes > offset), default=0
        )

    async def _happen(self, phase: Phase, offset: int = 0) -> None:
        for fault in self._faults:
            if fault.phase is not phase or offset < fault.after_bytes:
                continue
            if fault.delay_per_slice:
                fault.reached.set()
                await trio.sleep(fault.delay_per_slice)
            if fault.action is None:
                continue
            fault.reached.set()
            if isinstance(fault.action, Answer):
                await self._send(
                    fault.action.status,
                    {"content-length": str(len(fault.action.body)), **fault.action.headers},
                    fault.action.body,
                )
                raise Answered
            await self._wire.hang_up(fault.action)

    def _flipped(self, data: Body, offset: int) -> Body:
        for fault in self._faults:
            if fault.flip is not None and offset <= fault.flip < offset + len(data):
                fault.reached.set()
                data = bytearray(data)
                data[fault.flip - offset] ^= 0xFF
        return data


class Answered(Exception):
    """A fault gave the answer in the handler's place; the exchange is over."""


Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]


class _Gone(Exception):
    """The connection is over."""


class _Wire:
    """One connection: h11 and a stream."""

    def __init__(self, stream: trio.abc.Stream, sock: trio.socket.SocketType, server: HttpServer) -> None:
        self._stream = stream
        self._socket = sock
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
        self._leftover = b""
        self._announced: float = 0

    async def receive_request(self, number: int) -> Request | None:
        """The next request, None when the peer closed an idle connection."""
        event = await self._next_event()
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request), event
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        self._announced = math.inf if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        return Request(event.method.decode(), event.target.decode("latin-1"), headers, number)

    async def receive_body(self, at_most: int) -> bytes:
        if not self._leftover:
            if self._http.they_are_waiting_for_100_continue:
                await self._transmit(h11.InformationalResponse(status_code=100, headers=[]))
            event = await self._next_event() if self._http.their_state is h11.SEND_BODY else h11.EndOfMessage()
            self._leftover = bytes(event.data) if isinstance(event, h11.Data) else b""
        data = self._leftover[: at_most or len(self._leftover)]
        self._leftover = self._leftover[len(data) :]
        return data

    async def send_head(self, status: int, fields: Mapping[str, str]) -> None:
        """What is left of a small body is read first, as real servers do; after a large one the connection closes."""
        while self._announced <= _DRAINED_BYTES and await self.receive_body(0):
            pass
        if self._http.their_state is h11.SEND_BODY:
            fields = {**fields, "connection": "close"}
        await self._transmit(h11.Response(status_code=status, headers=list(fields.items())))

    async def send_body(self, data: Body) -> None:
        await self._transmit(h11.Data(data=data))  # type: ignore[arg-type]

    async def end(self) -> None:
        try:
            await self._transmit(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise _Gone from error  # fewer bytes than were announced: a HEAD, or a lie in the headers

    async def hang_up(self, how: Hangup) -> None:
        """End or stall the connection at this point; does not return."""
        if how is Hangup.BLACK_HOLE:
            await self._server.healed.wait()
            await self._discard()
        elif how is Hangup.RESET:
            self.reset()
        raise _Gone

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def next_request(self) -> bool:
        """Make ready for another request; False when the connection has to close."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def close_gently(self) -> None:
        """Close after an answer that came before the body's end, so that the peer reads it and is not reset."""
        with trio.move_on_after(_LINGER_SECONDS):
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()
            await self._discard()

    async def _discard(self) -> None:
        while await self._stream.receive_some(READ_SIZE):
            pass

    async def _next_event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))
        if event is h11.PAUSED:
            raise _Gone
        return event  # type: ignore[return-value]

    async def _transmit(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)


@dataclass(slots=True)
class HttpServer:
    """A listening server. ``url`` without a slash at its end."""

    handler: Handler
    tls: ssl.SSLContext | None = None
    port: int = 0
    connections: int = 0
    """Accepted so far."""
    open_connections: int = 0
    _busy: set[_Wire] = field(default_factory=set)
    healed: trio.Event = field(default_factory=trio.Event)
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host}"

    @property
    def busy(self) -> int:
        """Exchanges in progress."""
        return len(self._busy)

    def reset_busy(self) -> None:
        """Reset every connection with an exchange in progress."""
        for wire in self._busy:
            wire.reset()

    async def settle(self) -> None:
        """Let black holes end, and wait until no exchange is in progress: what is open then is idle."""
        self.healed.set()
        await self._wait(lambda: not self.busy)
        self.healed = trio.Event()

    async def settle_closed(self) -> None:
        """Like ``settle``, and no connection is open."""
        await self.settle()
        await self._wait(lambda: not self.open_connections)

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._changed = trio.Event()
            await self._changed.wait()

    async def serve_connection(self, transport: trio.SocketStream) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        stream: trio.abc.Stream = transport
        if self.tls is not None:
            stream = trio.SSLStream(transport, self.tls, server_side=True, https_compatible=True)
        try:
            with contextlib.suppress(_Gone, *_DEAD):
                await self._serve_requests(_Wire(stream, transport.socket, self), number)
        finally:
            await trio.aclose_forcefully(stream)
            self.open_connections -= 1
            self._changed.set()

    async def _serve_requests(self, wire: _Wire, number: int) -> None:
        while (request := await wire.receive_request(number)) is not None:
            self._busy.add(wire)
            try:
                exchange = Exchange(request, wire)
                with contextlib.suppress(Answered):
                    await self.handler(exchange)
                if not wire.next_request():
                    await wire.close_gently()
                    return
            finally:
                self._busy.discard(wire)
                self._changed.set()


@asynccontextmanager
async def serve_http(
    handler: Handler, *, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[HttpServer]:
    """Serve on loopback for the block. What the block raises is not wrapped."""
    server = HttpServer(handler, tls)
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server.port = listener.socket.getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.serve_connection, [listener])
            yield server
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__
