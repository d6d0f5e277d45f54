"""Owns the upload sessions of one ingest: none is left open at the registry, however the ingest ends.

A session comes into being with an answer. If the one who asked is cancelled meanwhile, the answer is awaited for a
moment, or nobody could delete what it opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from casproxy.errors import StorageError
from casproxy.outbound.grace import outlast, side_by_side
from casproxy.storage.oci.errors import Busy
from casproxy.storage.oci.repository import Repository, Session

T = TypeVar("T")

_GRACE_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0
_RELEASE_SECONDS: Final = 4.0
"""Less than the 5 s a failed upload may hold up its answer."""

_log = structlog.stdlib.get_logger("casproxy.storage")


class Sessions:
    """The sessions in ``repository`` that one ingest opened."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._open: set[Session] = set()

    async def start(self) -> Session:
        """One try to open a session."""
        started: Session | None = None

        async def start() -> None:
            nonlocal started
            started = await self.repository.start()
            self._open.add(started)

        await outlast(_GRACE_SECONDS, _LONGEST_SECONDS, start)
        if started is None:
            raise Busy(f"{self.repository.access.registry}: starting an upload took too long")
        return started

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """A session that has become a blob when the block ends well."""
        session = await self.start()
        yield session
        self.ended(session)

    def ended(self, session: Session | None) -> None:
        """The registry has closed ``session``: it became a blob."""
        if session is not None:
            self._open.discard(session)

    async def retried(self, operation: Callable[[], Awaitable[T]]) -> T:
        """See ``Retries.run``."""
        return await self.repository.access.retries.run(operation)

    async def release(self) -> None:
        """Delete the sessions that are open; a registry that does not answer in time keeps them until it purges."""
        sessions, self._open = self._open, set()
        if not sessions:
            return
        with trio.move_on_after(_RELEASE_SECONDS, shield=True) as scope:
            await side_by_side(*(partial(self._abandon, session) for session in sessions))
        if scope.cancelled_caught:
            _log.warning("session_not_deleted", registry=self.repository.access.registry, reason="no answer in time")

    async def _abandon(self, session: Session) -> None:
        try:
            await self.repository.abandon(session)
        except StorageError as error:
            _log.warning("session_not_deleted", registry=self.repository.access.registry, reason=str(error))
