"""Owns one upload: chunk -> sha256 -> ingest, three tasks joined by bounded handovers, then commit or abort.

::

    source ─▶ [chunk] ──queue of 2──▶ [hash] ──queue of 2──▶ [ingest] ─▶ store
               pieces                  sha256 inline,          write,
                                       size, cap               credit
        all three ended well AND the digest matches ─▶ commit      anything else ─▶ abort: the ingest is left

Hashing is inline: a worker thread per piece of 256 KiB halved the throughput and doubled the CPU when it was
measured, and a piece of at most 1 MiB holds the loop for 0.6 ms.

The sender's credit for a piece returns when the store has taken it. So a slow store slows its own sender, and what one
upload holds, in all stages and channels together, is no more than its sender's window. A payload byte is copied at most
once, see ``pieces``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from casproxy.digest import Digest
from casproxy.errors import AlreadyStored, DigestMismatch, InvalidRequest, SizeLimitExceeded
from casproxy.handover import Handover
from casproxy.pipeline.api import Expected, Limits, UploadSource
from casproxy.pipeline.chunk import Chunker
from casproxy.pipeline.run import Stage, one_cause, run_stages
from casproxy.storage.api import Backend, Ingest, NewResource, Piece, Resource
from casproxy.turns import give_way


async def upload(
    source: UploadSource, backend: Backend, resource: NewResource, expected: Expected, limits: Limits
) -> Resource:
    """Store what ``source`` sends under ``expected.digest``; returns what was committed, by this upload or its twin.

    Nothing is visible in the store unless this returns, with one exception: cancelled during the store's own commit
    (shielded by the store for at most 5 s) a complete, verified artifact may stay. In every other case the ingest has
    been released, and no task, channel or session is left. A release that hangs is given up after ``abort_timeout``.

    Errors, the most telling one of several: ``PeerGone``, ``SizeLimitExceeded``, ``InvalidRequest``,
    ``DigestMismatch``, ``PeerTooSlow``, ``StorageError``.
    """
    if expected.max_bytes and expected.size is not None and expected.size > expected.max_bytes:
        raise SizeLimitExceeded(want=expected.size, max_bytes=expected.max_bytes)
    with one_cause():
        try:
            async with _released(backend, resource, limits) as ingest:
                content = _Content(expected)
                await run_stages(**_stages(source, ingest, content, limits))
                content.verify()  # here, not in its stage: a handover also ends when the stage before it fails
                stored = await ingest.commit(expected.digest, content.size)
        except AlreadyStored as found:
            if expected.size not in (None, found.size):
                raise InvalidRequest(f"size mismatch: got={found.size}, want={expected.size}") from found
            return Resource(expected.digest, found.file_name, found.size)
    return stored


def _stages(source: UploadSource, ingest: Ingest, content: _Content, limits: Limits) -> dict[str, Stage]:
    """What moves all bytes into ``ingest`` and takes their measure in ``content``."""
    chunked, hashed = Handover[Piece](limits.queued_pieces), Handover[Piece](limits.queued_pieces)
    return {
        "chunk": Chunker(source, chunked, limits).run,
        "hash": partial(_hash_pieces, chunked, hashed, content),
        "ingest": partial(_ingest_pieces, hashed, ingest, source),
    }


async def _hash_pieces(chunked: Handover[Piece], hashed: Handover[Piece], content: _Content) -> None:
    try:
        while (piece := await chunked.receive()) is not None:
            await give_way()
            content.add(piece)
            await hashed.send(piece)
            del piece  # or a sender that pauses would have it held until the next
    finally:
        chunked.leave()
        hashed.end()


async def _ingest_pieces(hashed: Handover[Piece], ingest: Ingest, source: UploadSource) -> None:
    try:
        while (piece := await hashed.receive()) is not None:
            await ingest.write(piece)
            source.hand_on(len(piece))
            del piece
    finally:
        hashed.leave()


class _Content:
    """What has arrived, measured against what was named."""

    __slots__ = ("_expected", "_sha256", "size")

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self.size = 0

    def add(self, piece: Piece) -> None:
        """Count and hash a piece. ``SizeLimitExceeded`` or ``InvalidRequest`` as soon as there is too much."""
        self.size += len(piece)
        cap, declared = self._expected.max_bytes, self._expected.size
        if cap and self.size > cap:
            raise SizeLimitExceeded(want=self.size, max_bytes=cap)
        if declared is not None and self.size > declared:
            raise InvalidRequest(f"size mismatch: got more than {declared} bytes, want={declared}")
        self._sha256.update(piece)

    def verify(self) -> None:
        """``InvalidRequest`` for another size than declared, ``DigestMismatch`` for another digest than named."""
        if self._expected.size is not None and self.size != self._expected.size:
            raise InvalidRequest(f"size mismatch: got={self.size}, want={self._expected.size}")
        got = Digest(self._sha256.hexdigest())
        if got != self._expected.digest:
            raise DigestMismatch(got=got.hex, want=self._expected.digest.hex)


@asynccontextmanager
async def _released(backend: Backend, resource: NewResource, limits: Limits) -> AsyncIterator[Ingest]:
    """The backend's ingest, with a deadline for its release once the transfer has failed.

    A release that fails as well does not hide the failure: both leave, and ``one_cause`` ranks them. A cancellation
    that went in and did not come out was the ingest's own: it woke an idle transfer to tell what failed.
    """
    failure: BaseException | None = None
    try:
        with trio.CancelScope() as release:
            async with backend.ingest(resource) as ingest:
                try:
                    yield ingest
                except BaseException as error:
                    failure = error
                    release.deadline = trio.current_time() + limits.abort_timeout
                    raise
    except BaseException as error:
        if failure is None or error is failure:
            raise
        if isinstance(error, Exception) and (rest := _without_cancellation(failure)) is not failure:
            await trio.lowlevel.checkpoint_if_cancelled()  # or it came from outside, and wins over everything
            if rest is None:
                raise
            failure = rest
        raise BaseExceptionGroup("a transfer failed, and so did its release", [failure, error]) from None
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _without_cancellation(error: BaseException) -> BaseException | None:
    """``error`` without the cancellations in it; None when there is nothing else."""
    if isinstance(error, BaseExceptionGroup):
        cancelled, rest = error.split(trio.Cancelled)
        return error if cancelled is None else rest
    return None if isinstance(error, trio.Cancelled) else error
