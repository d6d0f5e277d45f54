"""Owns a client's way to one server: dials on first use, and again when the connection is gone.

Refuses to know messages.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from casproxy import __version__
from casproxy.background import background
from casproxy.rpc.api import ClientCall
from casproxy.rpc.backoff import Backoff
from casproxy.rpc.client_connection import ClientConnection, deadline_after
from casproxy.rpc.connection import Connection
from casproxy.rpc.errors import RpcError
from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.transport import Transport
from casproxy.tls import TlsStream
from casproxy.wire.budget import Budget
from casproxy.wire.headers import request_headers
from casproxy.wire.metadata import Metadata
from casproxy.wire.protocol import Protocol, WireSettings
from casproxy.wire.status import StatusCode

Dial = Callable[[], Awaitable[trio.abc.Stream]]


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Times in seconds, sizes in bytes."""

    max_message_size: int = 8 * 1024 * 1024
    memory_budget: int = 256 * 1024 * 1024
    wire: WireSettings = field(default_factory=WireSettings)
    timeouts: ConnectionTimeouts = field(default_factory=ConnectionTimeouts)


class Channel:
    """Calls to one server over one connection at a time. For any number of tasks; made by ``open_channel``."""

    def __init__(
        self, dial: Dial, nursery: trio.Nursery, *, authority: str, scheme: str, settings: ChannelSettings
    ) -> None:
        self._dial = dial
        self._nursery = nursery
        self._authority = authority
        self._scheme = scheme
        self._settings = settings
        self._budget = Budget(settings.memory_budget)
        self._connection: ClientConnection | None = None
        self._dialling = trio.Lock()
        self._backoff = Backoff()

    async def unary(
        self, path: str, request: bytes, *, metadata: Metadata | None = None, timeout: float = math.inf
    ) -> bytes:
        """One message there, one back; raises ``RpcError``. ``timeout`` in seconds."""
        async with self.call(path, metadata=metadata, timeout=timeout) as call:
            await call.send_message(request)
            await call.half_close()
            answer = await call.receive_message()
            if answer is None or await call.receive_message() is not None:
                raise RpcError(StatusCode.UNIMPLEMENTED, "the server answered with other than one message")
            return answer

    def call(
        self, path: str, *, metadata: Metadata | None = None, timeout: float = math.inf
    ) -> AbstractAsyncContextManager[ClientCall]:
        """Start a call; its contract is ``rpc.api.ClientCall``.

        After ``timeout`` seconds the body of the ``async with`` block is cancelled and ``RpcError`` DEADLINE_EXCEEDED
        raised.
        """
        return self._call(path, metadata or Metadata(), timeout)

    @asynccontextmanager
    async def _call(self, path: str, metadata: Metadata, timeout: float) -> AsyncIterator[ClientCall]:
        with trio.CancelScope(deadline=deadline_after(timeout)) as scope:
            connection = await self._usable_connection()
            call = connection.start_call(
                request_headers(
                    path,
                    self._authority,
                    scheme=self._scheme,
                    user_agent=f"casproxy/{__version__}",
                    timeout=timeout,
                    custom=metadata,
                )
            )
            try:
                yield call
            except RpcError as error:
                if error.code is StatusCode.UNAVAILABLE and (failure := connection.tls_failure) is not None:
                    text = f"the connection to {self._authority} was lost: {_reason(failure)}"
                    raise RpcError(StatusCode.UNAVAILABLE, text) from failure
                raise
            finally:
                connection.end_call(call)
        if scope.cancelled_caught:
            raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout:g} s")

    async def _usable_connection(self) -> ClientConnection:
        while True:
            async with self._dialling:
                if self._connection is None or not self._connection.usable:
                    self._connection = await self._connect()
                connection = self._connection
            await connection.wait_for_slot()
            if connection.usable:
                return connection

    async def _connect(self) -> ClientConnection:
        self._backoff.check(trio.current_time())
        try:
            stream = await self._dial()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            text = f"cannot connect to {self._authority}: {_reason(error)}"
            raise self._backoff.failed(trio.current_time(), text) from error
        protocol = Protocol(client_side=True, settings=self._settings.wire, budget=self._budget)
        connection = ClientConnection(
            Connection(Transport(stream), protocol, self._settings.timeouts),
            max_message_size=self._settings.max_message_size,
            tls=stream if isinstance(stream, TlsStream) else None,
        )
        await self._nursery.start(connection.run)
        if not connection.usable:
            failure = connection.tls_failure
            text = f"{self._authority} closed the connection at once{f': {_reason(failure)}' if failure else ''}"
            raise self._backoff.failed(trio.current_time(), text) from failure
        self._backoff.succeeded()
        return connection


def _reason(error: Exception) -> str:
    """Why a dial failed, in words: of the addresses that a name has, the first one's reason."""
    if isinstance(error, trio.TooSlowError):
        return "timed out"
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, socket.gaierror):
        return cause.strerror or str(cause)
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return os.strerror(cause.errno)  # trio's own text names the address once more
    return str(cause)


@asynccontextmanager
async def open_channel(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    connect_timeout: float = 10.0,
    settings: ChannelSettings | None = None,
) -> AsyncIterator[Channel]:
    """A channel to ``host:port``, h2c without ``tls``. Nothing is dialled before the first call.

    Leaving the block ends every call and closes the connection. ``connect_timeout`` in seconds, TLS handshake included.
    """

    async def dial() -> trio.abc.Stream:
        with trio.fail_after(connect_timeout):
            return await _dial_tcp(host, port, tls)

    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    async with open_channel_over(
        dial, authority=authority, scheme="https" if tls else "http", settings=settings
    ) as channel:
        yield channel


@asynccontextmanager
async def open_channel_over(
    dial: Dial, *, authority: str, scheme: str = "http", settings: ChannelSettings | None = None
) -> AsyncIterator[Channel]:
    """Like ``open_channel``, over any byte stream that ``dial`` returns (memory streams in tests)."""
    async with background() as nursery:
        yield Channel(dial, nursery, authority=authority, scheme=scheme, settings=settings or ChannelSettings())


async def _dial_tcp(host: str, port: int, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(host, port)
    if tls is None:
        return stream
    secured = TlsStream(stream, tls, server_hostname=host)
    try:
        await secured.handshake()
        if secured.alpn != "h2":
            raise OSError("the server does not speak HTTP/2 (no ALPN h2)")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured
