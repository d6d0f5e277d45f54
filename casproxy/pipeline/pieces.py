"""Owns how the parts that arrive become pieces. Sans-io: no clock, no channel, no credit.

A payload byte is copied at most once here. Parts below a quarter of a piece (a Go client sends 16 KiB frames) are
joined into full pieces: one copy. A larger part is a piece as it is, no copy. A short part is always copied out of
the socket buffer it points into, for a piece that waits must not keep 512 KiB alive.
"""

from __future__ import annotations

from collections.abc import Iterator

from casproxy.storage.api import MAX_PIECE_BYTES, Piece


def split(part: Piece, size: int = MAX_PIECE_BYTES) -> Iterator[Piece]:
    """``part`` in runs of at most ``size`` bytes, without copying; an empty part has none."""
    if 0 < len(part) <= size:
        yield part
        return
    view = memoryview(part)
    for start in range(0, len(part), size):
        yield view[start : start + size]


class PieceAssembler:
    """Joins parts into pieces of at most ``piece_size`` bytes, in order."""

    __slots__ = ("_parts", "_piece_size", "pending")

    def __init__(self, piece_size: int) -> None:
        self._piece_size = min(piece_size, MAX_PIECE_BYTES)
        self._parts: list[Piece] = []
        self.pending = 0
        """Bytes that wait for more."""

    def add(self, part: Piece) -> Iterator[Piece]:
        """Take a part; yields the pieces it completes. Exhaust the iterator before the next call."""
        size = len(part)
        if self.pending and self.pending + size > self._piece_size:
            yield self.flush()
        if size * 4 >= self._piece_size:
            if self.pending:
                yield self.flush()
            yield from split(part, MAX_PIECE_BYTES)
        elif size:
            self._parts.append(part)
            self.pending += size
            if self.pending == self._piece_size:
                yield self.flush()

    def flush(self) -> Piece:
        """What waits, as one piece; ``b""`` when nothing does."""
        piece = b"".join(self._parts)
        self._parts.clear()
        self.pending = 0
        return piece
