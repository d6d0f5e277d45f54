"""Owns every place where we reach into h2. Refuses to know gRPC and tasks.

h2 is built for a general server; some of its habits do not fit this one. Each is changed by overriding one
method or by touching the named attributes, here and nowhere else, so that an upgrade of h2 has one file to check:

* it answers one stream too many with GOAWAY  -> ``open_inbound_streams`` counts nothing; ``wire.protocol`` refuses
  the stream itself. (Counting is also linear in the open streams.)
* a received GOAWAY closes its state machine, so that running streams cannot finish (RFC 9113, 6.8 wants them to)
  -> ``_receive_goaway_frame`` only reports it.
* closed streams are forgotten as a side effect of counting  -> ``forget_stream`` moves one from ``streams`` to
  ``_closed_streams``, as ``_open_streams`` does.
* it answers a body that is not of the announced length, a content-length that is no number and trailers that do not
  end the stream with GOAWAY, where RFC 9113, 8.1.1 has a stream error  -> the stream is reset.
* ``send_data`` copies the body several times  -> ``data_header`` does the same accounting
  (``outbound_flow_control_window`` of connection and stream) and leaves the body to the caller. Only for frames
  without END_STREAM on a stream that may send, which need no state transition.
* hpack decodes and encodes headers for whatever a peer makes it cost  -> ``wire.hpack_decoder`` and
  ``wire.hpack_encoder``, which have limits.
* ``send_headers`` spends 30 µs on a block that is known beforehand  -> ``send_ready`` does its state transitions
  (``headers_sent``, ``trailers_sent``, ``state``, ``stream_closed_by`` of an open stream's machine) and no other.
* it stores every setting a peer sends, also those nobody knows: 65,536 of them are 50 MB for a frame of 400 KB
  -> unknown ones are dropped (RFC 9113, 6.5.2: they are to be ignored).
* it remembers 65,536 closed streams a connection, 8 MB  -> ``MAX_CLOSED_STREAMS``.
* its table of methods by frame (``_frame_dispatch_table``) is a circle: a connection that has ended is garbage which
  only a full collection finds, with the bytes it had just read  -> ``let_go`` empties it.
* ``repr(frame)`` is evaluated for every frame, for a log level that is off, and prints the whole body in
  hexadecimal: 3.8 ms per MiB  -> frames get the plain ``repr``.
"""

from __future__ import annotations

import struct

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, StreamReset
from h2.exceptions import InvalidBodyLengthError, ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamClosedBy, StreamState
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from casproxy.wire.events import RawHeaders
from casproxy.wire.hpack_decoder import LeanDecoder
from casproxy.wire.hpack_encoder import CappedEncoder

FRAME_HEADER = struct.Struct(">HBBBL")
_HEADERS, _END_HEADERS, _END_STREAM = 0x1, 0x4, 0x1
_SETTINGS = frozenset(map(int, SettingCodes))
_MALFORMED = ("Invalid content-length", "Conflicting content-length", "Trailers must have END_STREAM")
"""How h2's messages about one stream's headers begin; they have no class of their own."""

Frame.__repr__ = object.__repr__  # type: ignore[method-assign]


