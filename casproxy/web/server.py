"""Owns Hypercorn: one HTTP port, served in the caller's nursery until it is told to stop. Refuses to know any page.

Hypercorn sends inside a shield without a deadline, so a client that stops reading could hold up a shutdown for ever.
The kernel supplies the missing deadline: ``TCP_USER_TIMEOUT`` breaks a connection on which nothing moves.
"""

from __future__ import annotations

import logging
import socket
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.typing import ASGIFramework

from casproxy.web.asgi import AsgiApp

STALL_TIMEOUT_SECONDS = 20.0
"""A connection on which the peer takes nothing for this long is broken."""
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
    with listener:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(STALL_TIMEOUT_SECONDS * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)  # inherited by accept
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, app, listener, stop)
            task_status.started()


async def _serve(
    app: AsgiApp, listener: socket.socket, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    # Not hypercorn.trio.serve: that takes an address or a descriptor, and a cancel before it has made a socket of the
    # descriptor would leave it open.
    await worker_serve(
        ASGIWrapper(cast("ASGIFramework", app)),
        _config(),
        sockets=Sockets(secure_sockets=[], insecure_sockets=[listener], quic_sockets=[]),
        shutdown_trigger=stop.wait,
        task_status=task_status,
    )


def _config() -> Config:
    config = Config()
    config.accesslog = None  # a request line holds a query string, and that may hold a token
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = GRACE_SECONDS
    config.include_server_header = False
    config.keep_alive_timeout = 60.0
    config.h11_max_incomplete_size = 32 * 1024
    return config
