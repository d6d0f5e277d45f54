"""Owns the hook for stores that refuse a tenant: a complete wrapper that tells of every ``BackendRefused``.

A refusal may mean that the tenant's secret was changed and ours is old; whoever keeps secrets wants to know. The error
goes on to the caller as it is. Refuses to know what is done about it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from casproxy.digest import Digest
from casproxy.errors import BackendRefused
from casproxy.storage.api import MAX_PIECE_BYTES, Backend, Ingest, NewResource, Piece, Reader, Resource


class RefusalTeller:
    """A ``Backend`` that calls ``tell`` before it raises ``BackendRefused``, from whichever of its methods."""

    def __init__(self, backend: Backend, tell: Callable[[], object]) -> None:
        self._backend = backend
        self._tell = tell

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        with _telling(self._tell):
            return await self._backend.describe(digest)

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``."""
        with _telling(self._tell):
            async with self._backend.read(digest, offset, limit) as reader:
                yield _Reader(reader, self._tell)

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        with _telling(self._tell):
            async with self._backend.ingest(resource) as ingest:
                yield _Ingest(ingest, self._tell)

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``."""
        with _telling(self._tell):
            await self._backend.check_writable()


class _Reader:
    """Told here and not only where the block ends, for a nursery in between makes groups of errors."""

    def __init__(self, reader: Reader, tell: Callable[[], object]) -> None:
        self._reader = reader
        self._tell = tell

    @property
    def resource(self) -> Resource:
        return self._reader.resource

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        with _telling(self._tell):
            return await self._reader.receive(most)


class _Ingest:
    """As ``_Reader``."""

    def __init__(self, ingest: Ingest, tell: Callable[[], object]) -> None:
        self._ingest = ingest
        self._tell = tell

    async def write(self, piece: Piece) -> None:
        with _telling(self._tell):
            await self._ingest.write(piece)

    async def commit(self, digest: Digest, size: int) -> Resource:
        with _telling(self._tell):
            return await self._ingest.commit(digest, size)


@contextmanager
def _telling(tell: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BackendRefused:
        tell()
        raise
