"""Owns the fast path for received DATA, in front of h2. Refuses to know what a stream is for.

h2 spends 9 to 40 µs on each DATA frame, most of it on copies and state that a gRPC body does not need. Here the
9-byte header is parsed directly, the body is passed on as views into the bytes that were read, as it arrives, and
h2 is kept as if it had seen the frame. Everything unusual goes to h2 unchanged, one whole frame at a time.

A DATA frame takes the fast path when all of this holds, and then does exactly what h2 would do:

    not padded, not inside a header block, the connection open
    stream known, OPEN or HALF_CLOSED_LOCAL, its headers received, its content-length (if announced) respected
    within both receive windows                       -> both ``current_window_size`` go down by the length
                                                         ``_actual_content_length`` goes up
    END_STREAM: OPEN -> HALF_CLOSED_REMOTE,
                HALF_CLOSED_LOCAL -> CLOSED (RECV_END_STREAM)

On one point it is better than h2 on purpose: DATA for a stream that we have reset is discarded (RFC 9113, 5.1), where
h2 answers every such frame with one more RST_STREAM.

Some limits belong here because h2 looks too late. A frame longer than allowed is refused from its header, a header
block is bounded in bytes and in CONTINUATION frames before h2 stores it, and any other frame that h2 must see whole
is bounded to what every peer may send (unknown ones are skipped): what is being gathered is on nobody's budget.

The headers that open a call take a fast path of their own, ``wire.opening``.

One ``feed`` does a bounded amount of work, so that a read full of expensive frames does not keep everybody else
waiting: while ``pending``, feed ``b""`` to go on.

``casproxy_tests/wire/test_inbound_fuzz.py`` compares all of this with h2 alone, on random frames split at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import h2.events
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.exceptions import FlowControlError, FrameTooLargeError, ProtocolError
from h2.stream import H2Stream, StreamClosedBy, StreamState

from casproxy.wire import events
from casproxy.wire.guard import TooMuch
from casproxy.wire.h2_seam import FRAME_HEADER, H2
from casproxy.wire.opening import END_HEADERS, END_STREAM, open_call, opens_call

DATA, HEADERS, PUSH_PROMISE, CONTINUATION = 0x0, 0x1, 0x5, 0x9
PADDED = 0x8
LARGEST_STREAM_ID = 0x7FFFFFFF
HEADER_SIZE = 9
PREFACE_SIZE = 24
LARGEST_WHOLE = 16 * 1024
"""Bytes of a frame, neither headers nor DATA on the fast path, that are gathered for h2: the default MAX_FRAME_SIZE."""
WORK_PER_FEED = 256
"""In units of about a microsecond; a block of headers made to be expensive takes longer."""
WORK_OF_H2 = 16
WORK_OF_HEADERS = 64
WORK_OF_OPENING = 24
"""For a call's headers on the fast path; each of their bytes is a quarter more: most of them are Huffman-coded."""

Received: TypeAlias = events.DataReceived | events.StreamEnded | events.HeadersReceived | h2.events.Event
OnFrame: TypeAlias = Callable[[int, int], None]
"""Told kind and flags of every frame that is not a DATA frame with a body: the place for rate limits."""


