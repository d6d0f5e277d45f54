"""Owns the fast path for the headers that open a call, in front of h2. Refuses to know what they mean.

h2 and hyperframe spend 30 µs on such a frame beside decoding its block: a frame object with a set of flags, two turns
of two state machines, six passes over the fields. None of that finds anything in the headers of a gRPC request.

A HEADERS frame takes this path on a server when all of this holds, and then leaves h2 as if it had seen it:

    complete, END_HEADERS, neither padded nor with a priority (no other flag than END_STREAM), not inside a block
    the connection SERVER_OPEN (so h2 has seen the first call), the stream odd and above all before it
        -> the stream is made by ``_begin_new_stream``; of its state machine ``client``, ``headers_received`` and
           ``state`` are set: OPEN, with END_STREAM HALF_CLOSED_REMOTE

A request with ``content-length`` or ``:status`` is given to h2 with its fields decoded already, for it counts the body
against the one and ends the connection for the other.

``casproxy_tests/wire/test_inbound_fuzz.py`` compares this with h2 alone.
"""

from __future__ import annotations

from h2.connection import AllowedStreamIDs, ConnectionState
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import ProtocolError
from h2.stream import StreamState
from hpack import HPACKError

from casproxy.wire.events import HeadersReceived, RawHeaders
from casproxy.wire.h2_seam import H2

END_STREAM, END_HEADERS = 0x1, 0x4
_FOR_H2 = (b"content-length", b":status")


def opens_call(h2: H2, stream_id: int, flags: int) -> bool:
    """Whether a complete HEADERS frame, outside any header block, may be given to ``open_call``."""
    return (
        flags & ~END_STREAM == END_HEADERS
        and stream_id > h2.highest_inbound_stream_id
        and stream_id & 1 == 1
        and h2.state_machine.state is ConnectionState.SERVER_OPEN
    )


def open_call(h2: H2, stream_id: int, block: bytes, *, ended: bool) -> HeadersReceived | list[Event]:
    """What the frame means; h2's own events where h2 had to look at it. Raises as ``h2.receive_data`` does."""
    try:
        fields: RawHeaders = list(h2.decoder.decode(block))
    except HPACKError as error:
        h2.terminate(ErrorCodes.PROTOCOL_ERROR)
        raise ProtocolError(f"Error decoding header block: {error}") from error
    for name, _ in fields:
        if name in _FOR_H2:
            return h2.receive_request(stream_id, fields, ended=ended)
    machine = h2._begin_new_stream(stream_id, AllowedStreamIDs.ODD).state_machine
    machine.client = False
    machine.headers_received = True
    machine.state = StreamState.HALF_CLOSED_REMOTE if ended else StreamState.OPEN
    return HeadersReceived(stream_id, fields, ended)
