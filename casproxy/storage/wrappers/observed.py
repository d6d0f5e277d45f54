"""Owns the wrappers that time every request to a tenant's store and give it a span. Refuses to know any store.

::

    describe  its answer         open    until the first byte can be read       check   the whole test
    commit    until visible      ingest  begin to end, as slow as its sender

Pieces pass by untouched: ``receive`` and ``write`` are the store's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

from casproxy.digest import Digest
from casproxy.observe.timed import Timed
from casproxy.spans import span
from casproxy.storage.api import Backend, BackendResolver, Ingest, NewResource, Reader, Resource, Tenant

OPERATIONS: Final = ("describe", "open", "ingest", "commit", "check")

ReportRequest: TypeAlias = Callable[[str, str, str, float], None]
"""Told backend type, operation (``OPERATIONS``), result (``observe.timed.RESULTS``) and seconds of each request."""


class ObservedResolver:
    """A ``BackendResolver`` whose backends are all observed."""

    def __init__(self, resolver: BackendResolver, report: ReportRequest) -> None:
        self._resolver = resolver
        self._report = report

    def backend_types(self) -> list[str]:
        """See ``BackendResolver.backend_types``."""
        return self._resolver.backend_types()

    async def resolve(self, tenant: Tenant) -> Backend:
        """See ``BackendResolver.resolve``."""
        return ObservedBackend(await self._resolver.resolve(tenant), tenant.backend_type, self._report)


class ObservedBackend:
    """A ``Backend`` that reports each request and begins a span for it."""

    def __init__(self, backend: Backend, backend_type: str, report: ReportRequest) -> None:
        self._backend = backend
        self._type = backend_type
        self._report = report

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        with self._timed("describe"):
            return await self._backend.describe(digest)

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``."""
        with span("storage.read", backend=self._type):
            async with AsyncExitStack() as stack:
                with self._timed("open"):
                    reader = await stack.enter_async_context(self._backend.read(digest, offset, limit))
                yield reader

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        with self._timed("ingest"):
            async with self._backend.ingest(resource) as ingest:
                yield _ObservedIngest(ingest, self._timed)

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``."""
        with self._timed("check"):
            await self._backend.check_writable()

    def _timed(self, operation: str) -> Timed:
        report = partial(self._report, self._type, operation)
        return Timed(f"storage.{operation}", report, backend=self._type)


class _ObservedIngest:
    def __init__(self, ingest: Ingest, timed: Callable[[str], Timed]) -> None:
        self.write = ingest.write
        self._commit = ingest.commit
        self._timed = timed

    async def commit(self, digest: Digest, size: int) -> Resource:
        with self._timed("commit"):
            return await self._commit(digest, size)
