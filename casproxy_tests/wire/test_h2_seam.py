"""What we reach for inside h2 is where we left it: the version is the one all of this was tried with.

When this fails after an upgrade: read ``wire/h2_seam.py`` and ``wire/inbound.py`` beside h2's changes, run the fuzz
(``test_inbound_fuzz``) at full size, and move the version here and in ``pyproject.toml`` together.
"""

from __future__ import annotations

from importlib.metadata import version

from h2.connection import ConnectionState
from h2.stream import H2Stream, StreamClosedBy, StreamState
from h2.windows import WindowManager

from casproxy.wire.h2_seam import H2


def test_h2_is_the_minor_version_that_was_tried() -> None:
    assert version("h2").split(".")[:2] == ["4", "4"]


def test_the_internals_of_a_connection_are_where_they_were() -> None:
    connection = H2(client_side=False)
    assert isinstance(connection.streams, dict)
    assert isinstance(connection._inbound_flow_control_window_manager, WindowManager)
    assert isinstance(connection.outbound_flow_control_window, int)
    assert connection.state_machine.state is ConnectionState.IDLE
    assert callable(connection._stream_closed_by)
    assert callable(connection._local_settings_acked)
    assert {"_receive_goaway_frame", "_receive_headers_frame", "_receive_data_frame"} <= {
        handler.__name__ for handler in connection._frame_dispatch_table.values()
    }
    assert connection._closed_streams == {}


def test_the_internals_of_a_stream_are_where_they_were() -> None:
    client, server = H2(client_side=True), H2(client_side=False)
    client.initiate_connection()
    client.send_headers(1, [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x")])
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    stream: H2Stream = server.streams[1]
    assert stream.state_machine.state is StreamState.OPEN
    assert stream.state_machine.headers_received is True
    assert stream.state_machine.stream_closed_by is None
    assert {"SEND_RST_STREAM", "RECV_END_STREAM"} <= StreamClosedBy.__members__.keys()
    assert stream._inbound_window_manager.current_window_size == 65_535
    assert (stream._expected_content_length, stream._actual_content_length) == (None, 0)
    assert stream.outbound_flow_control_window == 65_535


def test_the_internals_of_an_answer_are_where_they_were() -> None:
    client, server = H2(client_side=True), H2(client_side=False)
    client.initiate_connection()
    client.send_headers(1, [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x")])
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    machine = server.streams[1].state_machine
    assert not machine.headers_sent
    server.send_headers(1, [(b":status", b"200")])
    assert (machine.headers_sent, bool(machine.trailers_sent)) == (True, False)
    server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    assert (machine.trailers_sent, machine.state) == (True, StreamState.HALF_CLOSED_LOCAL)
    assert isinstance(server._data_to_send, bytearray)
    assert server.encoder.header_table.resized is False
