"""One end of a connection, sans-io: two of ours joined in memory, and plain h2 as the independent other end."""

from __future__ import annotations

import random

import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from casproxy.wire import events, headers
from casproxy.wire.budget import Budget
from casproxy.wire.errors import ConnectionBroken
from casproxy.wire.events import Event, RawHeaders
from casproxy.wire.framing import Buffer
from casproxy.wire.metadata import Metadata
from casproxy.wire.protocol import Protocol, WireSettings
from casproxy.wire.status import StatusCode
from casproxy_tests.wire.frames import frame
from casproxy_tests.wire.peer import PREFACE, RawPeer, message, request_fields

REQUEST = headers.request_headers(
    "/t.Test/Call", "test", scheme="http", user_agent="t", timeout=1.0, custom=Metadata([("k-bin", b"\0")])
)


def server(**settings: int) -> Protocol:
    return Protocol(client_side=False, settings=WireSettings(**settings), budget=Budget(1 << 28))  # type: ignore[arg-type]


def client() -> Protocol:
    return Protocol(client_side=True, settings=WireSettings(), budget=Budget(1 << 28))


def output(protocol: Protocol) -> bytes:
    data = b"".join(bytes(buffer) for buffer in protocol.take_output())
    protocol.written()
    return data


class Joined:
    """A client and a server of ours. ``run`` moves bytes, split at random, until nothing moves."""

    def __init__(self, seed: int = 0) -> None:
        self.client, self.server = client(), server()
        self.at_client: list[Event] = []
        self.at_server: list[Event] = []
        self._rnd = random.Random(seed)

    def run(self) -> None:
        while (up := output(self.client)) or (down := output(self.server)):
            self._feed(self.server, up, self.at_server)
            down = output(self.server) if up else down
            self._feed(self.client, down, self.at_client)

    def _feed(self, protocol: Protocol, data: bytes, seen: list[Event]) -> None:
        while data:
            cut = self._rnd.choice([1, 5, 9, 100, 20_000, len(data)])
            seen += protocol.receive(data[:cut], 0.0)
            data = data[cut:]


def body(seen: list[Event], stream_id: int) -> bytes:
    return b"".join(
        bytes(chunk)
        for event in seen
        if isinstance(event, events.DataReceived) and event.stream_id == stream_id
        for chunk in event.chunks
    )


def kinds(seen: list[Event], stream_id: int) -> list[str]:
    """The kinds of a stream's events, a run of equal ones as one."""
    found: list[str] = []
    for event in seen:
        name = type(event).__name__
        if getattr(event, "stream_id", 0) == stream_id and name != "CreditReceived" and found[-1:] != [name]:
            found.append(name)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_two_of_ours_talk(seed: int) -> None:
    both = Joined(seed)
    stream_id = both.client.start_request(REQUEST)
    both.client.send_data(stream_id, [b"ab", memoryview(b"cd")], 4)
    both.client.end_stream(stream_id)
    both.run()
    assert kinds(both.at_server, 1) == ["HeadersReceived", "DataReceived", "StreamEnded"]
    request = next(event for event in both.at_server if isinstance(event, events.HeadersReceived))
    assert headers.parse_request(request.headers).metadata.get("k-bin") == b"\0"
    assert body(both.at_server, 1) == b"abcd"
    both.server.send_headers(1, headers.response_headers())
    both.server.send_data(1, [b"answer"], 6)
    both.server.send_headers(1, headers.trailers(StatusCode.OK), end=True)
    both.run()
    assert kinds(both.at_client, 1) == ["HeadersReceived", "DataReceived", "TrailersReceived", "StreamEnded"]
    assert body(both.at_client, 1) == b"answer"


