"""Owns one TCP connection of the HTTP port: bytes to a protocol and back, the tasks of its requests, its end.

Hypercorn's protocols speak HTTP (``http1`` and ``http2`` mend them); this takes the place of its ``TCPServer``, which
sends inside a shield without a deadline, and which closes so abruptly that a client may lose an early answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from casproxy.tls import TlsStream
from casproxy.web.asgi import AbortResponse, AsgiApp
from casproxy.web.http1 import Http1
from casproxy.web.http2 import Http2
from casproxy.web.inbox import Inbox
from casproxy.web.pace import PaceLimits
from casproxy.web.paced import PacedStream

log = structlog.get_logger("casproxy.web")

_READ_BYTES = 128 * 1024
_LINGER_SECONDS = 2.0
"""How long a connection that we close is still read from: unread data would make the kernel throw our answer away."""
_END_SECONDS = 15.0
"""How long requests may take to end once their client is gone; an abort or a commit takes at most 5 s."""
_FRAME_SECONDS = 60.0
"""HTTP/2 frames are not cut by a cancelled request: this long, at most, they hold off its end."""


@dataclass(frozen=True, slots=True)
class _Tasks:
    """What Hypercorn's protocols start tasks with."""

    nursery: trio.Nursery

    async def spawn_app(self, app: Any, _config: Config, scope: Any, send: Any) -> Inbox:
        """Start an application for one request; returns where its messages go."""
        inbox = Inbox()
        scope.setdefault("extensions", {})["casproxy.gone"] = inbox.gone
        self.nursery.start_soon(_run_app, app, scope, inbox, send)
        return inbox

    def spawn(self, task: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task of the protocol itself."""
        self.nursery.start_soon(task, *args)


async def _run_app(app: AsgiApp, scope: Any, inbox: Inbox, send: Any) -> None:
    try:
        await app(scope, inbox.receive, send)
    except AbortResponse:
        pass  # the protocol sees that the answer is incomplete
    except Exception:
        log.exception("unexpected error in an HTTP request")
    await inbox.close()
    await send(None)


class Connection:
    """One connection, from its accept to its close. ``stream`` is what lies on ``tcp``: the pace, and maybe TLS."""

    def __init__(
        self,
        app: AsgiApp,
        config: Config,
        context: WorkerContext,
        tcp: trio.SocketStream,
        stream: PacedStream | TlsStream,
        pace: PaceLimits,
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._tcp = tcp
        self._stream = stream
        self._pace = pace
        self._send_lock = trio.Lock()
        self._protocol: Http1 | Http2
        self._nursery: trio.Nursery
        self._idle = trio.CancelScope()
        self._closing = False

    async def serve(self) -> None:
        """Serve until the peer leaves, stays idle, or is sent away. Closes the stream however this ends."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._protocol = Http1(*self._protocol_arguments())
                self._become_idle()
                await self._read()
                await self._handle(Closed())
                self._idle.cancel()
                self._end_within(_END_SECONDS)
        finally:
            vars(self).pop("_protocol", None)  # it has our ``_send``: they would hold each other for ever
            await trio.aclose_forcefully(self._stream)

    def _protocol_arguments(self) -> tuple[object, ...]:
        raw = self._tcp.socket
        try:
            client = parse_socket_addr(raw.family, raw.getpeername())
            server = parse_socket_addr(raw.family, raw.getsockname())
        except OSError:  # it left before it was served
            client = server = None
        state = ConnectionState(LifespanState({}))
        return (
            *(self._app, self._config, self._context, _Tasks(self._nursery), state),
            *(isinstance(self._stream, TlsStream), client, server, self._send),
        )

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not self._closing:
                await self._handle(RawData(data=data))
            if not data:
                break
        if self._closing:
            await self._linger()

    async def _linger(self) -> None:
        """Read on below TLS, which takes nothing any more once we said goodbye."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._tcp.receive_some(_READ_BYTES):
                """Nobody wants it."""

    async def _handle(self, event: Event) -> None:
        try:
            await self._protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self._protocol = Http2(*self._protocol_arguments(), pace=self._pace)
            await self._protocol.initiate()
            await self._protocol.handle(RawData(data=assumed.data))

    async def _send(self, event: Event) -> None:
        """What a protocol wants done."""
        if isinstance(event, RawData):
            await self._send_bytes(event.data)
        elif isinstance(event, Closed):
            await self._close()
        elif isinstance(event, Updated) and event.idle:
            self._become_idle()
        elif isinstance(event, Updated):
            self._idle.cancel()

    async def _send_bytes(self, data: bytes) -> None:
        async with self._send_lock:
            if isinstance(self._protocol, Http1):  # cancelled in the middle, its only response is incomplete anyway
                sent = await self._write(data)
            else:
                sent = False
                with trio.move_on_after(_FRAME_SECONDS, shield=True):
                    sent = await self._write(data)
        if not sent:
            await trio.aclose_forcefully(self._stream)
            await self._handle(Closed())

    async def _write(self, data: bytes) -> bool:
        """False when the peer is gone, or takes less than it must."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _close(self) -> None:
        """Say that no more comes; the reader goes on for a moment, so that the last answer reaches its client."""
        if not self._closing:
            self._closing = True
            self._idle.cancel()
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await trio.aclose_forcefully(self._stream)
            self._end_within(_LINGER_SECONDS)
        await self._protocol.handle(Closed())

    def _end_within(self, seconds: float) -> None:
        scope = self._nursery.cancel_scope
        scope.deadline = min(scope.deadline, trio.current_time() + seconds)

    def _become_idle(self) -> None:
        self._idle.cancel()
        self._idle = trio.CancelScope()
        self._nursery.start_soon(self._end_when_idle, self._idle)

    async def _end_when_idle(self, idle: trio.CancelScope) -> None:
        with idle:
            with trio.move_on_after(self._config.keep_alive_timeout):
                await self._context.terminated.wait()
            self._nursery.cancel_scope.cancel()
