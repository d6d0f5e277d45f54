"""Owns the settings under ``server.grpc.limits``: what one peer of the gRPC port may do. Refuses to know HTTP/2.

What each limit is for, and what happens at it, is on the page docs/explanation/abuse.md.
"""

from __future__ import annotations

import math
from typing import Annotated

from casproxy.config.kinds import Bytes, Count, Seconds, TimeoutSeconds, sizes_between
from casproxy.config.section import Section, doc

_WINDOW = sizes_between(65_535, 2**31 - 1)


class Timeouts(Section, frozen=True, kw_only=True):
    """How long a silent or slow peer is waited for."""

    handshake: Annotated[TimeoutSeconds, doc("A TLS handshake, from its first byte to its last.")] = 10.0
    greeting: Annotated[TimeoutSeconds, doc("From accepting a connection to the peer's first SETTINGS.")] = 10.0
    headers: Annotated[TimeoutSeconds, doc("From the first byte of a header block to its last.")] = 10.0
    request: Annotated[TimeoutSeconds, doc("The one message of a unary call, from its headers to its end.")] = 10.0
    write: Annotated[TimeoutSeconds, doc("A peer takes no byte of what is sent to it.")] = 60.0
    idle: Annotated[TimeoutSeconds, doc("A connection without a call.")] = 3600.0
    keepalive: Annotated[TimeoutSeconds, doc("A connection without a byte is asked whether it is alive.")] = 7200.0
    keepalive_answer: Annotated[TimeoutSeconds, doc("How long it has to show that it is.")] = 20.0


class Windows(Section, frozen=True, kw_only=True):
    """Flow control: how much a client may send before somebody takes it."""

    initial: Annotated[int, _WINDOW, doc("A call's window at its start.")] = 64 << 10
    largest: Annotated[int, _WINDOW, doc("What it may grow to with use.")] = 4 << 20
    connection: Annotated[int, _WINDOW, doc("What the window of a connection may grow to with use.")] = 16 << 20


class GrpcLimits(Section, frozen=True, kw_only=True):
    """What one gRPC peer may ask for at most."""

    max_message_size: Annotated[Bytes, doc("Largest message accepted; a larger one is RESOURCE_EXHAUSTED.")] = 8 << 20
    max_concurrent_streams: Annotated[Count, doc("Calls in flight on one connection.", unit="calls")] = 1000
    max_connections: Annotated[Count, doc("Connections open at once.", unit="connections")] = 10_000
    max_connection_age: Annotated[
        TimeoutSeconds, doc("After which a connection is drained, give or take a tenth. `0s`: never.")
    ] = math.inf
    max_header_list_size: Annotated[Bytes, doc("Headers of one call, decoded.")] = 32 << 10
    max_header_block: Annotated[Bytes, doc("Headers of one call, as they travel.")] = 32 << 10
    max_continuations: Annotated[Count, doc("CONTINUATION frames of one header block.", unit="frames")] = 8
    reset_burst: Annotated[Count, doc("Calls a peer may reset, or make us reset, at once.", unit="calls")] = 1000
    reset_rate: Annotated[Count, doc("How many of them are forgiven in a second.", unit="calls/s")] = 33
    glitch_burst: Annotated[Count, doc("Frames without content a peer may send at once.", unit="frames")] = 10_000
    glitch_rate: Annotated[Count, doc("How many of them are forgiven in a second.", unit="frames/s")] = 330
    replies_pause: Annotated[
        Count, doc("Answers to PING and SETTINGS not yet sent at which reading stops.", unit="answers")
    ] = 100
    replies_close: Annotated[Count, doc("… and at which the connection ends.", unit="answers")] = 1000
    ping_interval: Annotated[Seconds, doc("The least time between two PINGs of a peer that gets no data.")] = 5.0
    ping_strikes: Annotated[Count, doc("PINGs that come sooner before the connection ends.", unit="PINGs")] = 3
    timeouts: Annotated[Timeouts, doc("How long a silent or slow peer is waited for. `0s`: for ever.")] = Timeouts()
    windows: Annotated[Windows, doc("How much a client may send before somebody takes it.")] = Windows()
