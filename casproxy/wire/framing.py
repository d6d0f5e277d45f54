"""Owns the length-prefixed message stream inside DATA frames. Refuses to know streams, windows and protobuf.

Each message is 1 byte of flags (bit 0: compressed), 4 bytes of big-endian length, and the payload
(gRPC PROTOCOL-HTTP2.md, "Length-Prefixed-Message"). Decoding yields parts as they arrive, so memory does not depend on
the size of a message; a length over the limit is refused from the five bytes alone.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from casproxy.wire.errors import BrokenMessage
from casproxy.wire.status import StatusCode

Buffer: TypeAlias = bytes | bytearray | memoryview

PREFIX = struct.Struct(">BI")
GZIP_WBITS = 16 + zlib.MAX_WBITS
INFLATE_STEP = 256 * 1024
CRUMB = 512
CRUMBS_JOINED = 4096
_NOTHING: Final[deque[bytes | memoryview]] = deque(maxlen=0)
"""The queue of every stream that has none: an empty one of its own would take 760 bytes."""


@dataclass(frozen=True, slots=True)
class MessageStart:
    """A message begins.

    ``size``: its length in bytes as it travels; ``compressed``: the size after inflating is not known yet.
    """

    size: int
    compressed: bool = False


class MessageEnd(enum.Enum):
    """A message is complete."""

    MESSAGE_END = enum.auto()


MESSAGE_END = MessageEnd.MESSAGE_END
Part: TypeAlias = MessageStart | MessageEnd | bytes | memoryview


class MessageDecoder:
    """Turns DATA payloads, split anywhere, into parts. ``push`` what arrived, ``pull`` what it means."""

    __slots__ = ("_gzip", "_head", "_inflated", "_inflater", "_left", "_max_size", "_pending", "_raw", "consumed")

    consumed: int
    """Bytes of the pushed data that ``pull`` has dealt with, in total."""

    def __init__(self, max_size: int, *, gzip: bool = False) -> None:
        self._max_size = max_size
        self._gzip = gzip
        self._raw = _NOTHING
        self._head = b""  # an incomplete prefix
        self._left = -1  # payload bytes still to come of the current message; -1 between messages
        self._inflater: zlib._Decompress | None = None  # only inside a compressed message
        self._inflated = 0
        self._pending = False  # the inflater filled its last step and may hold more output
        self.consumed = 0

    def push(self, data: bytes | memoryview) -> None:
        """Queue received bytes; nothing is parsed yet, and only crumbs are copied.

        A byte that came alone would cost forty in memory: crumbs that nobody reads are joined.
        """
        raw = self._raw
        if raw is _NOTHING:
            self._raw = deque((data,))
        elif len(data) < CRUMB and raw and len(raw[-1]) < CRUMBS_JOINED:
            raw[-1] = bytes(raw[-1]) + data
        else:
            raw.append(data)

    def check_complete(self) -> None:
        """The stream has ended: raises ``BrokenMessage`` inside a message, which is never delivered."""
        if self._left >= 0 or self._head or self._raw:
            raise BrokenMessage(StatusCode.INTERNAL, "the stream ended inside a message")

    def pull(self, limit: int) -> list[Part]:
        """The next parts, about ``limit`` payload bytes of them; ``[]`` when more must be pushed first.

        Raises ``BrokenMessage``; the decoder is of no use after that.
        """
        parts: list[Part] = []
        while limit > 0 and (self._raw or self._pending):
            if self._left < 0:
                self._begin(parts)
            elif self._inflater is not None:
                limit -= self._inflate(self._inflater, parts, limit)
            else:
                limit -= self._pass_on(parts, limit)
            if self._left == 0 and not self._pending:
                self._finish(parts)
        if not self._raw:
            self._raw = _NOTHING
        return parts

    def take_only_message(self, most: int) -> bytes | None:
        """The payload, if all that was pushed is one uncompressed message in one buffer; else None, nothing is lost.

        ``most``: bytes it may have.
        """
        if len(self._raw) != 1 or self._head or self._left >= 0 or len(self._raw[0]) < PREFIX.size:
            return None
        data = self._raw[0]
        flags, size = PREFIX.unpack_from(data)
        if flags or size != len(data) - PREFIX.size or size > most or size > self._max_size:
            return None
        self._raw.clear()
        self.consumed += len(data)
        return bytes(data[PREFIX.size :])

    def _take(self, most: int) -> bytes | memoryview:
        """Up to ``most`` queued bytes, without a copy."""
        data = self._raw.popleft()
        if len(data) > most:
            view = memoryview(data)
            self._raw.appendleft(view[most:])
            data = view[:most]
        self.consumed += len(data)
        return data

    def _begin(self, parts: list[Part]) -> None:
        self._head += bytes(self._take(PREFIX.size - len(self._head)))
        if len(self._head) < PREFIX.size:
            return
        flags, size = PREFIX.unpack(self._head)
        self._head = b""
        if flags > 1:
            raise BrokenMessage(StatusCode.INTERNAL, f"message with unknown flags {flags:#x}")
        if size > self._max_size:
            raise BrokenMessage(
                StatusCode.RESOURCE_EXHAUSTED, f"message of {size} bytes is larger than the limit of {self._max_size}"
            )
        if flags:
            if not self._gzip:
                raise BrokenMessage(StatusCode.INTERNAL, "compressed message without grpc-encoding")
            self._inflater = zlib.decompressobj(GZIP_WBITS)
            self._inflated = 0
        self._left = size
        parts.append(MessageStart(size, compressed=bool(flags)))

    def _pass_on(self, parts: list[Part], limit: int) -> int:
        data = self._take(min(self._left, limit))
        self._left -= len(data)
        if len(data):
            parts.append(data)
        return len(data)

    def _inflate(self, inflater: zlib._Decompress, parts: list[Part], limit: int) -> int:
        """Inflate at most one step; input the inflater has not eaten goes back to the front of the queue."""
        data = self._take(self._left) if self._left and self._raw else b""
        step = min(limit, INFLATE_STEP, self._max_size + 1 - self._inflated)
        try:
            out = inflater.decompress(data, step)
        except zlib.error as error:
            raise BrokenMessage(StatusCode.INTERNAL, "compressed message is corrupt") from error
        rest = inflater.unconsumed_tail
        if rest:
            self._raw.appendleft(rest)
            self.consumed -= len(rest)
        self._left -= len(data) - len(rest)
        self._inflated += len(out)
        self._pending = len(out) == step and not inflater.eof
        if self._inflated > self._max_size:
            raise BrokenMessage(
                StatusCode.RESOURCE_EXHAUSTED, f"message inflates to more than the limit of {self._max_size} bytes"
            )
        if inflater.eof and (self._left or inflater.unused_data):
            raise BrokenMessage(StatusCode.INTERNAL, "compressed message has bytes after its end")
        if out:
            parts.append(out)
        return len(out)

    def _finish(self, parts: list[Part]) -> None:
        if self._inflater is not None and not self._inflater.eof:
            raise BrokenMessage(StatusCode.INTERNAL, "compressed message is corrupt")
        self._inflater = None
        self._left = -1
        parts.append(MESSAGE_END)


def encode_message(buffers: Sequence[Buffer], *, gzip: bool = False) -> list[Buffer]:
    """One message as buffers to send in order; only compression copies the payload."""
    if gzip:
        deflater = zlib.compressobj(wbits=GZIP_WBITS)
        packed = b"".join([*(deflater.compress(buffer) for buffer in buffers), deflater.flush()])
        return [PREFIX.pack(1, len(packed)), packed]
    return [PREFIX.pack(0, sum(map(len, buffers))), *buffers]