class H2(H2Connection):
    """An ``H2Connection`` with the habits above changed. ``resets_sent``: RST_STREAM frames queued so far."""

    MAX_CLOSED_STREAMS = 8192

    def __init__(self, *, client_side: bool) -> None:
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                # wire.headers checks every field itself and resets one stream, where h2 closes the connection
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.encoder = CappedEncoder()
        self.decoder = LeanDecoder()
        self.resets_sent = 0

    def let_go(self) -> None:
        """Nothing more is received."""
        self._frame_dispatch_table.clear()

    @property
    def open_inbound_streams(self) -> int:
        """Nothing: the limit is enforced by ``wire.protocol``."""
        return 0

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        self.resets_sent += sum(type(frame) is RstStreamFrame for frame in frames)
        super()._prepare_for_sending(frames)

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[Event]]:
        frame.settings = {code: value for code, value in frame.settings.items() if code in _SETTINGS}
        return super()._receive_settings_frame(frame)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        try:
            return super()._receive_headers_frame(frame)
        except ProtocolError as error:
            if not str(error).startswith(_MALFORMED):
                raise
            return [], [self._reset_malformed(frame.stream_id)]

    def receive_request(self, stream_id: int, fields: RawHeaders, *, ended: bool) -> list[Event]:
        """What ``receive_data`` does with the HEADERS of a new stream, from where their block is decoded."""
        try:
            stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
            return stream.receive_headers(fields, ended, None)[1]
        except ProtocolError as error:
            if str(error).startswith(_MALFORMED):
                return [self._reset_malformed(stream_id)]
            self.terminate(error.error_code)
            raise

    def _receive_data_frame(self, frame: DataFrame) -> tuple[list[Frame], list[Event]]:
        try:
            return super()._receive_data_frame(frame)
        except InvalidBodyLengthError:
            spent = DataReceived(stream_id=frame.stream_id)  # its bytes are dropped, and still cost credit
            spent.flow_controlled_length = frame.flow_controlled_length
            spent.data = b""
            return [], [spent, self._reset_malformed(frame.stream_id)]

    def _reset_malformed(self, stream_id: int) -> Event:
        self.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
        event = StreamReset(stream_id=stream_id)
        event.error_code = ErrorCodes.PROTOCOL_ERROR
        event.remote_reset = False
        return event

    def forget_stream(self, stream_id: int) -> None:
        """Drop a closed stream's state; keep how it was closed, for frames that are still under way."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            self._closed_streams[stream_id] = stream.closed_by

    def terminate(self, code: ErrorCodes) -> None:
        """Queue GOAWAY and close h2's state machine, as h2 itself does on a connection error."""
        self._terminate_connection(code)

    def queue(self, frame: Frame) -> None:
        """Queue a frame that h2 need not know of (GOAWAY)."""
        self._prepare_for_sending([frame])

    @property
    def has_queued(self) -> bool:
        """``data_to_send`` has something to give."""
        return bool(self._data_to_send)

    @property
    def over(self) -> bool:
        """The connection broke the protocol, or was ended: h2 sends no frame on it any more, and raises instead."""
        return self.state_machine.state is ConnectionState.CLOSED

    def data_header(self, stream_id: int, size: int) -> bytes:
        """The header of a DATA frame of ``size`` bytes, accounted; the caller has checked the capacity."""
        stream = self.streams[stream_id]
        self.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        return FRAME_HEADER.pack(size >> 8, size & 0xFF, 0, 0, stream_id)

    def send_ready(self, stream_id: int, block: bytes, *, end: bool) -> bool:
        """Queue a server's header block that was encoded in advance: the response's first, or trailers with ``end``.

        False, and nothing is done, where ``send_headers`` has to: a stream in any unusual state, or a change of the
        table's size that the next block must announce (RFC 7541, 4.2).
        """
        if self.state_machine.state is not ConnectionState.SERVER_OPEN or self.encoder.header_table.resized:
            return False
        stream = self.streams.get(stream_id)
        if stream is None:
            return False
        machine = stream.state_machine
        if machine.state is not StreamState.HALF_CLOSED_REMOTE and machine.state is not StreamState.OPEN:
            return False
        if end is not bool(machine.headers_sent) or machine.trailers_sent:
            return False
        if end:
            machine.trailers_sent = True
            if machine.state is StreamState.OPEN:
                machine.state = StreamState.HALF_CLOSED_LOCAL
            else:
                machine.state = StreamState.CLOSED
                machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
        else:
            machine.headers_sent = True
        size, flags = len(block), _END_HEADERS | _END_STREAM if end else _END_HEADERS
        self._data_to_send += FRAME_HEADER.pack(size >> 8, size & 0xFF, _HEADERS, flags, stream_id) + block
        return True
