"""An HTTP/2 peer that does exactly what a test says, frame by frame, valid or not. It shares no code with ours.

Built on hyperframe and hpack, not on h2, so that it can break rules and see each frame in its order. It acknowledges
SETTINGS and answers PINGs by itself and keeps the books of credit; everything else is the test's doing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS_TABLE = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.Test/Call"),
    (b":authority", b"test"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
INITIAL_WINDOW_SIZE = 4
Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame that arrived. ``text``: kind and what matters of it, e.g. ``HEADERS+ES``, ``DATA(17)``, ``RST(8)``."""

    stream_id: int
    text: str
    fields: tuple[tuple[bytes, bytes], ...] = ()
    data: bytes = b""


def message(payload: bytes, *, flags: int = 0) -> bytes:
    """A length-prefixed gRPC message."""
    return struct.pack(">BI", flags, len(payload)) + payload


def request_fields(*extra: tuple[bytes, bytes], **replaced: bytes | None) -> Fields:
    """The headers of a valid request. ``replaced``: pseudo-headers by name without colon; None leaves one out."""
    fields = [(name, replaced.get(name.decode().strip(":").replace("-", "_"), value)) for name, value in HEADERS_TABLE]
    return [(name, value) for name, value in fields if value is not None] + list(extra)


class RawPeer:
    """``output`` is what to hand to the other side; ``feed`` it the answer; ``seen`` is everything that came."""

    def __init__(self, *, client_side: bool = True, settings: dict[int, int] | None = None) -> None:
        self.output = bytearray(PREFACE if client_side else b"")
        self.seen: list[Seen] = []
        self.answers_pings = True
        self.window = 65_535
        """Bytes this peer may send on the connection."""
        self.windows: dict[int, int] = {}
        """The same per stream; 64 KiB - 1 until the other side's SETTINGS say otherwise."""
        self._initial_window = 65_535
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._block = b""
        self._raw = b""
        self._preface = b"" if client_side else PREFACE
        self._next_id = 1
        self.send(SettingsFrame(0, settings=settings or {}))

    # -- sending --------------------------------------------------------------------------------------

    def send(self, *frames: Frame) -> None:
        """Queue frames as they are."""
        for frame in frames:
            self.output += frame.serialize()

    def open(self, fields: Fields | None = None, *, end: bool = False) -> int:
        """Queue the headers of a request; returns the stream's id."""
        stream_id, self._next_id = self._next_id, self._next_id + 2
        self.headers(stream_id, request_fields() if fields is None else fields, end=end)
        return stream_id

    def headers(self, stream_id: int, fields: Fields, *, end: bool = False) -> None:
        """Queue one HEADERS frame."""
        frame = HeadersFrame(stream_id, data=self._encoder.encode(fields), flags=["END_HEADERS"])
        if end:
            frame.flags.add("END_STREAM")
        self.windows.setdefault(stream_id, self._initial_window)
        self.send(frame)

    def data(self, stream_id: int, data: bytes, *, end: bool = False, step: int = 16_384) -> None:
        """Queue DATA frames of at most ``step`` bytes and keep the books; more than the credit is the test's fault."""
        assert len(data) <= min(self.window, self.windows[stream_id]), "the test sends more than it may"
        self.window -= len(data)
        self.windows[stream_id] -= len(data)
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        for piece in pieces:
            self.send(DataFrame(stream_id, piece, flags=["END_STREAM"] if end and piece is pieces[-1] else []))

    def message(self, stream_id: int, payload: bytes, *, end: bool = False) -> None:
        """Queue one gRPC message."""
        self.data(stream_id, message(payload), end=end)

    def reset(self, stream_id: int, code: int = 8) -> None:
        """Queue RST_STREAM, CANCEL by default."""
        self.send(RstStreamFrame(stream_id, error_code=code))

    def credit(self, stream_id: int, increment: int) -> None:
        """Queue WINDOW_UPDATE."""
        self.send(WindowUpdateFrame(stream_id, window_increment=increment))

    def go_away(self, last_stream_id: int, code: int = 0) -> None:
        """Queue GOAWAY."""
        self.send(GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code))

    def may_send(self, stream_id: int) -> int:
        """Bytes of DATA the other side would take on this stream now."""
        return min(self.window, self.windows[stream_id])

    # -- receiving ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Record what arrived and answer what HTTP/2 wants answered at once."""
        self._raw += data
        if self._preface and len(self._raw) >= len(self._preface):
            assert self._raw.startswith(self._preface)
            self._raw, self._preface = self._raw[len(self._preface) :], b""
        while not self._preface and len(self._raw) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._raw[:9]))
            if len(self._raw) < 9 + length:
                return
            frame.parse_body(memoryview(self._raw[9 : 9 + length]))
            self._raw = self._raw[9 + length :]
            self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        stream_id = frame.stream_id
        match frame:
            case HeadersFrame() | ContinuationFrame():
                self._on_headers(frame)
            case DataFrame():
                self._see(frame, f"DATA({len(frame.data)})", data=bytes(frame.data))
            case RstStreamFrame():
                self._see(frame, f"RST({frame.error_code})")
            case WindowUpdateFrame():
                self._on_credit(stream_id, frame.window_increment)
                self._see(frame, f"CREDIT({frame.window_increment})")
            case SettingsFrame():
                self._on_settings(frame)
            case PingFrame():
                self._see(frame, "PONG" if "ACK" in frame.flags else "PING", data=bytes(frame.opaque_data))
                if "ACK" not in frame.flags and self.answers_pings:
                    self.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
            case GoAwayFrame():
                self._see(
                    frame, f"GOAWAY({frame.last_stream_id},{frame.error_code})", data=bytes(frame.additional_data)
                )
            case _:
                raise AssertionError(f"unexpected frame {type(frame).__name__}")

    def _on_headers(self, frame: HeadersFrame | ContinuationFrame) -> None:
        self._block += bytes(frame.data)
        if "END_HEADERS" in frame.flags:
            fields = tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(self._block, raw=True))
            self._block = b""
            self._see(frame, "HEADERS", fields=fields)

    def _on_credit(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self.window += increment
        elif stream_id in self.windows:
            self.windows[stream_id] += increment

    def _on_settings(self, frame: SettingsFrame) -> None:
        if "ACK" in frame.flags:
            return
        if INITIAL_WINDOW_SIZE in frame.settings:
            delta = frame.settings[INITIAL_WINDOW_SIZE] - self._initial_window
            self._initial_window += delta
            self.windows = {stream_id: window + delta for stream_id, window in self.windows.items()}
        self.send(SettingsFrame(0, flags=["ACK"]))

    def _see(self, frame: Frame, text: str, *, fields: tuple[tuple[bytes, bytes], ...] = (), data: bytes = b"") -> None:
        ended = "+ES" if "END_STREAM" in frame.flags else ""
        self.seen.append(Seen(frame.stream_id, text + ended, fields, data))

    # -- what tests ask -------------------------------------------------------------------------------

    def trace(self, stream_id: int, *, credit: bool = False) -> list[str]:
        """The frames that came on a stream (0: the connection), WINDOW_UPDATE left out unless ``credit``."""
        return [
            seen.text
            for seen in self.seen
            if seen.stream_id == stream_id and (credit or not seen.text.startswith("CREDIT"))
        ]

    def field(self, stream_id: int, name: bytes) -> bytes | None:
        """The last value of a header or trailer on a stream, None if it never came."""
        values = [
            value for seen in self.seen if seen.stream_id == stream_id for key, value in seen.fields if key == name
        ]
        return values[-1] if values else None

    def status(self, stream_id: int) -> int | None:
        """The ``grpc-status`` that came, None if none did."""
        raw = self.field(stream_id, b"grpc-status")
        return None if raw is None else int(raw)

    def body(self, stream_id: int) -> bytes:
        """The bytes of all DATA frames of a stream."""
        return b"".join(seen.data for seen in self.seen if seen.stream_id == stream_id and seen.text.startswith("DATA"))
