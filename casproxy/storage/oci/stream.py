"""Owns the one streaming PATCH: a task that sends what another task writes, with nothing in between.

The channel holds no piece: ``write`` returns when the sender has taken the piece over. So a slow registry slows the
writer, and at most two pieces are here: the one being sent and the one being offered.
"""

from __future__ import annotations

from collections.abc import Callable

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
    """One PATCH: ``open``, then ``run`` in a task, ``write`` in another, and ``finish``.

    ``on_failure`` is called by ``run`` when the PATCH has failed, before ``write`` or ``finish`` raise the same.
    """

    def __init__(self, sessions: Sessions, on_failure: Callable[[StorageError], None]) -> None:
        self._sessions = sessions
        self._on_failure = on_failure
        self._session: Session | None = None
        self._pieces = Handover[Piece](0)
        self._body = _ChannelBody(self._pieces, self._on_answer)
        self._ended = trio.Event()
        self._failure: StorageError | None = None

    async def open(self) -> None:
        """Start the session. Errors: ``StorageError``."""
        self._session = await self._sessions.retried(self._sessions.start)

    async def run(self) -> None:
        """Send until ``finish`` says that it is all, or the registry has had enough. Raises cancellation only."""
        assert self._session is not None  # noqa: S101 - open() comes first
        try:
            await self._sessions.repository.patch(self._session, self._body)
        except StorageError as error:
            self._failure = error
            self._on_failure(error)
        finally:
            self._body.close()
            self._ended.set()

    async def write(self, piece: Piece) -> None:
        """Hand over one piece, never an empty one. Errors: what ended the PATCH."""
        try:
            await self._pieces.send(piece)
        except trio.BrokenResourceError:
            await self._ended.wait()
            raise self._failure or BackendBroken("the registry ended the upload early") from None

    async def finish(self, digest: Digest, size: int) -> None:
        """All pieces are written: wait for the registry's word, then make the session a blob."""
        self._pieces.end()
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure
        await self._sessions.retried(lambda: self._put(digest, size))
        self._sessions.ended(self._session)

    def _on_answer(self, answer: Head) -> None:
        """However the PATCH ended, this is where its session goes on, or can be deleted."""
        if self._session is not None and answer.status < 300:
            self._session.location = Answer(answer.status, answer.headers, b"", self._session.location).location()

    async def _put(self, digest: Digest, size: int) -> None:
        """The PUT without a body; lost in flight it may have worked, and then its session is gone."""
        assert self._session is not None  # noqa: S101 - open() comes first
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

    def __init__(self, pieces: Handover[Piece], on_answer: Callable[[Head], None]) -> None:
        self._pieces = pieces
        self.answered = on_answer

    async def receive(self) -> Piece:
        """See ``Body.receive``."""
        return await self._pieces.receive() or b""

    def close(self) -> None:
        """Nothing more is taken: whoever offers a piece hears it."""
        self._pieces.leave()