@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40_000)), max_size=40))
def test_b12_every_byte_of_random_traffic_is_credited_once(seed: int, steps: list[tuple[int, int]]) -> None:
    """Bytes sent, handed on, dropped with their stream: in the end both ends agree and nothing is missing."""
    both = Joined(seed)
    streams = [both.client.start_request(REQUEST) for _ in range(4)]
    both.run()
    held = dict.fromkeys(streams, 0)
    for action, size in steps:
        stream_id = streams[size % 4]
        if action <= 1 and both.client.can_send(stream_id):
            sent = min(size, both.client.capacity(stream_id))
            if sent > 0:
                both.client.send_data(stream_id, [bytes(sent)], sent)
                held[stream_id] += sent
        elif action == 2:
            both.run()
            taken = min(size, held[stream_id])
            both.server.hand_on(stream_id, taken)
            held[stream_id] -= taken
        elif action == 3:
            both.server.reset(stream_id, 0)
            both.server.close_stream(stream_id)
            held[stream_id] = 0
        both.run()
    for stream_id in streams:
        both.client.reset(stream_id, 8)
        both.server.close_stream(stream_id)
        both.client.close_stream(stream_id)
    both.run()
    window = both.client._h2.outbound_flow_control_window
    assert window == both.server._credit.available
    assert window == both.server._h2._inbound_flow_control_window_manager.current_window_size
    assert window * 2 > 65_535
    assert both.server._credit.held == 0
    both.server.close()
    assert both.server._credit._account.budget.exposed == 0


# -- plain h2 at the other end -----------------------------------------------------------------------


class PlainClient:
    """h2 as it is."""

    def __init__(self, protocol: Protocol) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.server = protocol
        self.at_client: list[h2.events.Event] = []
        self.at_server: list[Event] = []

    def open(self, fields: RawHeaders | None = None) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, request_fields() if fields is None else fields)
        return stream_id

    def run(self) -> None:
        while True:
            up = self.h2.data_to_send()
            if up:
                self.at_server += self.server.receive(up, 0.0)
            down = output(self.server)
            if down:
                self.at_client += self.h2.receive_data(down)
            if not up and not down:
                return

    def use(self) -> int:
        """Send much on a stream, now closed: the connection gets a larger window, and may hold more than its floor."""
        stream_id = self.open()
        for _ in range(30):
            self.h2.send_data(stream_id, bytes(16_000))
            self.run()
            self.server.hand_on(stream_id, 16_000)
            self.run()
        self.server.reset(stream_id, 0)
        self.server.close_stream(stream_id)
        return stream_id

    def resets(self) -> dict[int, int]:
        return {
            event.stream_id: int(event.error_code)
            for event in self.at_client
            if isinstance(event, h2.events.StreamReset)
        }


def test_b11_streams_over_the_limit_are_refused_and_others_live_on() -> None:
    """h2 as a client respects the limit; it is told so only after it has opened them."""
    plain = PlainClient(server(max_concurrent_streams=2))
    ids = [plain.open() for _ in range(4)]
    plain.run()
    assert plain.resets() == {ids[2]: 7, ids[3]: 7}
    plain.h2.send_data(ids[0], b"alive")
    plain.run()
    assert body(plain.at_server, ids[0]) == b"alive"
    plain.server.close_stream(ids[0])
    plain.server.reset(ids[0], 0)
    plain.run()
    assert plain.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 2


def test_b11_a_stream_is_refused_when_the_budget_is_used_up() -> None:
    budget = Budget(1 << 24)
    protocol = Protocol(client_side=False, settings=WireSettings(), budget=budget)
    plain = PlainClient(protocol)
    first = plain.use()
    budget.exposed += budget.total  # by other connections
    refused = plain.open()
    plain.run()
    assert plain.resets() == {first: 0, refused: 7}
    budget.exposed -= budget.total
    third = plain.open()
    plain.h2.send_data(third, b"alive", end_stream=True)
    plain.run()
    assert body(plain.at_server, third) == b"alive"


def test_b11_streams_that_their_peer_has_ended_are_no_reason_to_refuse_others() -> None:
    """As many whole requests on a well-used connection as one likes: only what is held counts."""
    budget = Budget(1 << 24)
    protocol = Protocol(client_side=False, settings=WireSettings(), budget=budget)
    plain = PlainClient(protocol)
    plain.use()
    plain.run()
    assert budget.exposed == 0
    for _ in range(500):
        stream_id = plain.open()
        plain.h2.send_data(stream_id, b"whole", end_stream=True)
        plain.run()
        assert kinds(plain.at_server, stream_id)[-1] == "StreamEnded"
        protocol.hand_on(stream_id, 5)
    assert budget.exposed == 0


