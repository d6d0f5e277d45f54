"""Owns one upload into a registry, as its task sees it. Refuses to know how bytes are sent: that is ``LargeLayer``.

A small artifact is kept until it is complete and goes in two requests; a larger one begins to leave as soon as that is
known, and a small one that finds no room to wait (``kept``) at once. Nothing is visible before the manifest, which is
the last request and shielded for a moment::

    small   [write … write]  commit: POST, PUT layer  ‖  POST, PUT config     then PUT manifest
    large   POST, PATCH ═══  commit: PUT layer        ‖  POST, PUT config     then PUT manifest
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from casproxy.digest import Digest
from casproxy.errors import BackendBroken, StorageError
from casproxy.outbound.grace import outlast, side_by_side
from casproxy.storage.api import NewResource, Piece, Resource
from casproxy.storage.media_type import SNIFF_BYTES
from casproxy.storage.oci.access import Way
from casproxy.storage.oci.errors import Busy, WayRefused
from casproxy.storage.oci.layer import LargeLayer
from casproxy.storage.oci.repository import Repository, refused_everywhere
from casproxy.storage.oci.sessions import Sessions
from casproxy.storage.oci.staging import Staging
from casproxy.storage.stored_form import Document, describe_artifact

SMALL_BYTES: Final = 1024 * 1024
"""The largest artifact that is sent whole."""
_MANIFEST_SHIELD_SECONDS: Final = 5.0
_MANIFEST_SECONDS: Final = 60.0


@asynccontextmanager
async def open_ingest(
    repository: Repository,
    staging: Staging,
    resource: NewResource,
    find_stored: Callable[[], Awaitable[Resource | None]],
) -> AsyncIterator[OciIngest]:
    """An ``Ingest`` into ``repository``. ``find_stored``: the artifact, if it is there already; asked before the end.

    Leaving without a commit ends the requests at once and deletes the sessions (shielded, at most 4 s).
    """
    sessions = Sessions(repository)
    failure: Exception | None = None
    idle = _IdleFailure()
    try:
        try:
            async with trio.open_nursery() as nursery:
                ingest = OciIngest(sessions, staging, resource, find_stored, nursery, idle)
                with idle.body:
                    try:
                        yield ingest
                    except Exception as error:  # raised again below, without the nursery's group around it
                        failure = error
                nursery.cancel_scope.cancel()
        finally:
            ingest.leave()
            await sessions.release()
        if failure is None and idle.body.cancelled_caught:
            failure = idle.taken()
        if failure is not None:
            raise failure
    finally:
        del failure  # or it would be in a circle with this frame, which is in its traceback


class _IdleFailure:
    """The PATCH failed while nobody writes: whoever works inside the ingest, in ``body``, is woken."""

    def __init__(self) -> None:
        self.body = trio.CancelScope()
        self.happened = False
        self._failure: StorageError | None = None

    def note(self, error: StorageError) -> None:
        self.happened = True
        self._failure = error
        del error  # this frame will be behind (``f_back``) those in the traceback of the ``Cancelled``
        self.body.cancel()

    def taken(self) -> StorageError | None:
        """The failure, to be raised: kept here as well, it would be in a circle."""
        failure, self._failure = self._failure, None
        return failure


class OciIngest:
    """Open until it is committed, failed or left."""

    def __init__(
        self,
        sessions: Sessions,
        staging: Staging,
        resource: NewResource,
        find_stored: Callable[[], Awaitable[Resource | None]],
        nursery: trio.Nursery,
        idle: _IdleFailure,
    ) -> None:
        self._sessions = sessions
        self._repository = sessions.repository
        self._resource = resource
        self._find_stored = find_stored
        self._idle = idle
        self._layer = LargeLayer(sessions, staging, nursery, idle.note)
        self._streaming = False
        self._small: list[Piece] = []
        self._kept = self._repository.access.kept
        self._kept_bytes = 0
        self._head = b""
        self._size = 0
        self._open = True

    async def write(self, piece: Piece) -> None:
        """See ``Ingest.write``."""
        self._claim()
        await trio.lowlevel.checkpoint_if_cancelled()
        if len(self._head) < SNIFF_BYTES:
            self._head += bytes(piece[: SNIFF_BYTES - len(self._head)])
        self._size += len(piece)
        declared = self._resource.size
        if declared is not None and self._size > declared:
            raise BackendBroken(f"{self._size} bytes of an artifact declared with {declared}")
        if piece and self._streaming:
            await self._layer.write(piece)
        elif piece:
            self._small.append(piece)
            self._kept_bytes += len(piece)
            room = self._kept.add(len(piece))
            if max(self._size, declared or 0) > SMALL_BYTES or not (room or self._layer.needs_staging):
                await self._stream()
        self._open = True

    async def commit(self, digest: Digest, size: int) -> Resource:
        """See ``Ingest.commit``."""
        self._claim()
        if digest != self._resource.digest or size != self._size or self._resource.size not in (None, size):
            raise BackendBroken(f"commit of {digest}, {size} bytes; begun as {self._resource.digest}, got {self._size}")
        stored = await self._find_stored()
        if stored is not None:
            return stored
        resource = Resource(digest, self._resource.file_name, size)
        form = describe_artifact(resource, self._head)
        layer = partial(self._layer.finish if self._streaming else self._put_small_layer, digest, size)
        await side_by_side(layer, partial(self._put_blob, form.config.data, form.config.digest))
        await self._put_manifest(form.manifest)
        return resource

    def leave(self) -> None:
        """Nothing more will come."""
        self._open = False
        self._forget()
        self._layer.close()

    async def _stream(self) -> None:
        self._streaming = True
        await self._layer.begin()
        for piece in self._small:
            await self._layer.write(piece)
        self._forget()

    def _forget(self) -> None:
        """What was kept is elsewhere, or of no use any more."""
        self._kept.remove(self._kept_bytes)
        self._small, self._kept_bytes = [], 0

    async def _put_small_layer(self, digest: Digest, size: int) -> None:
        await self._put_blob(b"".join(self._small), digest)

    async def _put_blob(self, data: bytes, digest: Digest) -> None:
        """A blob from memory, in the way the registry is known to take, else in the first that it takes."""
        ways = self._repository.access.ways
        for way in dict.fromkeys([ways.small or Way.WHOLE, Way.WHOLE, Way.STREAM]):
            try:
                await self._sessions.retried(partial(self._send, way, data, digest))
            except WayRefused:
                continue
            ways.small = way
            return
        raise refused_everywhere(self._repository.access, "uploading")

    async def _send(self, way: Way, data: bytes, digest: Digest) -> None:
        async with self._sessions.open() as session:
            if way is Way.WHOLE:
                await self._repository.finish(session, digest, len(data), data)
            else:
                await self._repository.patch(session, data)
                await self._repository.finish(session, digest, len(data))

    async def _put_manifest(self, manifest: Document) -> None:
        done = False

        async def put() -> None:
            nonlocal done
            await self._repository.put_manifest(manifest)
            done = True

        async def decide() -> None:
            await outlast(_MANIFEST_SHIELD_SECONDS, _MANIFEST_SECONDS, put)
            if not done:
                raise Busy(f"{self._repository.access.registry}: storing the manifest took too long")

        await self._sessions.retried(decide)

    def _claim(self) -> None:
        """Closed for good, unless the operation that follows succeeds."""
        if not self._open or self._idle.happened:
            raise RuntimeError("the ingest was committed, cancelled, failed or left: it can only be left")
        self._open = False
