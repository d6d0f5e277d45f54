"""Owns the contract of ``storage.api`` for one tenant's ``Repo``. Refuses to know HTTP.

Requests per call, once the registry and its token are known: describe 1; read 2; ingest of a small artifact 5, and one
more to ask whether it is there unless ``describe`` has just denied that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import structlog
import trio

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import ArtifactNotFound, LookupRefused, OffsetOutOfRange
from casproxy.storage.api import Ingest, NewResource, Reader, Resource
from casproxy.storage.oci.access import Access
from casproxy.storage.oci.ingest import open_ingest
from casproxy.storage.oci.reader import OciReader
from casproxy.storage.oci.reference import Repo
from casproxy.storage.oci.repository import Repository
from casproxy.storage.oci.sessions import Sessions
from casproxy.storage.oci.staging import Staging
from casproxy.storage.stored_form import NotOurs, parse_manifest

_ABSENT_SECONDS: Final = 60.0
_ABSENT_ENTRIES: Final = 4096

_log = structlog.stdlib.get_logger("casproxy.storage")


class OciBackend:
    """A ``Backend``: every artifact is ``{repo.path}/chainloop-{hex}:latest`` at the registry behind ``access``."""

    def __init__(self, access: Access, repo: Repo, staging: Staging) -> None:
        self._access = access
        self._repo = repo
        self._staging = staging
        self._absent: OrderedDict[Digest, float] = OrderedDict()

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``. ``LookupRefused`` when the registry does not say whether it is there."""
        try:
            return await self._look_up(digest)
        except (ArtifactNotFound, LookupRefused):
            self._note_absent(digest)
            raise

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``."""
        resource = await self._look_up(digest)
        if not 0 <= offset <= resource.size:
            raise OffsetOutOfRange(offset=offset, size=resource.size)
        end = min(offset + limit, resource.size) if limit else resource.size
        async with AsyncExitStack() as stack:
            response = None
            if offset < end:
                blob = partial(self._repository(digest).blob, digest, offset, end, resource.size)
                response = await self._access.retries.run(lambda: stack.enter_async_context(blob()))
            yield OciReader(self._access, resource, response, offset, end)

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        await trio.lowlevel.checkpoint()
        find_stored = partial(self._find_stored, resource.digest)
        async with open_ingest(self._repository(resource.digest), self._staging, resource, find_stored) as ingest:
            yield ingest

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``: opens an upload session and deletes it."""
        sessions = Sessions(self._repository(EMPTY_DIGEST))
        try:
            await sessions.retried(sessions.start)
        finally:
            await sessions.release()

    async def _look_up(self, digest: Digest) -> Resource:
        repository = self._repository(digest)
        manifest = await self._access.retries.run(partial(repository.manifest, digest))
        try:
            return parse_manifest(manifest, digest)
        except NotOurs as error:
            _log.info("not_ours", digest=str(digest), registry=self._access.registry, reason=str(error))
            raise ArtifactNotFound(digest) from error

    async def _find_stored(self, digest: Digest) -> Resource | None:
        """What is there already; not asked again shortly after ``describe`` has said that there is nothing."""
        noted = self._absent.pop(digest, None)
        if noted is not None and trio.current_time() < noted + _ABSENT_SECONDS:
            return None
        try:
            return await self._look_up(digest)
        except (ArtifactNotFound, LookupRefused):
            return None

    def _note_absent(self, digest: Digest) -> None:
        self._absent[digest] = trio.current_time()
        self._absent.move_to_end(digest)
        if len(self._absent) > _ABSENT_ENTRIES:
            self._absent.popitem(last=False)

    def _repository(self, digest: Digest) -> Repository:
        return Repository(self._access, self._repo.of(digest))