def test_b09_a_received_goaway_lets_streams_finish() -> None:
    plain = PlainClient(server())
    stream_id = plain.open()
    plain.run()
    plain.h2.close_connection(last_stream_id=0)
    plain.run()
    assert events.GoAwayReceived(0, 0, b"") in plain.at_server
    assert plain.server.can_send(stream_id)
    plain.server.send_headers(stream_id, headers.response_headers())
    plain.server.send_data(stream_id, [b"x"], 1)
    plain.server.send_headers(stream_id, headers.trailers(StatusCode.OK), end=True)
    peer = RawPeer()
    peer.feed(output(plain.server))
    assert peer.trace(stream_id) == ["HEADERS", "DATA(1)", "HEADERS+ES"]


def test_b09_a_sent_goaway_lets_streams_begin_and_finish() -> None:
    both = Joined()
    both.run()
    both.server.go_away(2**31 - 1)
    both.server.ping(b"draining")
    late = both.client.start_request(REQUEST)
    both.run()
    assert events.GoAwayReceived(2**31 - 1, 0, b"") in both.at_client
    assert events.PingAcked(b"draining") in both.at_server
    assert both.server.last_peer_stream == late
    both.server.go_away(late, text=b"bye")
    both.server.send_headers(late, headers.response_headers() + headers.trailers(StatusCode.OK), end=True)
    both.run()
    assert events.GoAwayReceived(late, 0, b"bye") in both.at_client
    assert kinds(both.at_client, late) == ["HeadersReceived", "StreamEnded"]


def test_b04_data_for_a_stream_that_is_closed_here_is_credited_to_the_connection() -> None:
    plain = PlainClient(server())
    plain.run()
    for _ in range(60):
        stream_id = plain.open()
        plain.run()
        plain.server.reset(stream_id, 0)
        plain.server.close_stream(stream_id)
        plain.h2.send_data(stream_id, bytes(16_000))  # sent before it sees the reset
        plain.run()
    assert plain.h2.outbound_flow_control_window * 2 > 65_535
    assert body(plain.at_server, stream_id) == b""


def test_b08_trailers_go_out_before_the_reset() -> None:
    plain = PlainClient(server())
    stream_id = plain.open()
    plain.h2.send_data(stream_id, bytes(100))
    plain.run()
    plain.server.send_headers(stream_id, headers.response_headers() + headers.trailers(StatusCode.OK), end=True)
    assert not plain.server.peer_ended(stream_id)
    plain.server.reset(stream_id, 0)
    plain.run()
    names = [type(event).__name__ for event in plain.at_client if getattr(event, "stream_id", 0) == stream_id]
    assert names == ["ResponseReceived", "StreamEnded", "StreamReset"]
    assert plain.resets() == {stream_id: 0}


def test_sending_after_the_end_is_not_possible() -> None:
    both = Joined()
    stream_id = both.client.start_request(REQUEST)
    assert both.client.can_send(stream_id)
    both.client.end_stream(stream_id)
    assert not both.client.can_send(stream_id)
    both.run()
    assert both.server.peer_ended(stream_id)
    assert both.server.can_send(stream_id)
    both.server.reset(stream_id, 8)
    assert not both.server.can_send(stream_id)
    both.server.reset(stream_id, 8)  # once is enough
    both.run()
    resets = [event for event in both.at_client if isinstance(event, events.StreamReset)]
    assert resets == [events.StreamReset(stream_id, 8, by_peer=True)]


def test_a_connection_that_is_over_takes_everything_and_sends_nothing() -> None:
    """Calls on it end in their own time: what they still want to say must not fail."""
    plain = PlainClient(server())
    answered, unanswered = plain.open(), plain.open()
    plain.run()
    plain.server.send_headers(answered, headers.response_headers())
    plain.h2.send_data(answered, bytes(40_000))
    plain.run()
    with pytest.raises(ConnectionBroken):
        plain.server.receive(frame(0, 0, 0, b"DATA belongs to a stream"), 0.0)
    output(plain.server)
    for stream_id in (answered, unanswered):
        assert not plain.server.can_send(stream_id)
        plain.server.send_headers(stream_id, headers.trailers(StatusCode.OK), end=True)
        plain.server.end_stream(stream_id)
        plain.server.hand_on(stream_id, 0 if stream_id == unanswered else 40_000)
        plain.server.reset(stream_id, 0)
        plain.server.close_stream(stream_id)
    assert output(plain.server) == b""