class FrameReader:
    """Received bytes to events, through h2 or past it. After an exception only ``h2.data_to_send`` is left."""

    def __init__(self, h2: H2, *, max_block: int, max_continuations: int) -> None:
        self._h2 = h2
        self._max_block = max_block
        self._max_continuations = max_continuations
        self._preface_left = 0 if h2.config.client_side else PREFACE_SIZE
        self._rest: memoryview | None = None  # fed, and left for the next feed
        self._head = b""  # a frame header that is not complete yet
        self._frame = bytearray()  # a frame for h2 that is not complete yet
        self._frame_left = 0
        self._skip_left = 0  # of an unknown frame that is not worth keeping
        self._body_left = 0  # of the DATA frame being passed on
        self._body_stream: H2Stream | None = None  # None: it is being discarded
        self._body_id = 0
        self._body_ends = False
        self._block_bytes = -1  # of the header block being received; -1 outside
        self._block_frames = 0

    @property
    def unfinished(self) -> bool:
        """What was fed ends inside a header block, or inside a frame that is not being passed on."""
        return bool(self._head or self._frame_left or self._skip_left or self._block_bytes >= 0)

    @property
    def pending(self) -> bool:
        """Not all that was fed has been looked at."""
        return self._rest is not None

    def feed(self, data: bytes | memoryview, on_frame: OnFrame) -> list[Received]:
        """What ``data`` means, or its next part; nothing new may be fed while ``pending``.

        Raises ``h2.exceptions.ProtocolError`` with h2's GOAWAY queued, or ``TooMuch`` without.
        """
        out: list[Received] = []
        if self._rest is not None:
            view, self._rest = self._rest, None
            pos = 0
        else:
            if self._head:
                data, self._head = self._head + data, b""
            view = memoryview(data)
            pos = self._finish_pending(view, out)
        work = 0
        end = len(view)
        while pos < end:
            if end - pos < HEADER_SIZE:
                self._head = bytes(view[pos:])
                break
            if work >= WORK_PER_FEED:
                self._rest = view[pos:]
                break
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(view, pos)
            length = high << 8 | low
            stream_id &= LARGEST_STREAM_ID  # without the reserved bit
            if length > self._h2.max_inbound_frame_size:
                self._fail(FrameTooLargeError(f"frame of {length} bytes"), ErrorCodes.FRAME_SIZE_ERROR)
            if kind == DATA and length and self._begin_body(stream_id, flags, length):
                pos = self._pass_on(view, pos + HEADER_SIZE, out)
                work += 1
                if self._body_stream is not None and not self._body_left and not flags:
                    pos, frames = self._pass_on_more(self._body_stream, view, pos, out, WORK_PER_FEED - work)
                    work += frames
                continue
            on_frame(kind, flags)
            inside_block = self._block_bytes >= 0
            bounded = self._bound_header_block(kind, flags, length)
            if length > LARGEST_WHOLE and not bounded:
                pos = self._skip(view, pos + HEADER_SIZE, kind, length)
            elif (
                kind == HEADERS
                and not inside_block
                and HEADER_SIZE + length <= end - pos
                and opens_call(self._h2, stream_id, flags)
            ):
                pos += HEADER_SIZE + length
                self._open_call(stream_id, flags, bytes(view[pos - length : pos]), out)
                work += WORK_OF_OPENING + length // 4
                continue
            else:
                pos = self._hand_to_h2(view, pos, HEADER_SIZE + length, out)
            work += WORK_OF_HEADERS if kind == HEADERS else WORK_OF_H2
        _release_read_buffer(out)
        return out

    def _fail(self, error: ProtocolError, code: ErrorCodes) -> None:
        self._h2.terminate(code)
        raise error

    def _finish_pending(self, view: memoryview, out: list[Received]) -> int:
        """Go on with what the last ``feed`` left unfinished; returns how many bytes that took."""
        if self._preface_left:
            taken = min(self._preface_left, len(view))
            self._preface_left -= taken
            out += self._h2.receive_data(view[:taken])
            return taken
        if self._body_left:
            return self._pass_on(view, 0, out)
        if self._skip_left:
            taken = min(self._skip_left, len(view))
            self._skip_left -= taken
            return taken
        if self._frame_left:
            taken = min(self._frame_left, len(view))
            self._frame += view[:taken]
            self._frame_left -= taken
            if not self._frame_left:
                frame, self._frame = self._frame, bytearray()
                out += self._h2.receive_data(frame)
            return taken
        return 0

    def _hand_to_h2(self, view: memoryview, pos: int, size: int, out: list[Received]) -> int:
        end = pos + size
        if end > len(view):
            self._frame = bytearray(view[pos:])
            self._frame_left = end - len(view)
            return len(view)
        out += self._h2.receive_data(view[pos:end])
        return end

    def _open_call(self, stream_id: int, flags: int, block: bytes, out: list[Received]) -> None:
        opened = open_call(self._h2, stream_id, block, ended=bool(flags & END_STREAM))
        if isinstance(opened, events.HeadersReceived):
            out.append(opened)
            if opened.ended:
                out.append(events.StreamEnded(stream_id))
        else:
            out += opened

    def _skip(self, view: memoryview, pos: int, kind: int, length: int) -> int:
        """Pass by an unknown frame too long to keep (RFC 9113, 4.1); a known one of that length is an error.

        For DATA it means that the fast path did not want it: padded, which nobody does at that length, or too much.
        """
        if kind == DATA and length > self._h2._inbound_flow_control_window_manager.current_window_size:
            self._fail(FlowControlError(f"DATA of {length} bytes"), ErrorCodes.FLOW_CONTROL_ERROR)
        if kind <= CONTINUATION or self._block_bytes >= 0:
            self._fail(FrameTooLargeError(f"frame of {length} bytes"), ErrorCodes.FRAME_SIZE_ERROR)
        taken = min(length, len(view) - pos)
        self._skip_left = length - taken
        return pos + taken

    def _begin_body(self, stream_id: int, flags: int, length: int) -> bool:
        """Account for a DATA frame as h2 would, if this path may take it; False: h2 must see it."""
        h2 = self._h2
        if flags & PADDED or self._block_bytes >= 0 or not _is_open(h2.state_machine.state):
            return False
        connection_window = h2._inbound_flow_control_window_manager
        if length > connection_window.current_window_size:
            return False
        stream = h2.streams.get(stream_id)
        if stream is None or stream.state_machine.state is StreamState.CLOSED:
            if h2._stream_closed_by(stream_id) is not StreamClosedBy.SEND_RST_STREAM:
                return False
            stream = None
        else:
            state = stream.state_machine
            window = stream._inbound_window_manager
            if (
                (state.state is not StreamState.OPEN and state.state is not StreamState.HALF_CLOSED_LOCAL)
                or not state.headers_received
                or length > window.current_window_size
                or _breaks_content_length(stream, length, ends=bool(flags & END_STREAM))
            ):
                return False
            window.current_window_size -= length
            stream._actual_content_length += length
        connection_window.current_window_size -= length
        self._body_stream = stream
        self._body_id = stream_id
        self._body_left = length
        self._body_ends = bool(flags & END_STREAM)
        return True

    def _pass_on(self, view: memoryview, pos: int, out: list[Received]) -> int:
        """Pass on what is here of the current body; returns the position behind it."""
        end = min(pos + self._body_left, len(view))
        taken = end - pos
        self._body_left -= taken
        stream_id = self._body_id
        if taken:
            last = out[-1] if out else None
            if type(last) is events.DataReceived and last.stream_id == stream_id:
                last.chunks.append(view[pos:end])
                last.credit += taken
            else:
                out.append(events.DataReceived(stream_id, [view[pos:end]], taken))
        if self._body_ends and not self._body_left and self._body_stream is not None:
            self._end_stream(self._body_stream, out)
        return end

    def _pass_on_more(
        self, stream: H2Stream, view: memoryview, pos: int, out: list[Received], most: int
    ) -> tuple[int, int]:
        """Pass on the frames behind one of ``stream`` that are whole and like it, in a third of the time each.

        What ``_begin_body`` has found does not change in between; the windows are asked about all of them together.
        Returns the position behind the last, and how many there were, at most ``most``.
        """
        event = out[-1]
        if type(event) is not events.DataReceived or stream._expected_content_length is not None:
            return pos, 0
        windows = stream._inbound_window_manager, self._h2._inbound_flow_control_window_manager
        credit = min(windows[0].current_window_size, windows[1].current_window_size)
        longest, end, frames, passed = self._h2.max_inbound_frame_size, len(view), 0, 0
        while frames < most and pos + HEADER_SIZE < end:
            high, low, kind, flags, stream_id = FRAME_HEADER.unpack_from(view, pos)
            length = high << 8 | low
            begin = pos + HEADER_SIZE
            stop = begin + length
            if kind or flags or stream_id != stream.stream_id or not 0 < length <= longest or stop > end:
                break  # DATA is kind 0
            if passed + length > credit:
                break
            event.chunks.append(view[begin:stop])
            passed += length
            frames += 1
            pos = stop
        event.credit += passed
        stream._actual_content_length += passed
        for window in windows:
            window.current_window_size -= passed
        return pos, frames

    def _end_stream(self, stream: H2Stream, out: list[Received]) -> None:
        """The transitions of END_STREAM; none if we reset the stream while its last frame was arriving."""
        state = stream.state_machine
        if state.state is StreamState.OPEN:
            state.state = StreamState.HALF_CLOSED_REMOTE
        elif state.state is StreamState.HALF_CLOSED_LOCAL:
            state.stream_closed_by = StreamClosedBy.RECV_END_STREAM
            state.state = StreamState.CLOSED
        else:
            return
        out.append(events.StreamEnded(stream.stream_id))

    def _bound_header_block(self, kind: int, flags: int, length: int) -> bool:
        """Whether the frame is part of a header block, which may not grow past its limits."""
        if kind == CONTINUATION and self._block_bytes >= 0:
            self._block_frames += 1
            self._block_bytes += length
        elif kind in (HEADERS, PUSH_PROMISE):
            self._block_frames = 0
            self._block_bytes = length
        else:
            return False
        if self._block_bytes > self._max_block or self._block_frames > self._max_continuations:
            raise TooMuch("header_block", "header block too large")
        if flags & END_HEADERS:
            self._block_bytes = -1
        return True


def _is_open(state: ConnectionState) -> bool:
    return state is ConnectionState.SERVER_OPEN or state is ConnectionState.CLIENT_OPEN


def _breaks_content_length(stream: H2Stream, length: int, *, ends: bool) -> bool:
    expected = stream._expected_content_length
    if expected is None:
        return False
    received = stream._actual_content_length + length
    return received > expected or (ends and received != expected)


def _release_read_buffer(out: list[Received]) -> None:
    """Copy what is a small part of the read buffer, so that a stalled stream pins at most twice the bytes it holds."""
    for event in out:
        if type(event) is events.DataReceived:
            first = event.chunks[0]
            if isinstance(first, memoryview) and event.credit * 2 < memoryview(first.obj).nbytes:
                event.chunks = [b"".join(event.chunks)]
