"""Owns that many uploads of one artifact at once cost the store one. Refuses to know any store.

::

    first to come     leads: its bytes go to the store
    the others        wait where they enter ``ingest``, before a byte of theirs is taken
      leader commits  -> ``AlreadyStored``, the answer to all of them
      leader fails, leaves, or its sender is silent for 2 s -> one of them leads, the others wait for that one

A leader whose store is slow is not replaced: another upload to the same store would not be faster. One that was
replaced may still finish; both commits succeed and leave one good copy.

A wrapper belongs to one opened backend, and so to one backend type, secret id, secret and organisation (``stack``):
who waits here could have done the upload with the same right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from casproxy.digest import Digest
from casproxy.errors import AlreadyStored
from casproxy.storage.api import Backend, Ingest, NewResource, Piece, Reader, Resource

STALL_SECONDS: Final = 2.0


class SharedBackend:
    """A ``Backend`` around ``backend`` in which uploads of the same artifact share one flight."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._flights: dict[Digest, _Flight] = {}

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        return await self._backend.describe(digest)

    def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AbstractAsyncContextManager[Reader]:
        """See ``Backend.read``."""
        return self._backend.read(digest, offset, limit)

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``. Entering waits for a leader, and raises ``AlreadyStored`` when that was enough."""
        flight = await self._board(resource.digest)
        try:
            async with self._backend.ingest(resource) as ingest:
                yield _LeadingIngest(ingest, flight)
        finally:
            if self._flights.get(resource.digest) is flight:
                del self._flights[resource.digest]
            flight.landed.set()

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``."""
        await self._backend.check_writable()

    async def _board(self, digest: Digest) -> _Flight:
        """Wait until there is something to lead."""
        while (leader := self._flights.get(digest)) is not None and await leader.is_under_way():
            if leader.stored is not None:
                raise AlreadyStored(digest, leader.stored.file_name, leader.stored.size)
        flight = self._flights[digest] = _Flight()
        return flight


class _Flight:
    """One upload, as those who wait for it see it. ``busy``: the store is at work, so silence is not its sender's."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.stored: Resource | None = None
        self.busy = False
        self.heard_at = trio.current_time()

    async def is_under_way(self) -> bool:
        """Wait for the end; False as soon as the sender has been silent for too long."""
        while not self.landed.is_set():
            now = trio.current_time()
            if not self.busy and now >= self.heard_at + STALL_SECONDS:
                return False
            patience = STALL_SECONDS if self.busy else self.heard_at + STALL_SECONDS - now
            with trio.move_on_after(patience):
                await self.landed.wait()
        return True


class _LeadingIngest:
    """An ``Ingest`` that tells its flight what happens."""

    def __init__(self, ingest: Ingest, flight: _Flight) -> None:
        self._ingest = ingest
        self._flight = flight

    async def write(self, piece: Piece) -> None:
        self._flight.busy = True
        await self._ingest.write(piece)
        self._flight.heard_at = trio.current_time()
        self._flight.busy = False

    async def commit(self, digest: Digest, size: int) -> Resource:
        self._flight.busy = True
        stored = await self._ingest.commit(digest, size)
        self._flight.stored = stored
        return stored
