"""Owns one connection to a NATS server, for publishing to JetStream. Refuses to know what is published and why.

A publisher needs eight words of the protocol, so they are spoken here, on Trio, instead of running asyncio beside it
(docs/decisions/0015-audit-events-over-a-nats-client-of-our-own.md).
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

import trio

from casproxy import __version__
from casproxy.errors import ConfigError
from casproxy.observe import nats_protocol as wire
from casproxy.observe.nats_protocol import BrokenNats

_CONNECT_SECONDS: Final = 10.0
_ACK_SECONDS: Final = 5.0
_DEFAULT_PORT: Final = 4222


class NatsUnavailable(Exception):
    """The server or its stream is down, refuses us or is too slow; later it may not be."""


class NatsRejected(Exception):
    """The stream will not take this message, however often it is sent."""


@dataclass(frozen=True, slots=True)
class NatsServer:
    """Where a server is and what it is shown. ``repr`` shows no credentials."""

    host: str
    port: int
    tls: bool
    credentials: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"<NatsServer: {self.host}:{self.port}>"


def parse_servers(uri: str, token: str = "") -> list[NatsServer]:
    """``nats://[user:password@|token@]host[:port]``, ``tls://…``; several joined by commas. Raises ``ConfigError``.

    ``token`` is shown to a server whose address names no credentials.
    """
    return [_parse_server(part.strip(), token) for part in uri.split(",") if part.strip()]


def _parse_server(uri: str, token: str) -> NatsServer:
    address = uri if "://" in uri else f"nats://{uri}"
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if host is None or url.scheme not in ("nats", "tls"):
        raise ConfigError("nats_server.uri: want nats://host:4222 or tls://host:4222, several joined by commas")
    credentials: dict[str, str] = {}
    if url.username and url.password is not None:
        credentials = {"user": unquote(url.username), "pass": unquote(url.password)}
    elif url.username or token:
        credentials = {"auth_token": unquote(url.username or "") or token}
    return NatsServer(host, port or _DEFAULT_PORT, url.scheme == "tls", tuple(credentials.items()))


class NatsConnection:
    """An open connection; made by ``open_nats``. Any number of tasks may publish."""

    def __init__(self, stream: trio.abc.Stream, reader: wire.Reader, inbox: str, max_payload: int) -> None:
        self._stream = stream
        self._reader = reader
        self._inbox = inbox
        self._max_payload = max_payload
        self._sending = trio.Lock()
        self._numbered = 0
        self._waiting: dict[str, trio.MemorySendChannel[wire.Message]] = {}

    async def publish(self, subject: str, payload: bytes, *, message_id: str) -> None:
        """Return when a stream has stored the message. Raises ``NatsUnavailable`` or ``NatsRejected``."""
        if len(payload) > self._max_payload:
            raise NatsRejected(f"{len(payload)} bytes are more than the server takes")
        self._numbered += 1
        reply = f"{self._inbox}.{self._numbered}"
        tell, told = trio.open_memory_channel[wire.Message](1)
        self._waiting[reply] = tell
        try:
            with trio.fail_after(_ACK_SECONDS):
                await self._send(wire.publish(subject, reply, {"Nats-Msg-Id": message_id}, payload))
                answer = await told.receive()
        except trio.TooSlowError:
            raise NatsUnavailable(f"no answer within {_ACK_SECONDS:g} s") from None
        finally:
            self._waiting.pop(reply, None)
        _check_ack(answer)

    async def listen(self) -> None:
        """Read until the connection ends, which raises ``NatsUnavailable``. Run as a task of ``open_nats``."""
        while True:
            for received in await _receive(self._stream, self._reader):
                match received:
                    case wire.Ping():
                        await self._send(wire.PONG)
                    case wire.Message(subject=subject):
                        if (tell := self._waiting.pop(subject, None)) is not None:
                            tell.send_nowait(received)
                    case wire.Refusal(text=text):
                        raise NatsUnavailable(text)

    async def _send(self, data: bytes) -> None:
        try:
            async with self._sending:
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NatsUnavailable("the connection is lost") from error


def _check_ack(answer: wire.Message) -> None:
    """A PubAck (ADR-22): ``{"stream": …, "seq": …}``, or an ``error`` with an HTTP-like code."""
    if answer.status:
        raise NatsUnavailable(f"no stream takes this subject, or JetStream is off ({answer.status})")
    try:
        ack = json.loads(answer.payload)
        error = ack.get("error")
    except (ValueError, AttributeError, RecursionError) as broken:
        raise NatsUnavailable("the answer is no PubAck") from broken
    if error is None:
        return
    code, text = (error.get("code"), error.get("description")) if isinstance(error, dict) else (0, error)
    if isinstance(code, int) and 400 <= code < 500:
        raise NatsRejected(str(text))
    raise NatsUnavailable(str(text))


@asynccontextmanager
async def open_nats(server: NatsServer, tls: ssl.SSLContext) -> AsyncIterator[NatsConnection]:
    """Connect to ``server``; leaving closes the connection.

    ``NatsUnavailable`` comes out of the block when the connection is lost in it, alone or in a group.
    """
    try:
        with trio.fail_after(_CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(server.host, server.port)
            try:
                connection = await _greet(stream, server, tls)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except (OSError, trio.BrokenResourceError, BrokenNats, trio.TooSlowError) as error:
        why = "timed out" if isinstance(error, trio.TooSlowError) else str(error.__cause__ or error)
        raise NatsUnavailable(f"cannot connect to {server.host}:{server.port}: {why}") from error
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.listen)
            yield connection
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _greet(stream: trio.SocketStream, server: NatsServer, tls: ssl.SSLContext) -> NatsConnection:
    """INFO, TLS if either side wants it, CONNECT, PING; done when the PONG says that we were let in."""
    reader = wire.Reader()
    info = await _expect_info(stream, reader)
    secured: trio.abc.Stream = stream
    if server.tls or info.get("tls_required"):
        secured = trio.SSLStream(stream, tls, server_hostname=server.host)
        reader = wire.Reader()
    inbox = f"_INBOX.{secrets.token_hex(11)}"
    hello = wire.connect(_options(server)) + wire.subscribe(f"{inbox}.*", 1) + wire.PING
    await secured.send_all(hello)
    while True:
        for received in await _receive(secured, reader):
            if isinstance(received, wire.Pong):
                limit = info.get("max_payload")
                return NatsConnection(secured, reader, inbox, limit if isinstance(limit, int) else 1024 * 1024)
            if isinstance(received, wire.Refusal):
                raise NatsUnavailable(f"{server.host}:{server.port} refuses: {received.text}")


def _options(server: NatsServer) -> dict[str, object]:
    options: dict[str, object] = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
    named = {"lang": "python", "version": __version__, "name": "casproxy", "protocol": 1}
    return options | named | dict(server.credentials)


async def _expect_info(stream: trio.abc.Stream, reader: wire.Reader) -> dict[str, object]:
    while True:
        for received in await _receive(stream, reader):
            if isinstance(received, wire.Info):
                return dict(received.facts)
            raise NatsUnavailable("the server did not introduce itself")


async def _receive(stream: trio.abc.Stream, reader: wire.Reader) -> list[wire.Received]:
    try:
        data = await stream.receive_some()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise NatsUnavailable("the connection is lost") from error
    if not data:
        raise NatsUnavailable("the server closed the connection")
    try:
        return reader.feed(bytes(data))
    except BrokenNats as error:
        raise NatsUnavailable(f"the server does not speak NATS: {error}") from error
