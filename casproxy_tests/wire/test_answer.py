"""A whole answer as one buffer against its three frames: the same bytes, and the same state of the connection."""

from __future__ import annotations

import pytest

from casproxy.wire.budget import Budget
from casproxy.wire.framing import encode_message
from casproxy.wire.headers import OK, RESPONSE
from casproxy.wire.protocol import Protocol, WireSettings
from casproxy_tests.wire.peer import INITIAL_WINDOW_SIZE, RawPeer, request_fields

MESSAGE = encode_message([b"a", b"nswer"])
SIZE = 11


class Side:
    """A server with one call, and its peer."""

    def __init__(self, *, ends: bool = True, window: int = 65_535) -> None:
        self.protocol = Protocol(client_side=False, settings=WireSettings(), budget=Budget(1 << 28))
        self.peer = RawPeer(settings={INITIAL_WINDOW_SIZE: window})
        self.peer.headers(1, request_fields())
        self.peer.message(1, b"question", end=ends)
        self.receive()

    def receive(self) -> None:
        data, self.peer.output = bytes(self.peer.output), bytearray()
        self.protocol.receive(data, 0.0)
        self.output()

    def output(self) -> bytes:
        data = b"".join(map(bytes, self.protocol.take_output()))
        self.protocol.written()
        return data

    def in_one(self) -> bool:
        return self.protocol.send_answer(1, RESPONSE, MESSAGE, SIZE, OK)

    def in_three(self) -> None:
        self.protocol.send_headers(1, RESPONSE)
        self.protocol.send_data(1, MESSAGE, SIZE)
        self.protocol.send_headers(1, OK, end=True)


def test_the_same_bytes_and_the_same_state() -> None:
    one, three = Side(), Side()
    assert one.in_one()
    three.in_three()
    assert one.protocol.output_size == len(answer := one.output())
    assert answer == three.output()
    for side in (one, three):
        assert not side.protocol.can_send(1)
        assert side.protocol.connection_capacity == 65_535 - SIZE
        side.protocol.close_stream(1)
        side.peer.reset(1)  # a late one is no error
        side.receive()
        assert side.output() == b""


def test_it_goes_out_behind_what_was_queued_before() -> None:
    side = Side()
    side.protocol.ping(b"01234567")
    assert side.in_one()
    assert b"01234567" in side.output()[:17]


def test_nothing_is_done_twice() -> None:
    side = Side()
    assert side.in_one()
    side.output()
    assert not side.in_one()
    assert side.output() == b""


@pytest.mark.parametrize("why", ["still sending", "reset", "headers sent", "window", "connection window", "unknown"])
def test_nothing_is_done_where_it_is_not_that_simple(why: str) -> None:
    side = Side(ends=why != "still sending", window=SIZE - 1 if why == "window" else 65_535)
    if why == "reset":
        side.peer.reset(1)
        side.receive()
    elif why == "headers sent":
        side.protocol.send_headers(1, RESPONSE)
    elif why == "connection window":
        side.protocol._h2.outbound_flow_control_window = SIZE - 1
    side.output()
    assert not side.protocol.send_answer(3 if why == "unknown" else 1, RESPONSE, MESSAGE, SIZE, OK)
    assert side.output() == b""
