"""Owns what a connection tells its shell. Refuses to know tasks and handlers.

``wire.protocol`` turns h2's events into these few; the shell dispatches on their type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """A request (server), a response or Trailers-Only (client). ``ended``: no body follows."""

    stream_id: int
    headers: RawHeaders
    ended: bool


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """The last headers of a stream; the peer's side is closed."""

    stream_id: int
    headers: RawHeaders


@dataclass(slots=True)
class DataReceived:
    """Body bytes, as one or more chunks in order.

    ``credit``: the flow-control bytes they cost, padding included. Not frozen: consecutive frames of a stream are
    gathered into one event.
    """

    stream_id: int
    chunks: list[bytes | memoryview]
    credit: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer half-closed the stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream is gone. ``by_peer`` is False when this side had to reset it because of what the peer sent."""

    stream_id: int
    code: int
    by_peer: bool


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """More may be sent on ``stream_id``; 0: on the connection as a whole."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer changed its settings: more or less may be sent on every stream."""


@dataclass(frozen=True, slots=True)
class PingAcked:
    """The peer answered our PING. ``data``: the eight bytes it carried."""

    data: bytes


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer will not process streams above ``last_stream_id``."""

    last_stream_id: int
    code: int
    text: bytes


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The peer ran into a limit of ours that does not end the connection. ``limit``: its name."""

    limit: str


Event: TypeAlias = (
    HeadersReceived
    | TrailersReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | CreditReceived
    | SettingsReceived
    | PingAcked
    | GoAwayReceived
    | LimitReached
)
