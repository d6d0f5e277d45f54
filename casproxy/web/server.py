"""Owns one HTTP port: accepts connections and serves them in the caller's nursery. Refuses to know pages.

Hypercorn's own ``serve`` is not used: docs/decisions/0010-hypercorns-protocols-are-mended.md says why.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from casproxy.tls import TlsStream
from casproxy.web.asgi import AsgiApp
from casproxy.web.connection import Connection
from casproxy.web.pace import PaceLimits
from casproxy.web.paced import PacedStream

log = structlog.get_logger("casproxy.web")

_GRACE_SECONDS = 3.0
_SEND_BUFFER_BYTES = 256 * 1024
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def _short_grace() -> float:
    return _GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What a port allows. ``pace``: how slow a reader may be. Sizes in bytes.

    ``grace``: seconds that requests in flight still have when the port is told to stop. ``on_limit`` is told the name
    of a limit that was reached.
    """

    pace: PaceLimits = field(default_factory=PaceLimits)
    max_connections: int = 10_000
    max_header_bytes: int = 32 * 1024
    keep_alive_seconds: float = 60.0
    grace: Callable[[], float] = _short_grace
    tls: Callable[[], ssl.SSLContext] | None = None
    """Gives the context for a new connection, so that certificates can change; None: cleartext."""
    handshake_timeout: float = 10.0
    on_limit: Callable[[str], None] = lambda _name: None


async def serve_http(
    app: AsgiApp,
    listener: socket.socket,
    stop: trio.Event,
    settings: HttpSettings = HttpSettings(),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``listener``, a listening socket that belongs to this call from here on. See below."""
    with listener:
        await serve_listener(app, http_listener(listener), stop, settings, task_status=task_status)


def http_listener(listener: socket.socket) -> trio.SocketListener:
    """What accepts from a listening socket, which belongs to it from here on."""
    _tune(listener)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


async def serve_listener(
    app: AsgiApp,
    listener: trio.abc.Listener[trio.SocketStream],
    stop: trio.Event,
    settings: HttpSettings = HttpSettings(),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` to whom ``listener`` accepts; the listener belongs to this call from here on.

    Started once requests are answered; returns when ``stop`` is set and requests in flight ended or ran out of grace.
    """
    config, context = _config(settings), WorkerContext(None)
    connected = 0

    async def serve_connection(stream: trio.SocketStream) -> None:
        nonlocal connected
        if connected >= settings.max_connections:
            settings.on_limit("http_connections")
            await trio.aclose_forcefully(stream)
            return
        connected += 1
        try:
            secured = await _secured(stream, settings)
            if secured is not None:
                await Connection(app, config, context, stream, secured, settings.pace).serve()
        except Exception:
            log.exception("unexpected error on an HTTP connection")  # it ends this connection and no other
        finally:
            connected -= 1

    async with listener, trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(_accept, serve_connection, listener, connections)
            task_status.started()
            await stop.wait()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + settings.grace()


async def _secured(stream: trio.SocketStream, settings: HttpSettings) -> PacedStream | TlsStream | None:
    """What to serve on ``stream``; None, and it is closed, when TLS is spoken here and did not come about."""
    paced = PacedStream(stream, settings.pace)
    if settings.tls is None:
        return paced
    secured = TlsStream(paced, settings.tls(), server_side=True)
    try:
        with trio.fail_after(settings.handshake_timeout):
            await secured.handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
        log.info("TLS handshake failed", reason=str(error))
        settings.on_limit("http_tls_handshake")
    except BaseException:
        await trio.aclose_forcefully(paced)
        raise
    else:
        return secured
    await trio.aclose_forcefully(paced)
    return None


async def _accept(
    serve_connection: Any, listener: trio.abc.Listener[trio.SocketStream], connections: trio.Nursery
) -> None:
    await trio.serve_listeners(serve_connection, [listener], handler_nursery=connections)


def _tune(listener: socket.socket) -> None:
    """Set what accepted sockets inherit: no delay, and little that the kernel holds for a client that reads slowly."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _SEND_BUFFER_BYTES)


def _config(settings: HttpSettings) -> Config:
    config = Config()
    config.accesslog = None  # a request line holds a query string, and that may hold a token
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_seconds
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.h2_max_header_list_size = settings.max_header_bytes
    return config
