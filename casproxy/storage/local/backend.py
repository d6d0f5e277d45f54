"""Owns the async contract of the FS backend for one tenant's ``Path``. Refuses to touch files on the event loop.

Bytes cross to a thread at least 1 MiB at a time, whatever the pieces are: an upload gathers them for one writev(2), a
download reads straight into the piece that is handed on. Memory per transfer: 1 MiB and a piece.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import structlog
import trio

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import ArtifactNotFound, BackendBroken, BackendRefused, OffsetOutOfRange
from casproxy.storage.api import MAX_PIECE_BYTES, Ingest, NewResource, Piece, Reader, Resource
from casproxy.storage.local import layout, paths
from casproxy.storage.local.blob import OpenBlob
from casproxy.storage.local.ingest import LocalIngest
from casproxy.storage.local.staging import Staging
from casproxy.storage.local.threads import Threads
from casproxy.storage.local.workspace import Workspace
from casproxy.storage.stored_form import NotOurs

_PROBE: Final = b"casproxy"

_log = structlog.stdlib.get_logger("casproxy.storage")


class LocalBackend:
    """A ``Backend`` whose artifacts lie in the directory ``path`` (names, checked by ``parse_path``) of a root."""

    def __init__(self, root_fd: int, staging: Staging, threads: Threads, path: tuple[str, ...]) -> None:
        self._root_fd = root_fd
        self._staging = staging
        self._threads = threads
        self._path = path

    async def describe(self, digest: Digest) -> Resource:
        """See ``Backend.describe``."""
        return await self._threads.run(self._threads.reads, partial(self._describe, digest))

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        """See ``Backend.read``."""
        blob = OpenBlob()
        try:
            resource = await self._threads.run(self._threads.reads, partial(self._open, digest, blob))
            if not 0 <= offset <= resource.size:
                raise OffsetOutOfRange(offset=offset, size=resource.size)
            end = min(offset + limit, resource.size) if limit else resource.size
            yield _LocalReader(self._threads, blob, resource, offset, end)
        finally:
            blob.close()

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        """See ``Backend.ingest``."""
        async with self._open_ingest(resource) as ingest:
            yield ingest

    async def check_writable(self) -> None:
        """See ``Backend.check_writable``: writes to the staging area, and looks at the rights of ``Path``."""
        async with self._open_ingest(NewResource(EMPTY_DIGEST, "probe")) as ingest:
            await ingest.write(_PROBE)
            await ingest.sync()
        await self._threads.run(self._threads.reads, self._check_rights)

    @asynccontextmanager
    async def _open_ingest(self, resource: NewResource) -> AsyncIterator[LocalIngest]:
        await trio.lowlevel.checkpoint()
        workspace = Workspace(self._staging, resource.digest)
        ingest = LocalIngest(self._threads, workspace, resource, partial(self._publish, workspace))
        try:
            yield ingest
        finally:
            await ingest.release()

    def _describe(self, digest: Digest) -> Resource:
        resource, fd = self._find(digest)
        os.close(fd)
        return resource

    def _open(self, digest: Digest, blob: OpenBlob) -> Resource:
        resource, fd = self._find(digest)
        blob.adopt(fd)
        return resource

    def _publish(self, workspace: Workspace, resource: Resource) -> Resource:
        with self._directory(create=True) as tenant_fd:
            return workspace.publish(tenant_fd, resource)

    def _check_rights(self) -> None:
        with _refusing_links():
            paths.check_writable(self._root_fd, self._path)

    def _find(self, digest: Digest) -> tuple[Resource, int]:
        """The artifact and a descriptor of its bytes. What is damaged or not ours is absent, and the log says so."""
        try:
            with self._directory() as tenant_fd, paths.directory(tenant_fd, [digest.hex[:2], digest.hex]) as layout_fd:
                return layout.open_artifact(layout_fd, digest)
        except FileNotFoundError as error:
            raise ArtifactNotFound(digest) from error
        except (NotOurs, NotADirectoryError) as error:
            _log.warning("stored_artifact_not_ours", path="/".join(self._path), digest=str(digest), reason=str(error))
            raise ArtifactNotFound(digest) from error

    @contextmanager
    def _directory(self, *, create: bool = False) -> Iterator[int]:
        with ExitStack() as held:
            with _refusing_links():
                fd = held.enter_context(paths.directory(self._root_fd, self._path, create=create))
            yield fd


@contextmanager
def _refusing_links() -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise BackendRefused("the secret's Path leads through a file or a symbolic link") from error


class _LocalReader:
    def __init__(self, threads: Threads, blob: OpenBlob, resource: Resource, offset: int, end: int) -> None:
        self._threads = threads
        self._blob = blob
        self._resource = resource
        self._offset = offset
        self._end = end

    @property
    def resource(self) -> Resource:
        return self._resource

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        size = min(most, MAX_PIECE_BYTES, self._end - self._offset)
        if size <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        piece = await self._threads.run(self._threads.reads, partial(self._blob.read, size, self._offset))
        if not piece:
            raise BackendBroken("the stored artifact ends early")
        self._offset += len(piece)
        return piece
