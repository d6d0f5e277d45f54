"""Owns the connections that are kept between exchanges. Refuses to know what is exchanged.

A kept connection is found again under its origin AND its partition: the name of whoever opened it (a hash of the
credentials). What one tenant's exchange may have left on a connection is then never read by another tenant.

A connection is lent to one exchange. It comes back when that has ended as HTTP/1.1 wants it, and is closed at once in
every other case, a cancellation first of all.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from casproxy.background import background
from casproxy.outbound.address import Origin
from casproxy.outbound.connection import Connection, Response
from casproxy.outbound.dial import Dial
from casproxy.outbound.errors import ConnectionBroken, OutboundError
from casproxy.outbound.message import DEFAULT_TIMEOUTS, Request, Timeouts
from casproxy.spans import Value, span

_DRAIN_BYTES: Final = 64 * 1024
_DRAIN_SECONDS: Final = 1.0

_Key: TypeAlias = tuple[Origin, str]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """``idle_timeout`` in seconds: shorter than what servers and their load balancers keep (60 s is common)."""

    idle_timeout: float = 45.0
    max_idle: int = 512
    """Kept connections in all; the least recently used goes first."""


@dataclass(slots=True, eq=False)
class _Idle:
    key: _Key
    connection: Connection
    until: float


class Pool:
    """Made by ``open_pool``. Safe for concurrent use."""

    def __init__(self, dial: Dial, timeouts: Timeouts, settings: PoolSettings) -> None:
        self._dial = dial
        self._timeouts = timeouts
        self._settings = settings
        self._idle: OrderedDict[_Idle, None] = OrderedDict()
        self._by_key: dict[_Key, list[_Idle]] = {}
        self._lent: set[Connection] = set()
        self._kept = trio.Event()

    @property
    def idle(self) -> int:
        """Connections that are kept."""
        return len(self._idle)

    @property
    def lent(self) -> int:
        """Connections in an exchange."""
        return len(self._lent)

    @asynccontextmanager
    async def send(self, request: Request, partition: str = "") -> AsyncIterator[Response]:
        """One exchange; the answer is readable inside. Leaving early, by an error or cancelled closes the connection.

        A kept connection that turns out to be closed by the server costs one more try, unless the body is a stream.
        Errors: ``OutboundError``.
        """
        with span(request.method, **_facts(request)) as exchange:
            if exchange.headers:
                request = request.with_headers(*exchange.headers)
            connection, response = await self._exchange(request, partition)
            exchange.note("http.response.status_code", response.status)
            kept = False
            try:
                yield response
                kept = await _drained(response)
            finally:
                self._lent.discard(connection)
                if kept:
                    self._keep((connection.origin, partition), connection)
                else:
                    connection.close()

    async def _exchange(self, request: Request, partition: str) -> tuple[Connection, Response]:
        kept = self._take((request.url.origin, partition))
        if kept is not None:
            try:
                return kept, await self._first_answer(kept, request)
            except ConnectionBroken as error:
                if error.answered or not isinstance(request.body, bytes):
                    raise
        fresh = Connection(await self._dial(request.url.origin), request.url.origin, self._timeouts)
        return fresh, await self._first_answer(fresh, request)

    async def _first_answer(self, connection: Connection, request: Request) -> Response:
        self._lent.add(connection)
        try:
            return await connection.exchange(request)
        except BaseException:
            self._lent.discard(connection)
            connection.close()
            raise

    def _take(self, key: _Key) -> Connection | None:
        """The connection used last, for it is the likeliest to live."""
        while kept := self._by_key.get(key):
            connection = self._forget(kept[-1])
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, key: _Key, connection: Connection) -> None:
        idle = _Idle(key, connection, trio.current_time() + self._settings.idle_timeout)
        self._idle[idle] = None
        self._by_key.setdefault(key, []).append(idle)
        if len(self._idle) > self._settings.max_idle:
            self._forget(next(iter(self._idle))).close()
        self._kept.set()

    def _forget(self, idle: _Idle) -> Connection:
        del self._idle[idle]
        same = self._by_key[idle.key]
        same.remove(idle)
        if not same:
            del self._by_key[idle.key]
        return idle.connection

    async def close_expired(self) -> None:
        """Close each kept connection when its time is over, for ever. Run as a task of ``open_pool``."""
        while True:
            if not self._idle:
                self._kept = trio.Event()
                await self._kept.wait()
            await trio.sleep_until(next((idle.until for idle in self._idle), -math.inf))
            now = trio.current_time()
            for idle in [idle for idle in self._idle if idle.until <= now]:
                self._forget(idle).close()

    def close(self) -> None:
        """Close every connection, lent ones too."""
        for idle in list(self._idle):
            self._forget(idle).close()
        for connection in self._lent:
            connection.close()


def _facts(request: Request) -> dict[str, Value]:
    """What a span says of a request: never the query of its URL."""
    origin = request.url.origin
    return {"http.request.method": request.method, "server.address": origin.host, "server.port": origin.port}


async def _drained(response: Response) -> bool:
    """Read what little may be left of an answer; whether the connection can be used again."""
    if response.early or (response.size or 0) > _DRAIN_BYTES:
        return response.reusable
    with trio.move_on_after(_DRAIN_SECONDS):
        try:
            await response.read(_DRAIN_BYTES)
        except OutboundError:
            return False
    return response.reusable


@asynccontextmanager
async def open_pool(
    dial: Dial, timeouts: Timeouts = DEFAULT_TIMEOUTS, settings: PoolSettings = PoolSettings()
) -> AsyncIterator[Pool]:
    """A pool of connections made by ``dial``; leaving closes them all."""
    pool = Pool(dial, timeouts, settings)
    try:
        async with background(pool.close_expired):
            yield pool
    finally:
        pool.close()
