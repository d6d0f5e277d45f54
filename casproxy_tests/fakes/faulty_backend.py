"""A store that fails, stalls or lies where a test says so, around a real one, which does everything else.

::

    backend = FaultyBackend(MemoryBackend(), Fault("write", after_bytes=700_000, error=BackendUnavailable("down")))
    backend = FaultyBackend(MemoryBackend(), Fault("receive", after_bytes=10, stall=True), Fault("receive", flip=3))

``backend.calls`` counts what was asked of it; ``backend.open_ingests`` and ``backend.open_readers`` return to 0 when
nothing was left behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from casproxy.digest import Digest
from casproxy.storage.api import MAX_PIECE_BYTES, Backend, Ingest, NewResource, Piece, Reader, Resource

Operation: TypeAlias = Literal[
    "describe", "read", "receive", "leave_read", "ingest", "write", "commit", "leave_ingest", "check_writable"
]


@dataclass(slots=True)
class Fault:
    """What goes wrong at ``operation``, when it would carry the ``after_bytes``-th byte of its transfer or a later one.

    ``error`` is raised (``commit`` with ``late=True``: after the artifact became visible); ``stall`` waits for ever, or
    until it is cancelled; ``flip`` inverts the artifact's byte at that offset on its way out. ``times``: how often it
    happens; afterwards the store is well. ``reached`` is set when it happens.
    """

    operation: Operation
    error: Exception | None = None
    stall: bool = False
    flip: int | None = None
    after_bytes: int = 0
    late: bool = False
    times: int = 1
    reached: trio.Event = field(default_factory=trio.Event)


class FaultyBackend:
    """A complete ``Backend`` around ``inner``."""

    def __init__(self, inner: Backend, *faults: Fault) -> None:
        self.inner = inner
        self.faults = list(faults)
        self.calls: Counter[str] = Counter()
        self.open_ingests = 0
        self.open_readers = 0

    async def describe(self, digest: Digest) -> Resource:
        await self.meet("describe")
        return await self.inner.describe(digest)

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        await self.meet("read")
        async with self.inner.read(digest, offset, limit) as reader:
            self.open_readers += 1
            try:
                yield _FaultyReader(self, reader, offset)
                await self.meet("leave_read")
            finally:
                self.open_readers -= 1

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        await self.meet("ingest")
        async with self.inner.ingest(resource) as ingest:
            self.open_ingests += 1
            try:
                yield _FaultyIngest(self, ingest)
                await self.meet("leave_ingest")
            finally:
                self.open_ingests -= 1

    async def check_writable(self) -> None:
        await self.meet("check_writable")
        await self.inner.check_writable()

    async def meet(self, operation: Operation, bytes_after: int = 0, *, late: bool = False) -> None:
        """Count the call and let the faults that are due happen. ``bytes_after``: of the transfer, with this call."""
        if not late:
            self.calls[operation] += 1
        for fault in self.faults:
            due = fault.operation == operation and fault.late == late and bytes_after >= fault.after_bytes
            if due and fault.times and fault.flip is None:
                fault.times -= 1
                fault.reached.set()
                if fault.stall:
                    await trio.sleep_forever()
                if fault.error is not None:
                    raise fault.error

    def distort(self, piece: Piece, offset: int) -> Piece:
        """``piece``, which begins at ``offset`` of the artifact, with the bytes inverted that a fault flips."""
        for fault in self.faults:
            if fault.flip is not None and fault.times and offset <= fault.flip < offset + len(piece):
                fault.times -= 1
                fault.reached.set()
                wrong = bytearray(piece)
                wrong[fault.flip - offset] ^= 0xFF
                piece = wrong
        return piece


class _FaultyReader:
    def __init__(self, backend: FaultyBackend, inner: Reader, offset: int) -> None:
        self._backend = backend
        self._inner = inner
        self._offset = offset
        self._passed = 0

    @property
    def resource(self) -> Resource:
        return self._inner.resource

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        piece = await self._inner.receive(most)
        await self._backend.meet("receive", self._passed + len(piece))
        piece = self._backend.distort(piece, self._offset + self._passed)
        self._passed += len(piece)
        return piece


class _FaultyIngest:
    def __init__(self, backend: FaultyBackend, inner: Ingest) -> None:
        self._backend = backend
        self._inner = inner
        self._passed = 0

    async def write(self, piece: Piece) -> None:
        self._passed += len(piece)
        await self._backend.meet("write", self._passed)
        await self._inner.write(piece)

    async def commit(self, digest: Digest, size: int) -> Resource:
        await self._backend.meet("commit", self._passed)
        resource = await self._inner.commit(digest, size)
        await self._backend.meet("commit", self._passed, late=True)
        return resource
