"""Owns one upload into the FS backend, as its task sees it. Refuses to know files: that is ``Workspace``, in threads.

What is slow (fsync of the artifact) can be cancelled; what decides (the rename) is shielded, and short.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from casproxy.digest import Digest
from casproxy.errors import BackendBroken, BackendUnavailable, StorageError
from casproxy.storage.api import NewResource, Piece, Resource
from casproxy.storage.local.threads import Threads
from casproxy.storage.local.workspace import Workspace
from casproxy.storage.media_type import SNIFF_BYTES
from casproxy.storage.stored_form import describe_artifact

_GATHER_BYTES: Final = 1024 * 1024
_GATHER_PIECES: Final = 1024
"""IOV_MAX on Linux."""
_SHIELD_SECONDS: Final = 5.0

_log = structlog.stdlib.get_logger("casproxy.storage")


class LocalIngest:
    """An ``Ingest`` that gathers pieces to 1 MiB. ``publish``: makes the sealed workspace visible, in a thread."""

    def __init__(
        self,
        threads: Threads,
        workspace: Workspace,
        resource: NewResource,
        publish: Callable[[Resource], Resource],
    ) -> None:
        self._threads = threads
        self._workspace = workspace
        self._resource = resource
        self._publish = publish
        self._head = b""
        self._gathered: list[Piece] = []
        self._gathered_bytes = 0
        self._size = 0
        self._open = True
        self._begun = False

    async def write(self, piece: Piece) -> None:
        """See ``Ingest.write``."""
        self._claim()
        if len(self._head) < SNIFF_BYTES:
            self._head += bytes(piece[: SNIFF_BYTES - len(self._head)])
        if piece:
            self._gathered.append(piece)
        self._gathered_bytes += len(piece)
        self._size += len(piece)
        if self._gathered_bytes >= _GATHER_BYTES or len(self._gathered) >= _GATHER_PIECES:
            await self._flush(self._workspace.write)
        else:
            await trio.lowlevel.checkpoint()
        self._open = True

    async def sync(self) -> None:
        """Bring what was written to the disk; nothing becomes visible."""
        self._claim()
        await self._flush(self._workspace.write)
        await self._threads.run(self._threads.writes, self._workspace.sync)
        self._open = True

    async def commit(self, digest: Digest, size: int) -> Resource:
        """See ``Ingest.commit``."""
        self._claim()
        if digest != self._resource.digest or size != self._size:
            raise BackendBroken(f"commit of {digest}, {size} bytes; begun as {self._resource.digest}, got {self._size}")
        resource = Resource(digest, self._resource.file_name, size)
        form = describe_artifact(resource, self._head)
        await self._flush(partial(self._workspace.seal, form=form))
        with trio.move_on_after(_SHIELD_SECONDS, shield=True):
            stored = await self._threads.run(self._threads.steps, partial(self._publish, resource))
            self._begun = not self._workspace.is_empty
            return stored
        raise BackendUnavailable(f"local storage did not make the artifact visible within {_SHIELD_SECONDS:g} s")

    async def release(self) -> None:
        """Remove what is left in the staging area, waiting for it no longer than the shield allows."""
        self._open = False
        self._gathered = []
        if not self._begun:
            return
        discarded = False

        def discard() -> None:
            nonlocal discarded
            discarded = True
            self._workspace.discard()

        try:
            with trio.move_on_after(_SHIELD_SECONDS, shield=True):
                await self._threads.run(self._threads.steps, discard)
        except StorageError as error:
            _log.warning("upload_not_removed", digest=str(self._resource.digest), reason=str(error))
        if not discarded:  # every thread is stuck: leave it to one that nobody waits for
            trio.lowlevel.start_thread_soon(discard, lambda outcome: None)

    async def _flush(self, take: Callable[[list[Piece]], None]) -> None:
        """Hand what was gathered to the workspace."""
        pieces, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._begun = True
        await self._threads.run(self._threads.writes, partial(take, pieces))

    def _claim(self) -> None:
        """Closed for good, unless the operation that follows succeeds."""
        if not self._open:
            raise RuntimeError("the ingest was committed, cancelled, failed or left: it can only be left")
        self._open = False
