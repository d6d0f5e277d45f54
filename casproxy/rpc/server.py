"""Owns accepting connections and draining them. Refuses to know HTTP/2 frames and what methods do."""

from __future__ import annotations

import logging
import math
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from casproxy.rpc.api import Handler, Interceptor, Method, ServerCall
from casproxy.rpc.connection import Connection
from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.server_call import CallLimits
from casproxy.rpc.server_connection import ServerConnection
from casproxy.rpc.transport import Transport, peer_name
from casproxy.tls import TlsStream
from casproxy.wire.budget import Budget
from casproxy.wire.protocol import Protocol, WireSettings

log = logging.getLogger(__name__)

_NO_H2 = b"This port speaks gRPC: HTTP/2, which a TLS client asks for by ALPN as h2.\n"
_WITHOUT_H2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_NO_H2), _NO_H2)
)
"""For whoever did not ask for HTTP/2: they speak HTTP/1.1, or show their user what came instead of a SETTINGS frame."""
LAST_WORDS = 1.0
"""Seconds that calls have to send their UNAVAILABLE when a drain's grace is over."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Times in seconds, sizes in bytes."""

    drain_grace: float = 30.0
    unary_timeout: float = 5.0
    handshake_timeout: float = 10.0
    request_timeout: float = 10.0
    """From the headers of a call that takes one message to the end of that message."""
    max_connections: int = 10_000
    max_connection_age: float = math.inf
    """After which a connection is drained, calls in flight going on; spread by a tenth, so that not all go at once."""
    max_message_size: int = 8 * 1024 * 1024
    memory_budget: int = 256 * 1024 * 1024
    wire: WireSettings = field(default_factory=WireSettings)
    timeouts: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)


class Server:
    """A gRPC server: ``serve`` once, ``start_draining`` to end it.

    ``tls`` gives the context for a new connection (so that certificates can change); None: cleartext with prior
    knowledge. ``on_limit`` is told the name of each limit that a peer ran into, for a counter. ``budget``: one that
    others draw on as well, instead of one of ``memory_budget`` for this server alone.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        interceptors: Sequence[Interceptor] = (),
        settings: ServerSettings | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        on_limit: Callable[[str], None] = lambda limit: None,
        budget: Budget | None = None,
    ) -> None:
        self._methods = {
            method.info.path: Method(method.info, _intercepted(method.handler, interceptors)) for method in methods
        }
        self._settings = settings or ServerSettings()
        self._tls = tls
        self._on_limit = on_limit
        self._budget = budget or Budget(self._settings.memory_budget)
        self._live: set[ServerConnection] = set()
        self._accepting = trio.CancelScope()

    @property
    def budget(self) -> Budget:
        """Payload bytes held by all connections of this server."""
        return self._budget

    @property
    def held(self) -> int:
        """Payload bytes that were received and not yet handed on, on all connections."""
        return sum(connection.held for connection in self._live)

    def start_draining(self) -> None:
        """Stop accepting and say goodbye to every connection; ``serve`` returns when the last call has ended.

        Calls still running after ``drain_grace`` end with UNAVAILABLE. Idempotent.
        """
        self._accepting.cancel()

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept on ``listeners`` until drained; they are closed on return, and no task is left.

        Cancelled: every connection is closed at once.
        """
        async with trio.open_nursery() as watch:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    task_status.started()
                    await trio.serve_listeners(self.serve_stream, list(listeners), handler_nursery=connections)
                for connection in self._live:
                    connection.start_draining()
                watch.start_soon(self._enforce_grace, connections.cancel_scope)
            watch.cancel_scope.cancel()

    async def _enforce_grace(self, connections: trio.CancelScope) -> None:
        await trio.sleep(self._settings.drain_grace)
        for connection in self._live:
            connection.shut_down_calls()
        await trio.sleep(LAST_WORDS)
        connections.cancel()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end. What goes wrong on it stays on it."""
        if len(self._live) >= self._settings.max_connections:
            self._on_limit("connections")
            await trio.aclose_forcefully(stream)
            return
        if self._tls is not None:
            secured = await self._shake_hands(stream, self._tls())
            if secured is None:
                return
            stream = secured
        transport = Transport(stream)
        protocol = Protocol(client_side=False, settings=self._settings.wire, budget=self._budget)
        connection = ServerConnection(
            Connection(transport, protocol, self._settings.timeouts, on_limit=self._on_limit),
            self._methods,
            CallLimits(
                unary_timeout=self._settings.unary_timeout,
                request_timeout=self._settings.request_timeout,
                max_message_size=self._settings.max_message_size,
            ),
            max_age=self._settings.max_connection_age * random.uniform(0.9, 1.1),  # noqa: S311 - no secret in it
        )
        self._live.add(connection)
        try:
            await connection.run(draining=self._accepting.cancel_called)
        except Exception:
            log.exception("unexpected error on the connection of %s", transport.peer)
        finally:
            self._live.discard(connection)

    async def _shake_hands(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> TlsStream | None:
        """Complete the TLS handshake in time, with ALPN ``h2`` (RFC 9113, 3.2); closes the stream otherwise."""
        secured = TlsStream(stream, context, server_side=True)
        try:
            with trio.fail_after(self._settings.handshake_timeout):
                await secured.handshake()
            if secured.alpn == "h2":
                return secured
            log.info("TLS client %s did not offer h2 by ALPN", peer_name(stream))
            await _tell(secured, _WITHOUT_H2)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            log.info("TLS handshake with %s failed: %s", peer_name(stream), error)
        self._on_limit("tls_handshake")
        await trio.aclose_forcefully(secured)
        return None


async def _tell(stream: trio.abc.Stream, words: bytes) -> None:
    """Send ``words`` and close in order, if the peer takes them soon."""
    with trio.move_on_after(LAST_WORDS):
        await stream.send_all(words)
        await stream.aclose()


def _intercepted(handler: Handler, interceptors: Sequence[Interceptor]) -> Handler:
    """``handler`` inside all interceptors, the first outermost."""
    for interceptor in reversed(interceptors):
        handler = _wrap(interceptor, handler)
    return handler


def _wrap(interceptor: Interceptor, handler: Handler) -> Handler:
    def intercepted(call: ServerCall) -> Awaitable[None]:
        return interceptor(call, handler)

    return intercepted
