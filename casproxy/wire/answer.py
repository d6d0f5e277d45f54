"""Owns the fast path for the answer of a small call, past h2: headers, one message and OK, as one buffer.

Refuses to know what they say. Sent one by one the three frames take twelve looks at the same stream; h2 and the books
are the same afterwards as if they had been (``H2.send_ready``, ``H2.data_header``, ``H2.send_ready`` with ``end``).

An answer takes this path when all of this holds:

    the connection SERVER_OPEN, no change of the header table to be announced (RFC 7541, 4.2)
    the stream HALF_CLOSED_REMOTE, for nothing is sent behind the answer, and nothing sent on it before
    the message within both windows, and one frame

``casproxy_tests/wire/test_answer.py`` compares this with the three.
"""

from __future__ import annotations

from collections.abc import Sequence

from h2.connection import ConnectionState
from h2.stream import StreamClosedBy, StreamState

from casproxy.wire.framing import Buffer
from casproxy.wire.h2_seam import FRAME_HEADER, H2
from casproxy.wire.ready_headers import ReadyHeaders

_DATA, _HEADERS = 0x0, 0x1
_END_STREAM, _END_HEADERS = 0x1, 0x4


def answer(
    h2: H2, stream_id: int, headers: ReadyHeaders, message: Sequence[Buffer], size: int, trailers: ReadyHeaders
) -> bytes | None:
    """The frames of a whole answer, accounted; ``message`` is ``size`` bytes with its prefix.

    None, and nothing is done, where h2 or flow control have to look.
    """
    stream = h2.streams.get(stream_id)
    if stream is None:
        return None
    machine = stream.state_machine
    if (
        machine.state is not StreamState.HALF_CLOSED_REMOTE
        or machine.headers_sent
        or h2.state_machine.state is not ConnectionState.SERVER_OPEN
        or h2.encoder.header_table.resized
        or size > stream.outbound_flow_control_window
        or size > h2.outbound_flow_control_window
        or size > h2.max_outbound_frame_size
    ):
        return None
    machine.headers_sent = machine.trailers_sent = True
    machine.state = StreamState.CLOSED
    machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
    stream.outbound_flow_control_window -= size
    h2.outbound_flow_control_window -= size
    return b"".join(
        (
            _frame_header(_HEADERS, _END_HEADERS, stream_id, len(headers.block)),
            headers.block,
            _frame_header(_DATA, 0, stream_id, size),
            *message,
            _frame_header(_HEADERS, _END_HEADERS | _END_STREAM, stream_id, len(trailers.block)),
            trailers.block,
        )
    )


def _frame_header(kind: int, flags: int, stream_id: int, size: int) -> bytes:
    return FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id)
