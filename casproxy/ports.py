"""Owns where one server is reached: three ports of its own, or whatever else opens its doors. Knows no service.

``Ports`` are bound and listening from the moment they are opened, though nobody is answered before ``Doors`` are
served. A worker process has no ports: its supervisor hands it connections (``casproxy/workers``).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from casproxy.config import Config
from casproxy.listen import address_of, open_port
from casproxy.observe.metrics import Metrics
from casproxy.web.asgi import pages
from casproxy.web.exposition import metrics_pages
from casproxy.web.server import http_listener, serve_http


class Doors(Protocol):
    """Where one server is reached. Each door is opened once; who opens a listener closes it."""

    def addresses(self) -> dict[str, str]:
        """Where each port is reached, by name."""

    def numbers(self) -> tuple[int, ...]:
        """The ports themselves: nobody may make this server connect to them."""

    def open_grpc(self) -> trio.abc.Listener[trio.SocketStream]:
        """What accepts the connections of the gRPC port."""

    def open_http(self) -> trio.abc.Listener[trio.SocketStream]:
        """What accepts the connections of the HTTP port."""

    async def serve_metrics(
        self, metrics: Metrics, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer scrapes of ``metrics`` until ``stop`` is set. Started once they are answered."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The listening sockets of one server: ``Doors``. Whoever serves from one closes it."""

    grpc: socket.socket
    http: socket.socket
    metrics: socket.socket

    def addresses(self) -> dict[str, str]:
        """See ``Doors.addresses``."""
        return {"grpc": address_of(self.grpc), "http": address_of(self.http), "metrics": address_of(self.metrics)}

    def numbers(self) -> tuple[int, ...]:
        """See ``Doors.numbers``."""
        return tuple(bound.getsockname()[1] for bound in (self.grpc, self.http, self.metrics))

    def open_grpc(self) -> trio.abc.Listener[trio.SocketStream]:
        """See ``Doors.open_grpc``."""
        return trio.SocketListener(trio.socket.from_stdlib_socket(self.grpc))

    def open_http(self) -> trio.abc.Listener[trio.SocketStream]:
        """See ``Doors.open_http``."""
        return http_listener(self.http)

    async def serve_metrics(
        self, metrics: Metrics, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See ``Doors.serve_metrics``."""
        await serve_http(pages(metrics_pages(metrics)), self.metrics, stop, task_status=task_status)


@contextmanager
def open_ports(config: Config) -> Iterator[Ports]:
    """Bind the three ports of ``server``; ``ConfigError`` when one cannot be had. Closes what is left at the end."""
    server = config.server
    with ExitStack() as opened:

        def bind(setting: str, addr: str, network: str) -> socket.socket:
            return opened.enter_context(open_port(addr, setting=f"server.{setting}.addr", network=network))

        yield Ports(
            grpc=bind("grpc", server.grpc.addr, server.grpc.network),
            http=bind("http", server.http.addr, server.http.network),
            metrics=bind("http_metrics", server.http_metrics.addr, server.http_metrics.network),
        )
