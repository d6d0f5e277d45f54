"""Owns one HTTP/2 connection, sans-io: bytes in, events out; intents in, bytes out. Refuses to know clocks and tasks.

The time it needs (for rates) is passed in.

Both ends use it. The shell feeds ``receive``, dispatches the events, calls the intents below, and writes what
``take_output`` returns; nothing here waits. Receive credit is accounted by ``wire.flow``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamState
from hyperframe.frame import GoAwayFrame

from casproxy.wire import events
from casproxy.wire.answer import answer
from casproxy.wire.budget import Budget
from casproxy.wire.errors import ConnectionBroken
from casproxy.wire.events import Event, RawHeaders
from casproxy.wire.flow import ReceiveCredit
from casproxy.wire.framing import Buffer
from casproxy.wire.guard import HEADERS_VALUE, AbuseLimits, Guard, TooMuch
from casproxy.wire.h2_seam import H2
from casproxy.wire.inbound import FrameReader, Received
from casproxy.wire.outbound import data_frames
from casproxy.wire.ready_headers import ReadyHeaders

MANY_STREAMS = 250
_LIMITS: dict[type[ProtocolError], str] = {FrameTooLargeError: "frame_size"}
"""Limits that h2 has an error for."""


@dataclass(frozen=True, slots=True)
class WireSettings:
    """What one end advertises and allows. Sizes in bytes."""

    initial_window: int = 64 * 1024
    largest_window: int = 4 * 1024 * 1024
    connection_window: int = 16 * 1024 * 1024
    max_concurrent_streams: int = 1000
    max_header_list: int = 32 * 1024
    max_header_block: int = 32 * 1024
    max_continuations: int = 8
    max_frame: int = 1024 * 1024
    abuse: AbuseLimits = field(default_factory=AbuseLimits)


class Protocol:
    """One end of a connection. ``output_size``: bytes queued and not yet taken."""

    def __init__(self, *, client_side: bool, settings: WireSettings, budget: Budget) -> None:
        self._settings = settings
        self._h2 = H2(client_side=client_side)
        self._reader = FrameReader(
            self._h2, max_block=settings.max_header_block, max_continuations=settings.max_continuations
        )
        self._client_side = client_side
        self._guard = Guard(settings.abuse)
        self._now = 0.0
        self._greeted = False
        self._credited: dict[int, None] = {}  # streams with new credit, in order, each once however often it came
        self._credit = ReceiveCredit(
            budget,
            initial=settings.initial_window,
            largest=settings.largest_window,
            largest_connection=settings.connection_window,
        )
        self._output: list[Buffer] = []
        self.output_size = 0
        self._unwritten = self._being_written = 0  # of the DATA that was queued, and that was taken
        self._greet()

    def _greet(self) -> None:
        settings, h2 = self._settings, self._h2
        h2.local_settings.update(
            {
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: settings.initial_window,
                SettingCodes.MAX_CONCURRENT_STREAMS: settings.max_concurrent_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: settings.max_header_list,
                SettingCodes.MAX_FRAME_SIZE: settings.max_frame,
            }
        )
        # Applied at once, not at the peer's ACK: more permissive never hurts, and stricter header limits protect
        # us from the first byte on. The peer cannot have sent DATA beyond the default before it sees the frame.
        h2._local_settings_acked()
        h2.initiate_connection()

    # -- bytes in, events out ---------------------------------------------------------------------

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        """What ``data`` means; ``now`` in seconds on a clock that does not jump. While ``pending``, pass ``b""``.

        Raises ``ConnectionBroken``, with a GOAWAY queued; only ``take_output`` is left then.
        """
        self._now = now
        out: list[Event] = []
        resets = self._h2.resets_sent
        try:
            received = self._reader.feed(data, self._on_frame)
            for _ in range(self._h2.resets_sent - resets):  # made to reset: as cheap for the peer as resetting
                self._guard.reset(now)
            for event in received:
                if type(event) is events.DataReceived:
                    self._on_data(event, out)
                elif type(event) is events.StreamEnded:
                    self._on_end(event, out)
                elif type(event) is events.HeadersReceived:
                    self._on_headers(event, out)
                else:
                    self._translate(event, out)
        except ProtocolError as error:
            raise ConnectionBroken(int(error.error_code), str(error), limit=_LIMITS.get(type(error), "")) from error
        except TooMuch as error:
            raise self._enough(error) from error
        out += map(events.CreditReceived, self._credited)
        self._credited.clear()
        self._credit_connection()
        return out

    def _on_frame(self, kind: int, flags: int) -> None:
        self._guard.frame(kind, flags, self._now, streams=len(self._credit))

    def _enough(self, error: TooMuch) -> ConnectionBroken:
        self.go_away(self.last_peer_stream, ErrorCodes.ENHANCE_YOUR_CALM, error.text.encode())
        return ConnectionBroken(ErrorCodes.ENHANCE_YOUR_CALM, error.text, limit=error.limit)

    @property
    def pending(self) -> bool:
        """Part of what was received has not been looked at, so that others get a turn."""
        return self._reader.pending

    @property
    def greeted(self) -> bool:
        """The peer's SETTINGS have arrived."""
        return self._greeted

    @property
    def unfinished(self) -> bool:
        """What has arrived ends inside a header block, or inside a frame other than DATA."""
        return self._reader.unfinished

    @property
    def noisy(self) -> bool:
        """The peer sends much that means nothing, or opens very many calls: let others run first."""
        return self._guard.noisy or len(self._credit) > MANY_STREAMS

    @property
    def congested(self) -> bool:
        """The peer makes us answer faster than it reads: stop receiving until ``written``."""
        return self._guard.congested

    def _translate(self, event: Received, out: list[Event]) -> None:
        match event:
            case h2.events.DataReceived(stream_id=stream_id, data=data, flow_controlled_length=credit):
                self._on_data(events.DataReceived(stream_id, [data], credit), out)
            case h2.events.RequestReceived(stream_id=stream_id) | h2.events.ResponseReceived(stream_id=stream_id):
                # h2 sends StreamEnded as an event of its own behind this one
                ended = event.stream_ended is not None
                self._on_headers(events.HeadersReceived(stream_id, list(event.headers), ended), out)
            case h2.events.TrailersReceived(stream_id=stream_id, headers=headers):
                out.append(events.TrailersReceived(stream_id, list(headers)))
            case h2.events.StreamEnded(stream_id=stream_id):
                self._on_end(events.StreamEnded(stream_id), out)
            case h2.events.StreamReset(stream_id=stream_id, error_code=code, remote_reset=remote):
                out.append(events.StreamReset(stream_id, int(code), by_peer=remote))
            case h2.events.WindowUpdated(stream_id=stream_id):
                self._credited[stream_id] = None
            case h2.events.RemoteSettingsChanged():
                self._greeted = True
                out.append(events.SettingsReceived())
            case h2.events.PingAckReceived(ping_data=payload):
                out.append(events.PingAcked(payload))
            case h2.events.ConnectionTerminated(last_stream_id=last, error_code=code, additional_data=text):
                out.append(events.GoAwayReceived(last or 0, int(code or 0), text or b""))
            case _:
                pass  # PING and SETTINGS are answered by h2; PRIORITY and unknown frames mean nothing here

    def _on_data(self, event: events.DataReceived, out: list[Event]) -> None:
        if self._credit.received(event.stream_id, event.credit):
            out.append(event)

    def _on_end(self, event: events.StreamEnded, out: list[Event]) -> None:
        self._credit.peer_ended(event.stream_id)
        out.append(event)

    def _on_headers(self, event: events.HeadersReceived, out: list[Event]) -> None:
        stream_id = event.stream_id
        if not self._client_side and (limit := self._admit(stream_id)):
            self._guard.glitch(self._now)
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)  # unless the peer has reset it in the same read
            self._h2.forget_stream(stream_id)
            out.append(events.LimitReached(limit))
        else:
            out.append(event)

    def _admit(self, stream_id: int) -> str:
        """Open the peer's stream; the name of the limit when there is no room."""
        if len(self._credit) >= self._settings.max_concurrent_streams:
            return "concurrent_streams"
        return "" if self._credit.open_stream(stream_id) else "memory_budget"

    # -- credit -----------------------------------------------------------------------------------

    def hand_on(self, stream_id: int, size: int) -> None:
        """``size`` received bytes of this stream are no longer held by it."""
        if not size:
            return
        credit = self._credit.hand_on(stream_id, size)
        if credit and self._is_open(stream_id):
            self._h2.increment_flow_control_window(credit, stream_id)
        self._credit_connection()

    def charge_to(self, payer: Hashable) -> None:
        """What this connection exposes is ``payer``'s, unless others use it too."""
        self._credit.charge_to(payer)

    @property
    def held(self) -> int:
        """Received bytes whose credit has not gone back: nobody has taken them yet, or not all the way."""
        return self._credit.held

    def starved(self, stream_id: int) -> bool:
        """The peer has no credit left to send one byte on this stream."""
        return self._credit.starved(stream_id)

    def close_stream(self, stream_id: int) -> None:
        """Nobody will read this stream any more: credit its unread bytes and forget it. Idempotent."""
        if self._credit.close_stream(stream_id):
            self._credit_connection()
            self._h2.forget_stream(stream_id)

    def _is_open(self, stream_id: int) -> bool:
        stream = self._h2.streams.get(stream_id)
        return stream is not None and not stream.closed and not self._h2.over

    def _credit_connection(self) -> None:
        credit = self._credit.connection_credit()
        if credit and not self._h2.over:
            self._h2.increment_flow_control_window(credit)

    # -- intents in -------------------------------------------------------------------------------

    @property
    def may_open(self) -> bool:
        """The peer's limit on concurrent streams allows one more (client)."""
        return len(self._credit) < self._h2.remote_settings.max_concurrent_streams

    def start_request(self, headers: RawHeaders) -> int:
        """Open a stream (client); returns its id.

        Raises ``ConnectionBroken`` when the ids are used up or this process may hold no more bytes.
        """
        try:
            stream_id = self._h2.get_next_available_stream_id()
        except ProtocolError as error:
            raise ConnectionBroken(0, "no stream ids left on this connection") from error
        if not self._credit.open_stream(stream_id):
            raise ConnectionBroken(0, "the memory budget of this client is used up")
        self._h2.send_headers(stream_id, headers)
        return stream_id

    def send_headers(self, stream_id: int, headers: RawHeaders, *, end: bool = False) -> None:
        """Queue headers or trailers; nothing if the stream is closed, which the same read may have brought."""
        if not self.can_send(stream_id):
            return
        self._guard.sent_content()
        if type(headers) is not ReadyHeaders or not self._h2.send_ready(stream_id, headers.block, end=end):
            self._h2.send_headers(stream_id, headers, end_stream=end)

    def send_answer(
        self, stream_id: int, headers: ReadyHeaders, message: Sequence[Buffer], size: int, trailers: ReadyHeaders
    ) -> bool:
        """Queue a whole answer (``wire.answer``), its message copied; False, and nothing is done, where it cannot."""
        queued = answer(self._h2, stream_id, headers, message, size, trailers)
        if queued is None:
            return False
        self._collect()
        self._guard.sent_content(size + 2 * HEADERS_VALUE)
        self._output.append(queued)
        self.output_size += len(queued)
        self._credit.queued(size)
        self._unwritten += size
        return True

    def end_stream(self, stream_id: int) -> None:
        """Queue a half-close, unless the stream is closed already."""
        if self.can_send(stream_id):
            self._h2.end_stream(stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        """Queue RST_STREAM, unless the stream is closed already."""
        if self._is_open(stream_id):
            self._h2.reset_stream(stream_id, code)

    def reset_malformed(self, stream_id: int) -> None:
        """Reset a stream whose headers break the rules; between ``receive`` and the next.

        Raises ``ConnectionBroken`` when the peer has made us reset too many.
        """
        self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        try:
            self._guard.reset(self._now)
        except TooMuch as error:
            raise self._enough(error) from error

    def can_send(self, stream_id: int) -> bool:
        """The stream is open and this side has not ended it."""
        stream = self._h2.streams.get(stream_id)
        if stream is None or self._h2.over:
            return False
        state = stream.state_machine.state
        return state is not StreamState.CLOSED and state is not StreamState.HALF_CLOSED_LOCAL

    def peer_ended(self, stream_id: int) -> bool:
        """The peer's side of the stream is closed."""
        stream = self._h2.streams.get(stream_id)
        return stream is None or stream.closed or stream.state_machine.state is StreamState.HALF_CLOSED_REMOTE

    def capacity(self, stream_id: int) -> int:
        """The most bytes of DATA that the peer takes on this stream now; 0 or less: wait for credit."""
        return min(self.connection_capacity, self._h2.streams[stream_id].outbound_flow_control_window)

    @property
    def frame_size(self) -> int:
        """The most bytes one DATA frame may carry to the peer."""
        return self._h2.max_outbound_frame_size

    @property
    def connection_capacity(self) -> int:
        """The bytes of DATA that the peer takes on the connection as a whole; 0 or less: wait for credit."""
        return self._h2.outbound_flow_control_window

    @property
    def output_room(self) -> int:
        """Bytes that may be queued now before senders wait; 64 KiB when the budget has no more."""
        return self._credit.may_queue - self.output_size

    def send_data(self, stream_id: int, buffers: Sequence[Buffer], size: int) -> None:
        """Queue ``size`` bytes as DATA frames, the buffers joined; they are not copied. ``size`` <= ``capacity``."""
        self._collect()
        self._guard.sent_content(size)
        frames, framed_size = data_frames(self._h2, stream_id, buffers, size)
        self._output += frames
        self.output_size += framed_size
        self._credit.queued(size)
        self._unwritten += size

    def ping(self, data: bytes) -> None:
        """Queue a PING of eight bytes."""
        self._h2.ping(data)

    def go_away(self, last_stream_id: int, code: int = 0, text: bytes = b"") -> None:
        """Queue GOAWAY; unlike h2's own, streams go on afterwards."""
        self._h2.queue(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code, additional_data=text))

    @property
    def last_peer_stream(self) -> int:
        """The highest stream id the peer has opened."""
        return self._h2.highest_inbound_stream_id

    # -- bytes out --------------------------------------------------------------------------------

    def _collect(self) -> None:
        queued = self._h2.data_to_send()
        if queued:
            self._output.append(queued)
            self.output_size += len(queued)

    @property
    def has_output(self) -> bool:
        """``take_output`` has something to give."""
        return bool(self._output) or self._h2.has_queued

    def take_output(self) -> list[Buffer]:
        """Everything queued, in order, as buffers to be written together; they belong to the caller."""
        self._collect()
        output, self._output = self._output, []
        self.output_size = 0
        self._being_written, self._unwritten = self._unwritten, 0
        self._guard.taken()
        return output

    def written(self) -> None:
        """What ``take_output`` returned last has reached the peer's side of the transport."""
        self._guard.written()
        self._credit.queued(-self._being_written)
        self._being_written = 0

    def close(self) -> None:
        """The connection is gone and nothing more is received: return what it held to the budget."""
        self._h2.let_go()
        self._credit.close()
        self._unwritten = self._being_written = 0
