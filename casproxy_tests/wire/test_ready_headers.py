"""Blocks encoded in advance against h2's own way out: the peer reads the same, and h2 is left in the same state.

Two servers get the same random frames and intents; one sends good answers with ``send_ready`` where that is taken, the
other always with ``send_headers``. What goes out is read by hpack's decoder, one for each connection, so that a block
which touches the dynamic table, or leaves out an announcement, shows in what follows.
"""

from __future__ import annotations

import os
import random

import pytest
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hpack import Decoder

from casproxy.wire.events import RawHeaders
from casproxy.wire.h2_seam import H2
from casproxy.wire.headers import response_headers, trailers
from casproxy.wire.ready_headers import ReadyHeaders
from casproxy.wire.status import StatusCode
from casproxy_tests.wire.frames import PREFACE, frame
from casproxy_tests.wire.peer import request_fields

SEQUENCES = 200_000 if os.environ.get("CASPROXY_SOAK") else 1_500
HEADERS, RST_STREAM, SETTINGS = 1, 3, 4
END_STREAM, END_HEADERS = 0x1, 0x4
RESPONSE, OK = ReadyHeaders(response_headers()), ReadyHeaders(trailers(StatusCode.OK))
GZIP = [*RESPONSE, (b"grpc-encoding", b"gzip")]
FIRST: list[tuple[RawHeaders, bool]] = [
    *[(RESPONSE, False)] * 5,
    (GZIP, False),
    ([*RESPONSE, *OK], True),
    (RESPONSE, True),
]
LAST: list[tuple[RawHeaders, bool]] = [
    *[(OK, True)] * 3,
    ([(b"grpc-status", b"5"), (b"grpc-message", b"no")], True),
]


class Side:
    """A server and what its peer reads. ``ready``: it may send blocks that were encoded in advance."""

    def __init__(self, *, ready: bool) -> None:
        self.ready = ready
        self.taken = 0
        self.h2 = H2(client_side=False)
        self.h2.initiate_connection()
        self.h2.receive_data(PREFACE + frame(SETTINGS, 0, 0, b""))
        self.h2.data_to_send()
        self.decoder = Decoder()

    def answer(self, stream_id: int, fields: RawHeaders, end: bool) -> str:
        """The error's class, or nothing."""
        if self.ready and isinstance(fields, ReadyHeaders) and self.h2.send_ready(stream_id, fields.block, end=end):
            self.taken += 1
            return ""
        try:
            self.h2.send_headers(stream_id, fields, end_stream=end)
        except ProtocolError as error:
            return type(error).__name__
        return ""

    def seen(self) -> list[tuple[int, int, int, object]]:
        """The frames that went out: kind, flags, stream, and the payload or the fields it decodes to."""
        out: list[tuple[int, int, int, object]] = []
        data = bytes(self.h2.data_to_send())
        while data:
            size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            payload = data[9 : 9 + size]
            content = self.decoder.decode(payload, raw=True) if kind == HEADERS else payload
            out.append((kind, flags, int.from_bytes(data[5:9], "big"), content))
            data = data[9 + size :]
        return out

    def state(self) -> dict[int, tuple[object, ...]]:
        machines = {stream_id: stream.state_machine for stream_id, stream in self.h2.streams.items()}
        return {
            stream_id: (m.state, bool(m.headers_sent), bool(m.trailers_sent), m.stream_closed_by)
            for stream_id, m in machines.items()
        }


def _received(rnd: random.Random, encoder_of: H2Connection, next_id: int) -> bytes:
    kind = rnd.random()
    if kind < 0.15:
        return frame(RST_STREAM, 0, rnd.randrange(1, next_id + 1, 2), b"\0\0\0\x08")
    if kind < 0.3:
        return frame(SETTINGS, 0, 0, b"\0\x01" + rnd.choice([0, 0, 100, 4096, 1 << 20]).to_bytes(4, "big"))
    block = encoder_of.encoder.encode(request_fields())
    return frame(HEADERS, END_HEADERS | rnd.choice([0, END_STREAM]), next_id, block)


def _run(seed: int) -> int:
    rnd = random.Random(seed)
    client, next_id = H2Connection(), 1
    ready, plain = Side(ready=True), Side(ready=False)
    for _ in range(rnd.randint(2, 60)):
        if rnd.random() < 0.4:
            wire = _received(rnd, client, next_id)
            if wire[3] == HEADERS:
                next_id += 2
            elif wire[3] == RST_STREAM and int.from_bytes(wire[5:9], "big") >= next_id:
                continue  # of an idle stream: the connection would be over
            ready.h2.receive_data(wire)
            plain.h2.receive_data(wire)
        elif next_id > 1:
            stream_id = rnd.randrange(1, next_id, 2)
            begun = plain.h2.streams[stream_id].state_machine.headers_sent
            fields, end = rnd.choice(FIRST + LAST if rnd.random() < 0.02 else LAST if begun else FIRST)
            if plain.h2.streams[stream_id].closed and rnd.random() < 0.9:
                continue
            error = plain.answer(stream_id, fields, end)
            assert ready.answer(stream_id, fields, end) == error
            if error:
                break  # h2 had encoded the block already: what follows would mean something else
        assert ready.seen() == plain.seen()
        assert ready.state() == plain.state()
        assert ready.h2.state_machine.state is plain.h2.state_machine.state
    return ready.taken


def test_they_leave_peer_and_h2_as_headers_encoded_by_h2_do() -> None:
    taken = 0
    for seed in range(SEQUENCES):
        try:
            taken += _run(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert taken > SEQUENCES


def test_the_headers_of_a_good_answer_are_ready() -> None:
    assert type(response_headers()) is type(trailers(StatusCode.OK)) is ReadyHeaders


@pytest.mark.parametrize("fields", [RESPONSE, OK], ids=["response", "trailers"])
def test_a_block_never_touches_the_table(fields: ReadyHeaders) -> None:
    decoder = Decoder()
    for _ in range(2):
        assert decoder.decode(fields.block, raw=True) == fields
        assert not decoder.header_table.dynamic_entries


def test_a_changed_table_is_announced_before_a_ready_block_goes_out() -> None:
    side = Side(ready=True)
    side.h2.receive_data(frame(HEADERS, END_HEADERS, 1, H2Connection().encoder.encode(request_fields())))
    side.h2.receive_data(frame(SETTINGS, 0, 0, b"\0\x01" + (100).to_bytes(4, "big")))
    assert not side.h2.send_ready(1, RESPONSE.block, end=False)
    assert not side.answer(1, RESPONSE, False)
    assert side.h2.send_ready(1, OK.block, end=True)
