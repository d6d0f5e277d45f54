"""Owns what a handler and an interceptor see of a gRPC call. Refuses to know HTTP/2 and sockets.

``rpc.stream`` implements ``ServerCall`` over a real connection; ``casproxy_tests.fakes.call`` in memory. A handler
that returns ends its call with OK; ``RpcError`` ends it with that status; any other exception
ends it with INTERNAL, unless an interceptor translated it first.

The task a handler runs in has a cancel scope of its own. It is cancelled when the peer resets the stream, the
connection dies, the deadline passes or a drain's grace is over; a handler never catches that.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from casproxy.wire.framing import Part
from casproxy.wire.metadata import Metadata

T = TypeVar("T")
Buffer: TypeAlias = bytes | bytearray | memoryview


class MethodKind(enum.StrEnum):
    """Who sends how many messages. The values are the ``grpc_type`` label of existing dashboards."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """A method's full name, e.g. service ``google.bytestream.ByteStream``, name ``Write``."""

    service: str
    name: str
    kind: MethodKind
    path: str = field(init=False, repr=False, compare=False)
    """The HTTP/2 ``:path``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"/{self.service}/{self.name}")  # once, and not for every call


@dataclass(slots=True)
class Traffic:
    """What a call has carried so far: whole messages, and payload bytes of messages, without their prefixes.

    A server that counts attaches one to each call and keeps it up to date; a call without one was not counted.
    """

    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class ServerCall(Protocol):
    """One call in flight, seen from its handler. Sending and receiving may be two tasks, each of them only one."""

    @property
    def info(self) -> MethodInfo:
        """Which method was called."""

    @property
    def metadata(self) -> Metadata:
        """The request's metadata: no pseudo-headers, no ``grpc-*`` and transport headers."""

    @property
    def peer(self) -> str:
        """The client's address, ``127.0.0.1:4242`` or ``[::1]:4242``."""

    @property
    def deadline(self) -> float:
        """On Trio's clock, seconds; ``math.inf`` when the client set none."""

    def attach(self, value: object) -> None:
        """Keep one value per type for those further in (claims, request id, …)."""

    def attached(self, kind: type[T]) -> T:
        """The value attached under exactly this type; ``LookupError`` when an interceptor forgot it."""

    def find(self, kind: type[T]) -> T | None:
        """The same, or None."""

    def charge_to(self, payer: str) -> None:
        """Whose share of the memory budget the bytes held for this call come from, as soon as that is known."""

    def add_trailing_metadata(self, key: str, value: str | bytes) -> None:
        """Send with the status; ``-bin`` keys take bytes, others printable ASCII: ``ValueError`` for anything else."""

    async def receive_message(self) -> bytes | None:
        """The next whole message; None after half-close. Its credit is given back when it is returned.

        At most ``max_message_size`` bytes, else ``BrokenMessage`` RESOURCE_EXHAUSTED. A truncated message is
        ``BrokenMessage`` INTERNAL, never delivered. A handler lets it pass: it ends the call with that status.
        """

    async def receive_parts(self) -> list[Part]:
        """What has arrived of the message stream, at least one part; ``[]`` after half-close.

        A message is ``MessageStart``, buffers, ``MESSAGE_END``; memory does not depend on its size. The bytes of the
        buffers hold credit until they are handed on. Cancellation loses nothing. Never mixed with
        ``receive_message`` within one message. Raises ``StreamGone`` when the peer reset the stream or its connection
        died; the handler's scope is cancelled then as well, whichever comes first.
        """

    def receive_parts_nowait(self) -> list[Part] | None:
        """Like ``receive_parts`` but None instead of waiting."""

    def receive_only_message_nowait(self) -> bytes | None:
        """The one message of a client that has half-closed, if it is there and small; else None, and nothing is lost.

        It is held by this call until it is handed on.
        """

    def hand_on(self, size: int) -> None:
        """``size`` bytes of received buffers are no longer held by this call: the peer may send as many again."""

    def starved(self) -> bool:
        """True when the peer has no credit left, on this stream or its connection, to send even one byte."""

    async def send_message(self, *buffers: Buffer) -> None:
        """Send one message made of ``buffers`` joined; returns when flow control let all of it go.

        The buffers belong to the call from here on. Initial metadata goes out with the first message. Cancelled in
        the middle: the stream can only be reset, which the connection does when the handler leaves.
        """


Handler: TypeAlias = Callable[[ServerCall], Awaitable[None]]
Interceptor: TypeAlias = Callable[[ServerCall, Handler], Awaitable[None]]
"""Wraps every call: ``await handler(call)`` in the middle. The first in the list is outermost."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method and what runs when it is called."""

    info: MethodInfo
    handler: Handler


class ClientCall(Protocol):
    """One call in flight, seen from its caller; see ``rpc.channel.Channel.call``.

    Leaving its ``async with`` block early resets the stream (CANCEL).
    """

    async def send_message(self, *buffers: Buffer) -> bool:
        """Send one message; waits for flow control.

        False: the server has already ended the call, the bytes were dropped, and ``receive_message`` says how it ended.
        """

    async def half_close(self) -> None:
        """No more messages from this side."""

    async def receive_message(self) -> bytes | None:
        """The next message; None when the server ended the call with OK; otherwise raises its ``RpcError``."""

    @property
    def trailing_metadata(self) -> Metadata:
        """The trailers; empty until the call has ended."""
