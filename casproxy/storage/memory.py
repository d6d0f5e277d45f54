"""Owns a store in this process's memory, for tests and the bench. Refuses to know disks.

An artifact is kept as the pieces it arrived in: nothing is joined, a read hands the same pieces out again. Copying
starts only where a range cuts a piece, and then as a view.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendBroken, OffsetOutOfRange, StorageFull
from casproxy.storage.api import MAX_PIECE_BYTES, Ingest, NewResource, Piece, Reader, Resource


@dataclass(frozen=True, slots=True)
class _Stored:
    """An artifact. ``ends[i]``: bytes up to and with ``pieces[i]``."""

    resource: Resource
    pieces: tuple[Piece, ...]
    ends: tuple[int, ...]


class MemoryBackend:
    """A ``Backend`` that keeps at most ``max_bytes`` (None: no cap), uploads in progress included."""

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._stored: dict[Digest, _Stored] = {}
        self.held_bytes = 0

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._stored

    def __len__(self) -> int:
        return len(self._stored)

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        await trio.lowlevel.checkpoint()
        return self._find(digest).resource

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``."""
        await trio.lowlevel.checkpoint()
        stored = self._find(digest)
        size = stored.resource.size
        if not 0 <= offset <= size:
            raise OffsetOutOfRange(offset=offset, size=size)
        yield _MemoryReader(stored, offset, min(offset + limit, size) if limit else size)

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        await trio.lowlevel.checkpoint()
        ingest = _MemoryIngest(self, resource)
        try:
            yield ingest
        finally:
            ingest.release()

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``."""
        await trio.lowlevel.checkpoint()
        self.take(0)

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes; raises ``StorageFull``."""
        if self._max_bytes is not None and self.held_bytes + size > self._max_bytes:
            raise StorageFull(f"the store in memory is limited to {self._max_bytes} bytes")
        self.held_bytes += size

    def keep(self, resource: Resource, pieces: list[Piece]) -> bool:
        """Make an artifact visible; False when there is one already, which stays."""
        if resource.digest in self._stored:
            return False
        ends = tuple(itertools.accumulate(len(piece) for piece in pieces))
        self._stored[resource.digest] = _Stored(resource, tuple(pieces), ends)
        return True

    def _find(self, digest: Digest) -> _Stored:
        stored = self._stored.get(digest)
        if stored is None:
            raise ArtifactNotFound(digest)
        return stored


class _MemoryReader:
    def __init__(self, stored: _Stored, offset: int, end: int) -> None:
        self._stored = stored
        self._offset = offset
        self._end = end

    @property
    def resource(self) -> Resource:
        return self._stored.resource

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        await trio.lowlevel.checkpoint()
        if self._offset >= self._end:
            return b""
        index = bisect.bisect_right(self._stored.ends, self._offset)
        piece, piece_end = self._stored.pieces[index], self._stored.ends[index]
        start = self._offset - (piece_end - len(piece))
        stop = min(len(piece) - max(0, piece_end - self._end), start + most)
        self._offset += stop - start
        return piece if stop - start == len(piece) else memoryview(piece)[start:stop]


class _MemoryIngest:
    """Open until it is committed, failed or left; the bytes it took are given back unless they were kept."""

    def __init__(self, backend: MemoryBackend, resource: NewResource) -> None:
        self._backend = backend
        self._resource = resource
        self._pieces: list[Piece] = []
        self._size = 0
        self._open = True

    async def write(self, piece: Piece) -> None:
        self._claim()
        await trio.lowlevel.checkpoint()
        self._backend.take(len(piece))
        self._size += len(piece)
        if piece:
            self._pieces.append(bytes(piece))  # a view would keep the buffer it came in
        self._open = True

    async def commit(self, digest: Digest, size: int) -> Resource:
        self._claim()
        await trio.lowlevel.checkpoint()
        if digest != self._resource.digest or size != self._size:
            raise BackendBroken(f"commit of {digest}, {size} bytes; begun as {self._resource.digest}, got {self._size}")
        if self._backend.keep(Resource(digest, self._resource.file_name, size), self._pieces):
            self._size = 0
        return self._backend._find(digest).resource

    def release(self) -> None:
        self._open = False
        self._backend.held_bytes -= self._size
        self._size = 0
        self._pieces = []

    def _claim(self) -> None:
        """Closed for good, unless the operation that follows succeeds."""
        if not self._open:
            raise RuntimeError("the ingest was committed, cancelled, failed or left: it can only be left")
        self._open = False
