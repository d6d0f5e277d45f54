"""Random HTTP/2 frame sequences, valid and invalid, as a client would send them to a server."""

from __future__ import annotations

import random
import struct

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a/b"),
    (b":authority", b"x"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


def frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    """One frame, nothing checked."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream_id) + body


def block(*extra: tuple[bytes, bytes], request: bool = True, huffman: bool = True) -> bytes:
    """A header block that depends on no other: a fresh encoder per block."""
    encoded: bytes = Encoder().encode([*(_REQUEST if request else []), *extra], huffman)
    return encoded


REQUESTS = [
    block(),
    block((b"k-bin", b"abc")),
    block((b"k", b"v" * 3000), huffman=False),  # hpack takes a millisecond to decode Huffman's code of it
    block((b"content-length", b"5")),
    block((b"content-length", b"20000")),
]
TRAILERS = block((b"x-trailer", b"1"), request=False)
BODY = random.Random(7).randbytes(17_000)
_EVIL = [
    frame(9, 4, 1, b""),
    frame(1, 4, 2, block()),
    frame(1, 4, 1, block()),
    frame(1, 4, 0, block()),
    frame(1, 5, 0x7FFFFFF1, block(request=False)),
    frame(1, 4, 0x7FFFFFF3, b"\x88"),
    frame(1, 4, 0x7FFFFFF5, b"\xff\xff\xff\xff\xff\xff"),
    frame(1, 4 | 0x20, 0x7FFFFFF7, struct.pack(">IB", 0, 5) + block()),
    frame(7, 0, 0, struct.pack(">II", 0, 0)),
    frame(5, 4, 1, struct.pack(">I", 2)),
    frame(6, 0, 0, b"x"),
    frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    frame(1, 0, 99, b"") + frame(0, 0, 1, b"z"),
    frame(0, 0, 0, b"z"),
    frame(0, 8, 1, b"\xff" + bytes(10)),
]


class FrameSource:
    """A client's frames. ``evil``: the chance of each to break a rule."""

    def __init__(self, rnd: random.Random, evil: float) -> None:
        self._rnd = rnd
        self._evil = evil
        self._next_id = 1
        self._open: list[int] = []
        self._used: list[int] = []

    def step(self) -> list[bytes]:
        """One to three frames, or a burst of DATA."""
        rnd = self._rnd
        if rnd.random() < self._evil:
            return [rnd.choice(_EVIL)]
        kind = rnd.random()
        if kind < 0.15 or not self._used:
            return self._request()
        if kind < 0.70:
            return [self._data()]
        if kind < 0.75:
            return self._burst()
        if kind < 0.79:
            return [frame(3, 0, self._end(), struct.pack(">I", rnd.choice([0, 1, 7, 8])))]
        if kind < 0.83:
            return [frame(6, rnd.choice([0, 1]), 0, rnd.randbytes(8))]
        if kind < 0.88:
            increment = rnd.choice([1, 10, 65_535]) if rnd.random() > self._evil else rnd.choice([0, 2**31 - 1])
            return [frame(8, 0, rnd.choice([0, self._any()]), struct.pack(">I", increment))]
        if kind < 0.92:
            setting = struct.pack(">HI", rnd.choice([1, 3, 4, 5, 6, 0x99]), rnd.choice([16_384, 20_000, 65_535]))
            return [rnd.choice([frame(4, 0, 0, setting), frame(4, 1, 0)])]
        if kind < 0.95:
            return [frame(2, 0, self._any(), struct.pack(">IB", 0, 5))]
        if kind < 0.97:
            return [frame(rnd.choice([0x0A, 0x10, 0x55]), 0, rnd.choice([0, 1]), BODY[: rnd.choice([0, 3, 200])])]
        return self._headers(self._end(), TRAILERS, 1)

    def _any(self) -> int:
        rnd = self._rnd
        if self._open and rnd.random() > 0.1 + self._evil:
            return rnd.choice(self._open)
        return rnd.choice([*self._used[-6:], self._next_id, 2])

    def _end(self) -> int:
        stream_id = self._any()
        if stream_id in self._open:
            self._open.remove(stream_id)
        return stream_id

    def _request(self) -> list[bytes]:
        rnd = self._rnd
        stream_id = self._next_id
        self._next_id += 2 * rnd.choice([1, 1, 1, 2])
        self._used.append(stream_id)
        ends = rnd.random() < 0.1
        if not ends:
            self._open.append(stream_id)
        return self._headers(stream_id, rnd.choice(REQUESTS), int(ends))

    def _headers(self, stream_id: int, encoded: bytes, flags: int) -> list[bytes]:
        if self._rnd.random() > 0.2:
            odd = self._rnd.choice([0, 0, 0, 0, 0x10, 0x80])
            reserved = 0x8000_0000 if self._rnd.random() < 0.05 else 0
            return [frame(1, flags | 4 | odd, stream_id | reserved, encoded)]
        cut = self._rnd.randint(1, len(encoded) - 1)
        return [frame(1, flags, stream_id, encoded[:cut]), frame(9, 4, stream_id, encoded[cut:])]

    def _burst(self) -> list[bytes]:
        """DATA of one stream and nothing else, as an upload sends it; often more than its window."""
        rnd, stream_id = self._rnd, self._any()
        sizes = rnd.choice([[1, 9, 10], [100, 1000], [4096, 16_384], [16_384], [0, 1, 16_384]])
        return [frame(0, 0, stream_id, BODY[: rnd.choice(sizes)]) for _ in range(rnd.randint(2, 12))]

    def _data(self) -> bytes:
        rnd = self._rnd
        body = BODY[: rnd.choice([0, 0, 1, 5, 8, 9, 10, 100, 1000, 4096, 16_384])]
        flags = 0
        if rnd.random() < 0.1:
            flags, stream_id = 1, self._end()
        else:
            stream_id = self._any()
        if rnd.random() < 0.08:
            padding = rnd.randint(0, 255)
            flags |= 8
            body = bytes([padding]) + body[: 16_383 - padding] + bytes(padding)
        if rnd.random() < self._evil * 0.1:
            body = BODY[:16_385]
        if rnd.random() < 0.03:
            flags |= rnd.choice([2, 4, 0x10, 0x80])
        return frame(0, flags, stream_id | (0x8000_0000 if rnd.random() < 0.05 else 0), body)
