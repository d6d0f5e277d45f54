"""Owns the store of the bench's own server: it keeps what will be read and forgets everything else.

An artifact whose file name begins with ``keep`` stays in memory, in pieces of 1 MiB as a disk would give them. Of any
other only digest and size stay, so that an upload costs what the way to a store costs and no more; the peers it is
compared with do the same. For the same reason nothing here gives up its turn: there is nothing to wait for.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from casproxy.bench.scenarios import KEPT, STALLED
from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, OffsetOutOfRange
from casproxy.pipeline.pieces import split
from casproxy.storage.api import MAX_PIECE_BYTES, Ingest, NewResource, Piece, Reader, Resource

_REMEMBERED = 100_000


class BenchStore:
    """A ``Backend``. ``released``: when the ingest of each digest was left without a commit, monotonic seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, Resource] = OrderedDict()
        self._pieces: dict[Digest, Sequence[Piece]] = {}
        self.released: dict[str, float] = {}
        self.open_ingests = 0

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if (found := self._known.get(digest)) is None:
            raise ArtifactNotFound(digest)
        return found

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``; bytes that were forgotten are not found."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if digest not in self._pieces:
            raise ArtifactNotFound(digest)
        resource = self._known[digest]
        if not 0 <= offset <= resource.size:
            raise OffsetOutOfRange(offset=offset, size=resource.size)
        end = min(offset + limit, resource.size) if limit else resource.size
        yield _Reader(resource, self._pieces[digest], offset, end)

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        ingest = _Ingest(self, resource)
        self.open_ingests += 1
        try:
            yield ingest
        finally:
            self.open_ingests -= 1
            if not ingest.committed:
                self.released[resource.digest.hex] = time.monotonic()

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``."""
        await trio.lowlevel.checkpoint_if_cancelled()

    def remember(self, resource: Resource, pieces: Sequence[Piece]) -> None:
        """What an ingest has brought; the oldest that nobody keeps makes room."""
        self._known[resource.digest] = resource
        if pieces:
            self._pieces[resource.digest] = pieces
        elif len(self._known) > _REMEMBERED:
            oldest = next(digest for digest in self._known if digest not in self._pieces)
            del self._known[oldest]


class _Ingest:
    def __init__(self, store: BenchStore, resource: NewResource) -> None:
        self._store = store
        self._name = resource.file_name
        self._kept = resource.file_name.startswith(KEPT)
        self._pieces: list[Piece] = []
        self.committed = False

    async def write(self, piece: Piece) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._name.startswith(STALLED):
            await trio.sleep_forever()
        if self._kept:
            self._pieces.append(piece)

    async def commit(self, digest: Digest, size: int) -> Resource:
        await trio.lowlevel.checkpoint_if_cancelled()
        resource = Resource(digest, self._name, size)
        self._store.remember(resource, list(split(memoryview(b"".join(self._pieces)))))
        self.committed = True
        return resource


class _Reader:
    def __init__(self, resource: Resource, pieces: Sequence[Piece], offset: int, end: int) -> None:
        self.resource = resource
        self._pieces = pieces
        self._offset = offset
        self._end = end

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        await trio.lowlevel.checkpoint_if_cancelled()
        index, start = divmod(self._offset, MAX_PIECE_BYTES)  # every piece but the last is that long
        size = min(most, MAX_PIECE_BYTES - start, self._end - self._offset)
        if size <= 0:
            return b""
        self._offset += size
        return memoryview(self._pieces[index])[start : start + size]
