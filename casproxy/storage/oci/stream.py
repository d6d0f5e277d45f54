"""Owns the one streaming PATCH: a task that sends what another task writes, with nothing in between.

The channel holds no piece: ``write`` returns when the sender has taken the piece over. So a slow registry slows the
writer, and at most two pieces are here: the one being sent and the one being offered.
"""

from __future__ import annotations

import trio

from casproxy.digest import Digest
from casproxy.errors import BackendBroken, BackendUnavailable, StorageError
from casproxy.handover import Handover
from casproxy.outbound.message import Head
from casproxy.storage.api import Piece
from casproxy.storage.oci.access import Answer
from casproxy.storage.oci.repository import Session
from casproxy.storage.oci.sessions import Sessions


class Stream:
    """One PATCH in ``session``: ``run`` in a task, ``write`` in another, and ``finish``."""

    def __init__(self, sessions: Sessions, session: Session) -> None:
        self._sessions = sessions
        self._session = session
        self._pieces = Handover[Piece](0)
        self._body = _ChannelBody(self._pieces, session)
        self._ended = trio.Event()
        self.failure: StorageError | None = None
        """What the PATCH failed with, until it is raised: kept here then, it would hold all frames it goes through."""

    async def run(self) -> None:
        """Send until ``finish`` says that it is all, or the registry has had enough. Raises cancellation only.

        When the PATCH has failed, this returns before ``write`` or ``finish`` raise the ``failure``.
        """
        try:
            await self._sessions.repository.patch(self._session, self._body)
        except StorageError as error:
            self.failure = error.with_traceback(None)
        finally:
            self._body.close()
            self._ended.set()

    async def write(self, piece: Piece) -> None:
        """Hand over one piece, never an empty one. Errors: what ended the PATCH."""
        try:
            await self._pieces.send(piece)
        except trio.BrokenResourceError:
            await self._ended.wait()
            raise self.taken_failure() from None

    async def finish(self, digest: Digest, size: int) -> None:
        """All pieces are written: wait for the registry's word, then make the session a blob."""
        self._pieces.end()
        await self._ended.wait()
        if self.failure is not None:
            raise self.taken_failure()
        await self._sessions.retried(lambda: self._put(digest, size))
        self._sessions.ended(self._session)

    def taken_failure(self) -> StorageError:
        """The failure, to be raised."""
        failure, self.failure = self.failure, None
        return failure or BackendBroken("the registry ended the upload early")

    async def _put(self, digest: Digest, size: int) -> None:
        """The PUT without a body; lost in flight it may have worked, and then its session is gone."""
        repository = self._sessions.repository
        try:
            await repository.finish(self._session, digest, size)
        except BackendUnavailable:
            if not await repository.has_blob(digest, size):
                raise


class _ChannelBody:
    """The request body: whatever comes out of the channel.

    It never declares its size, not even when that is known: a body in chunks can be ended early, and every registry
    that streams takes chunks, for that is how ``docker push`` sends.
    """

    size: int | None = None

    def __init__(self, pieces: Handover[Piece], session: Session) -> None:
        self._pieces = pieces
        self._session = session

    async def receive(self) -> Piece:
        """See ``Body.receive``."""
        return await self._pieces.receive() or b""

    def answered(self, answer: Head) -> None:
        """See ``Body.answered``. However the PATCH ended, this is where its session goes on, or can be deleted."""
        if answer.status < 300:
            self._session.location = Answer(answer.status, answer.headers, b"", self._session.location).location()

    def close(self) -> None:
        """Nothing more is taken: whoever offers a piece hears it."""
        self._pieces.leave()