def test_data_is_not_copied_on_its_way_out() -> None:
    both = Joined()
    both.run()
    stream_id = both.client.start_request(REQUEST)
    payload = memoryview(bytes(10_000))
    both.client.send_data(stream_id, [payload], 10_000)
    assert any(buffer is payload for buffer in both.client.take_output())


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=5))
def test_data_is_cut_into_frames_that_the_peer_takes(sizes: list[int]) -> None:
    """Plain h2 takes 16 KiB a frame and says nothing else; it counts both windows, and so do we."""
    plain = PlainClient(server())
    stream_id = plain.open()
    plain.run()
    plain.server.send_headers(stream_id, headers.response_headers())
    plain.run()
    capacity = plain.server.capacity(stream_id)
    buffers: list[Buffer] = []
    for number, size in enumerate(sizes):
        size = min(size, capacity - sum(map(len, buffers)))
        buffers.append(bytes([number]) * size if number % 2 else memoryview(bytearray([number]) * size))
    total = sum(map(len, buffers))
    plain.server.send_data(stream_id, buffers, total)
    frames = -(-total // plain.server.frame_size) or 1
    assert plain.server.output_size == total + 9 * frames
    plain.run()
    received = [event for event in plain.at_client if isinstance(event, h2.events.DataReceived)]
    assert b"".join(event.data for event in received) == b"".join(buffers)
    assert len(received) == frames
    assert plain.server.capacity(stream_id) == capacity - total
    assert plain.h2.streams[stream_id].inbound_flow_control_window == capacity - total


def test_data_is_not_copied_on_its_way_in() -> None:
    both = Joined()
    stream_id = both.client.start_request(REQUEST)
    both.run()
    both.client.send_data(stream_id, [bytes(10_000)], 10_000)
    wire = output(both.client)
    (event,) = both.server.receive(wire, 0.0)
    assert isinstance(event, events.DataReceived)
    assert all(isinstance(chunk, memoryview) and chunk.obj is wire for chunk in event.chunks)


def test_the_clients_slots_are_the_servers_limit() -> None:
    both = Joined()
    both.server = server(max_concurrent_streams=1)
    assert both.client.may_open
    both.run()
    stream_id = both.client.start_request(REQUEST)
    assert not both.client.may_open
    both.client.reset(stream_id, 8)
    both.client.close_stream(stream_id)
    assert both.client.may_open


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(50), bytes(100)],
)
def test_what_is_not_http2_breaks_the_connection(garbage: bytes) -> None:
    protocol = server()
    with pytest.raises(ConnectionBroken):
        protocol.receive(garbage, 0.0)
    assert output(protocol)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_events_or_break_the_connection(data: bytes, step: int) -> None:
    protocol = server()
    wire = PREFACE + b"\0\0\0\4\0\0\0\0\0" + data
    try:
        for at in range(0, len(wire), step):
            protocol.receive(wire[at : at + step], 0.0)
    except ConnectionBroken:
        assert b"\7\0\0\0\0\0" in output(protocol)  # GOAWAY says why; many inputs are only unfinished


def test_a_message_passes_through_at_any_size_of_frame() -> None:
    both = Joined()
    stream_id = both.client.start_request(REQUEST)
    both.run()
    sent = message(random.Random(0).randbytes(300_000))
    left = memoryview(sent)
    received = 0
    while left:
        size = min(len(left), both.client.capacity(stream_id))
        if size > 0:
            both.client.send_data(stream_id, [left[:size]], size)
            left = left[size:]
        both.run()
        arrived = len(body(both.at_server, stream_id)) - received
        received += arrived
        both.server.hand_on(stream_id, arrived)
        both.run()
    assert body(both.at_server, stream_id) == sent
