"""Owns how the bytes of a large layer get into a registry: the ways there are, and which one a registry takes.

::

    nothing known      STREAM, and a copy into staging if there is a place for it
      refused          -> WHOLE, then CHUNKS, from the copy; each from a fresh session
    STREAM taken       STREAM alone from then on: one PATCH that is sent while the layer arrives
    WHOLE or CHUNKS    everything into staging, sent when it is complete

Real registries, and why one way is not enough: Artifactory wants PATCH; ACR refuses a PUT of more than 20 MB; GHCR
answers 416 to a ranged PATCH of more than 4 MiB; Google's Artifact Registry knows no ranged PATCH; ECR's ``Range``
sticks after the first chunk, so our own offset is trusted and theirs is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from casproxy.digest import Digest
from casproxy.errors import BackendRefused, StorageError, StorageFull
from casproxy.storage.api import Piece
from casproxy.storage.oci.access import Way
from casproxy.storage.oci.errors import WayRefused
from casproxy.storage.oci.repository import refused_everywhere
from casproxy.storage.oci.sessions import Sessions
from casproxy.storage.oci.staging import StagedBody, Staging
from casproxy.storage.oci.stream import Stream

_CHUNK_BYTES: Final = 4 * 1024 * 1024


class LargeLayer:
    """One layer on its way. ``nursery``: where the PATCH runs.

    ``on_failure`` is called when the way out fails while nobody is in ``write`` or ``finish`` to hear it.
    """

    def __init__(
        self,
        sessions: Sessions,
        staging: Staging,
        nursery: trio.Nursery,
        on_failure: Callable[[StorageError], None],
    ) -> None:
        self._sessions = sessions
        self._staging = staging
        self._nursery = nursery
        self._on_failure = on_failure
        self._ways = sessions.repository.access.ways
        self._stream: Stream | None = None
        self._copy: StagedBody | None = None
        self._heard = False

    @property
    def needs_staging(self) -> bool:
        """The registry is known not to take a stream, and there is no place to keep a layer: ``begin`` would fail."""
        return self._ways.large not in (None, Way.STREAM) and not self._staging.available

    async def begin(self) -> None:
        """Open what the way needs. Errors: ``StorageError``."""
        if self._ways.large is not Way.STREAM and self._staging.available:
            self._copy = self._staging.open()
        if self._ways.large in (None, Way.STREAM):
            self._stream = await self._open_stream()
        elif self._copy is None:
            raise self._needs_staging()

    async def write(self, piece: Piece) -> None:
        """Take a piece, never an empty one. Errors: ``StorageError``."""
        self._heard = True
        if self._copy is not None:
            await self._append(self._copy, piece)
        if self._stream is not None:
            await self._write_stream(self._stream, piece)
        self._heard = False

    async def finish(self, digest: Digest, size: int) -> None:
        """The layer is complete: make it a blob. Errors: ``StorageError``."""
        self._heard = True
        if self._stream is not None and await self._finish_stream(self._stream, digest, size):
            self._ways.large = Way.STREAM
            return
        if self._copy is None:
            raise self._needs_staging()
        await self._send_copy(self._copy, digest, size)

    def close(self) -> None:
        """Give back what is staged; idempotent."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    async def _open_stream(self) -> Stream:
        stream = Stream(self._sessions, await self._sessions.retried(self._sessions.start))
        self._nursery.start_soon(self._run, stream)
        return stream

    async def _run(self, stream: Stream) -> None:
        await stream.run()
        if isinstance(stream.failure, WayRefused) and self._copy is not None:
            self._stream = None  # goes on from the copy, once everything is there
        elif stream.failure is not None and not self._heard:
            self._on_failure(self._told(stream.taken_failure()))

    async def _write_stream(self, stream: Stream, piece: Piece) -> None:
        try:
            await stream.write(piece)
        except WayRefused as error:
            if self._copy is None:
                raise self._told(error) from error

    async def _append(self, copy: StagedBody, piece: Piece) -> None:
        try:
            await copy.append(piece)
        except StorageFull:
            if self._stream is None:
                raise
            self.close()  # the copy is a precaution: without it the stream still may succeed

    async def _finish_stream(self, stream: Stream, digest: Digest, size: int) -> bool:
        """False: the registry refused this way, and the copy is there."""
        try:
            await stream.finish(digest, size)
        except WayRefused as error:
            if self._copy is None:
                raise self._told(error) from error
            return False
        return True

    async def _send_copy(self, copy: StagedBody, digest: Digest, size: int) -> None:
        ways = {Way.WHOLE: self._send_whole, Way.CHUNKS: self._send_chunks}
        first = [self._ways.large] if self._ways.large in ways else []
        for way in dict.fromkeys([*first, *ways]):
            send = ways[way]
            try:
                await self._sessions.retried(lambda send=send: send(copy, digest, size))  # type: ignore[misc]
            except WayRefused:
                continue
            self._ways.large = way
            return
        raise refused_everywhere(self._sessions.repository.access, "uploading")

    async def _send_whole(self, copy: StagedBody, digest: Digest, size: int) -> None:
        async with self._sessions.open() as session:
            await self._sessions.repository.finish(session, digest, size, copy.part(0, size))

    async def _send_chunks(self, copy: StagedBody, digest: Digest, size: int) -> None:
        async with self._sessions.open() as session:
            chunk = max(_CHUNK_BYTES, session.min_chunk)
            for start in range(0, size, chunk):
                part = copy.part(start, min(chunk, size - start))
                await self._sessions.repository.patch(session, part, at=start)
            await self._sessions.repository.finish(session, digest, size)

    def _told(self, error: StorageError) -> StorageError:
        return self._needs_staging() if isinstance(error, WayRefused) else error

    def _needs_staging(self) -> BackendRefused:
        registry = self._sessions.repository.access.registry
        return BackendRefused(
            f"{registry}: the registry does not take a layer as a stream; it needs staging.dir to be set, with room"
        )
