"""A gRPC client that costs next to nothing: frames made in advance, blocking sockets, only what the bench asks.

It sends 16 KiB frames as Go's clients do, keeps many small calls in flight on one connection, and opens streams that
then say nothing more. What it is told is checked as far as that is cheap: status, sizes, equal answers.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence

import hpack

FRAME_SIZE = 16 * 1024
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_WINDOW = 2**31 - 1
DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class ServerSaidNo(Exception):
    """The server ended something otherwise than the bench expects."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream_id) + payload


def grpc_message(body: bytes) -> bytes:
    """A message with its five-byte prefix."""
    return b"\0" + struct.pack(">I", len(body)) + body


class RawConnection:
    """One h2c connection. Not for threads. ``stream_credit``: bytes that the server may send on each call unasked."""

    def __init__(self, host: str, port: int, path: str, token: str, *, stream_credit: int = _LARGEST_WINDOW) -> None:
        self._socket = socket.create_connection((host, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._request = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", f"{host}:{port}"),
            ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "raw/1"),
            ("authorization", f"Bearer {token}"),
        ]  # fmt: skip
        self._next_id = 1
        self._unread = b""
        self.window = 65535
        self.initial_window = 65535
        self.max_streams = 2**31
        self.stream_window: dict[int, int] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        settings = struct.pack(">HIHI", 2, 0, 4, stream_credit)
        update = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - 65535))
        self._socket.sendall(_PREFACE + frame(SETTINGS, 0, 0, settings) + update)
        while not any(kind == SETTINGS and not flags & ACK for kind, flags, _, _ in self.receive()):
            self.frames.clear()
        self.frames.clear()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def open_stream(self) -> tuple[int, bytes]:
        """A new stream's id and its HEADERS, to be sent."""
        stream_id = self._next_id
        self._next_id += 2
        self.stream_window[stream_id] = self.initial_window
        return stream_id, frame(HEADERS, END_HEADERS, stream_id, self._encoder.encode(self._request))

    def send(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def quiet_after(self, seconds: float) -> bool:
        """Wait for bytes; True when none came in time."""
        return not select.select([self._socket], [], [], seconds)[0]

    def receive(self) -> list[tuple[int, int, int, bytes]]:
        """Wait for frames: kind, flags, stream, payload. Credit and pings are dealt with here."""
        data = self._socket.recv(1 << 18)
        if not data:
            raise ServerSaidNo("the server closed the connection")
        data = self._unread + data if self._unread else data
        at, end, frames = 0, len(data), self.frames
        frames.clear()
        while end - at >= 9:
            size = int.from_bytes(data[at : at + 3], "big")
            if end - at < 9 + size:
                break
            kind, stream_id = data[at + 3], int.from_bytes(data[at + 5 : at + 9], "big")
            payload = data[at + 9 : at + 9 + size]
            if kind in (SETTINGS, PING, WINDOW_UPDATE, GO_AWAY):
                self._control(kind, data[at + 4], stream_id, payload)
            frames.append((kind, data[at + 4], stream_id, payload))
            at += 9 + size
        self._unread = data[at:]
        return frames

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == GO_AWAY:
            raise ServerSaidNo(f"GOAWAY {payload!r}")
        if kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            credit = int.from_bytes(payload, "big")
            if stream_id:
                self.stream_window[stream_id] = self.stream_window.get(stream_id, 0) + credit
            else:
                self.window += credit
        elif kind == SETTINGS and not flags & ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == 3:
                    self.max_streams = value
                elif key == 4:
                    for known in self.stream_window:
                        self.stream_window[known] += value - self.initial_window
                    self.initial_window = value
            self.send(frame(SETTINGS, ACK, 0))

    def check_status(self, block: bytes) -> None:
        """The trailers must say OK. Only for connections whose every header block is decoded."""
        status = dict(self._decoder.decode(block, raw=True))
        if status.get(b"grpc-status", b"0") != b"0":
            raise ServerSaidNo(f"status {status[b'grpc-status']!r}: {status.get(b'grpc-message')!r}")


def unary_rate(connection: RawConnection, body: bytes, seconds: float, outstanding: int) -> float:
    """Calls per second with ``outstanding`` in flight; every answer must carry the bytes of the first."""
    message, first, flying, done = grpc_message(body), b"", 0, 0
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds or flying:
        batch = []
        while flying < outstanding and now < began + seconds and connection.window >= len(message):
            stream_id, headers = connection.open_stream()
            batch.append(headers + frame(DATA, END_STREAM, stream_id, message))
            connection.window -= len(message)
            flying += 1
        if batch:
            connection.send(b"".join(batch))
        for kind, flags, stream_id, payload in connection.receive():
            if kind == DATA:
                first = first or payload
                if payload != first:
                    raise ServerSaidNo("two equal calls had different answers")
            elif kind == RESET:
                if int.from_bytes(payload, "big"):
                    raise ServerSaidNo(f"stream reset with {payload!r}")
            elif kind == HEADERS:
                connection.check_status(payload)
                if flags & END_STREAM:
                    flying -= 1
                    done += 1
                    connection.stream_window.pop(stream_id, None)
    if not first:
        raise ServerSaidNo("no call was answered with a message")
    return done / (time.perf_counter() - began)


def upload(connection: RawConnection, messages: Sequence[bytes | tuple[bytes, int]]) -> None:
    """One upload in 16 KiB frames; a message may come as (bytes, how often it is repeated)."""
    stream_id, headers = connection.open_stream()
    connection.send(headers)
    for entry in messages:
        body, times = entry if isinstance(entry, tuple) else (entry, 1)
        data = grpc_message(body)
        sizes = [min(FRAME_SIZE, len(data) - start) for start in range(0, len(data), FRAME_SIZE)]
        framed = memoryview(
            b"".join(frame(DATA, 0, stream_id, data[i * FRAME_SIZE :][: sizes[i]]) for i in range(len(sizes)))
        )
        for _ in range(times):
            _send_framed(connection, stream_id, framed, sizes)
    connection.send(frame(DATA, END_STREAM, stream_id))
    _finish(connection, stream_id)


def _send_framed(connection: RawConnection, stream_id: int, framed: memoryview, sizes: list[int]) -> None:
    """Send frames as credit allows, as many at once as it does."""
    index = at = 0
    while index < len(sizes):
        credit = min(connection.window, connection.stream_window[stream_id])
        start, taken = at, 0
        while index < len(sizes) and taken + sizes[index] <= credit:
            taken += sizes[index]
            at += 9 + sizes[index]
            index += 1
        if taken:
            connection.window -= taken
            connection.stream_window[stream_id] -= taken
            connection.send(framed[start:at])
        else:
            for kind, _, _, payload in connection.receive():
                if kind in (HEADERS, RESET):
                    raise ServerSaidNo(f"the upload was ended early: {payload!r}")


def _finish(connection: RawConnection, stream_id: int) -> int:
    """Read to the end of the stream; returns the bytes of DATA."""
    size = 0
    while True:
        for kind, flags, number, payload in connection.receive():
            if number != stream_id:
                continue
            if kind == RESET:
                raise ServerSaidNo(f"stream reset with {payload!r}")
            size += len(payload) if kind == DATA else 0
            if kind == HEADERS:
                connection.check_status(payload)
            if flags & END_STREAM and kind in (DATA, HEADERS):
                connection.stream_window.pop(stream_id, None)
                return size


def download(connection: RawConnection, request: bytes) -> int:
    """One server-streaming call, at most 2 GiB on a connection; returns the bytes of DATA."""
    stream_id, headers = connection.open_stream()
    connection.send(headers + frame(DATA, END_STREAM, stream_id, grpc_message(request)))
    return _finish(connection, stream_id)


def open_silent(connection: RawConnection, bodies: Sequence[bytes]) -> None:
    """Open a stream for each body and send that one message, nothing for an empty one; then say nothing more."""
    batch = []
    for body in bodies:
        stream_id, headers = connection.open_stream()
        batch.append(headers + (frame(DATA, 0, stream_id, grpc_message(body)) if body else b""))
    connection.send(b"".join(batch))
