"""Owns the way from an origin to a connected stream. Refuses to know HTTP.

A name is resolved once, each of its addresses goes past the guard, and the connection is made to the very address that
was checked: a name that resolves differently a moment later (DNS rebinding) gains nothing. The TLS handshake and the
certificate still use the name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

import trio

from casproxy.in_thread import run_in_thread
from casproxy.outbound.address import Origin
from casproxy.outbound.errors import AddressRefused, ConnectFailed, OutboundError, TimedOut, TlsFailed
from casproxy.outbound.guard import Guard
from casproxy.sockets import make_room_for_near_peer
from casproxy.tls import TlsStream

Dial: TypeAlias = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Connects to an origin; the stream is the caller's to close. Errors: ``OutboundError``."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host, best first; raises ``OSError``."""

_RESOLVERS: Final = 32
"""Threads that may wait for DNS at once: getaddrinfo(3) blocks, for as long as somebody's name server likes."""


def guarded_dial(guard: Guard, tls: ssl.SSLContext, *, timeout: float = 10.0, resolve: Resolve | None = None) -> Dial:
    """A ``Dial`` past ``guard``. ``timeout`` in seconds bounds resolving, connecting and the handshake together."""
    find = resolve or _Resolver().resolve

    async def dial(origin: Origin) -> trio.abc.Stream:
        with trio.move_on_after(timeout):
            return await _connect(origin, await _addresses(origin, find, guard), tls)
        raise TimedOut("connect", timeout)

    return dial


class _Resolver:
    """getaddrinfo(3) in threads of its own, so that slow names hold up no other work."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_RESOLVERS)

    async def resolve(self, host: str, port: int) -> list[str]:
        """See ``Resolve``. A numeric host, however it is spelled, needs no thread."""
        with suppress(OSError):
            return _lookup(host, port, socket.AI_NUMERICHOST)
        return await run_in_thread(partial(_lookup, host, port, 0), limiter=self._limiter)


def _lookup(host: str, port: int, flags: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _addresses(origin: Origin, resolve: Resolve, guard: Guard) -> list[str]:
    """The addresses of ``origin`` that the guard lets pass, at least one."""
    try:
        found = await resolve(origin.host, origin.port)
    except OSError as error:
        raise ConnectFailed(f"{origin.host} does not resolve") from error
    allowed: list[str] = []
    refusal: AddressRefused | None = None
    for address in found:
        try:
            guard.check(address, origin.port)
        except AddressRefused as error:
            refusal = error.with_traceback(None)  # which would hold this frame, and the frame the refusal
        else:
            allowed.append(address)
    if not allowed:
        raise AddressRefused(f"{origin.host} leads to {refusal or 'no address'}") from refusal
    return allowed


async def _connect(origin: Origin, addresses: list[str], tls: ssl.SSLContext) -> trio.abc.Stream:
    """A stream to the first address that takes it; each may use an even share of the time that is left."""
    failure: Exception = ConnectFailed(f"{origin.host} does not resolve")
    for index, address in enumerate(addresses):
        left = max(0.0, trio.current_effective_deadline() - trio.current_time())  # cancelled: the deadline is -inf
        share = left / (len(addresses) - index)
        with trio.move_on_after(share) as scope:
            try:
                stream = await _connect_to(address, origin.port)
            except OSError as error:
                failure = error.with_traceback(None)
            else:
                return await _secured(stream, origin, tls) if origin.secure else stream
        if scope.cancelled_caught:
            failure = TimedOut("connect", share)
    try:
        if isinstance(failure, OutboundError):
            raise failure
        raise ConnectFailed(f"cannot connect to {origin.authority}") from failure
    finally:
        del failure


async def _connect_to(address: str, port: int) -> trio.SocketStream:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connecting.connect((address, port))
    except BaseException:
        connecting.close()
        raise
    stream = trio.SocketStream(connecting)
    make_room_for_near_peer(stream)
    return stream


async def _secured(stream: trio.SocketStream, origin: Origin, tls: ssl.SSLContext) -> trio.abc.Stream:
    secured = TlsStream(stream, tls, server_hostname=origin.host)
    try:
        await secured.handshake()
    except trio.BrokenResourceError as error:
        stream.socket.close()
        untrusted = isinstance(error.__cause__, ssl.SSLCertVerificationError)
        reason = "its certificate is not trusted" if untrusted else "the TLS handshake failed"
        raise TlsFailed(f"{origin.authority}: {reason}", untrusted=untrusted) from error
    except BaseException:
        stream.socket.close()
        raise
    return secured
