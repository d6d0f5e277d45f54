"""Owns Hypercorn: one HTTP port, served in the caller's nursery until it is told to stop. Refuses to know any page.

Hypercorn's own ``serve`` is not used, for two reasons. It takes an address or a descriptor, and a cancel before it has
made a socket of the descriptor leaves that open. And it sends inside a shield without a deadline, so that one client
that stops reading holds up a shutdown for ever; here each send has a deadline of its own (``_ImpatientStream``).
"""

from __future__ import annotations

import logging
import socket
from typing import Any, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState

from casproxy.web.asgi import AsgiApp

log = structlog.get_logger("casproxy.web")

STALL_TIMEOUT_SECONDS = 20.0
"""A connection whose peer does not take what one send brings within this time is broken."""
GRACE_SECONDS = 3.0
"""How long requests in flight may take once the port was told to stop."""


async def serve_http(
    app: AsgiApp,
    listener: socket.socket,
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``listener``, a listening socket that belongs to this call from here on.

    Started once requests are answered; returns when ``stop`` is set and requests in flight ended or ran out of grace.
    """
    wrapped, config, context = ASGIWrapper(cast("ASGIFramework", app)), _config(), WorkerContext(None)

    async def serve_connection(stream: trio.SocketStream) -> None:
        state = ConnectionState(LifespanState({}))
        try:
            await TCPServer(wrapped, config, context, cast("Any", state), cast("Any", _ImpatientStream(stream)))
        except Exception:
            log.exception("unexpected error on an HTTP connection")  # it ends this connection and no other

    with listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                port = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
                accepting.start_soon(_accept, serve_connection, port, connections)
                task_status.started()
                await stop.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS


async def _accept(serve_connection: Any, port: trio.SocketListener, connections: trio.Nursery) -> None:
    await trio.serve_listeners(serve_connection, [port], handler_nursery=connections)


class _ImpatientStream:
    """What Hypercorn uses of a ``SocketStream``, with a deadline on each send that holds inside a shield, too."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    async def send_all(self, data: bytes) -> None:
        """Like ``SocketStream.send_all``; ``trio.BrokenResourceError`` when the peer does not take it in time."""
        with trio.move_on_after(STALL_TIMEOUT_SECONDS) as patience:
            await self._stream.send_all(data)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the peer does not read")


def _config() -> Config:
    config = Config()
    config.accesslog = None  # a request line holds a query string, and that may hold a token
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = 60.0
    config.h11_max_incomplete_size = 32 * 1024
    return config
