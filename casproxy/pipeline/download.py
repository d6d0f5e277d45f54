"""Owns one download: read -> sha256 -> send, three tasks joined by bounded handovers, the last piece held back.

::

    store ─▶ [read] ──queue of 2──▶ [hash] ──queue of 2──▶ [send] ─▶ sink
              reopens a broken       keeps one piece until the next
              connection             has come, or the digest matched

What is verified: the whole artifact, always; a range that reaches the end (a resumed download), by reading and
hashing the bytes before it too (``verify_resume``). A range that ends earlier is passed on as the store gives it, for
nobody knows its digest.

What one download holds is bounded: two pieces in the hash stage, one in each of the others, ``queued_pieces`` in each
channel, and less when its tenant's share of the memory budget is used up (``holding``). No payload byte is copied here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import trio

from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt, ArtifactNotFound, BackendUnavailable, InvalidRequest, OffsetOutOfRange
from casproxy.handover import Handover
from casproxy.pipeline.api import DownloadSink, Limits
from casproxy.pipeline.holding import Account, Holding, Unbounded, holding
from casproxy.pipeline.lookup import describe
from casproxy.pipeline.pieces import split
from casproxy.pipeline.run import one_cause, reason, run_stages
from casproxy.storage.api import Backend, Piece
from casproxy.turns import give_way

UNBOUNDED: Final = Unbounded()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller wants, sizes in bytes. ``limit`` 0 = to the end; a limit past the end is cut.

    ``size``: the artifact's size as the caller believes, None = it does not say.
    """

    digest: Digest
    offset: int = 0
    limit: int = 0
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was sent: ``sent`` bytes of an artifact of ``size`` bytes. ``complete``: its last byte was among them."""

    sent: int
    size: int
    complete: bool


async def download(
    backend: Backend,
    sink: DownloadSink,
    wanted: Wanted,
    limits: Limits,
    *,
    account: Account = UNBOUNDED,
    verify_resume: bool = True,
) -> Delivery:
    """Send what is ``wanted`` of an artifact to ``sink``; returns what was sent.

    A verified read sends its last piece only after the digest matched, so that no receiver ever holds a complete
    corrupt artifact; a mismatch is ``ArtifactCorrupt``. A connection to the store that breaks is reopened from the
    byte reached, hash carried on, at most ``limits.resume_attempts`` times. However this ends, no task, channel or
    connection is left.

    Errors: ``InvalidRequest`` (limit < 0), ``ArtifactNotFound`` (also: of another size), ``OffsetOutOfRange``,
    ``ArtifactCorrupt``, ``PeerGone``, ``PeerTooSlow``, ``MemoryShort``, other ``StorageError``.
    """
    if wanted.limit < 0:
        raise InvalidRequest(f"read_limit {wanted.limit} is negative")
    with one_cause():
        plan = await _plan(backend, wanted, limits, verify_resume)
        if isinstance(plan, Delivery):
            return plan
        with holding(account) as held:
            return await _transfer(backend, sink, wanted, plan, limits, held)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to read from the store: ``count`` bytes from ``start``, 0 = to the end; the first ``skip`` are not sent."""

    start: int
    count: int
    skip: int
    verified: bool
    inner: bool = False
    """It ends before the artifact does."""


async def _plan(backend: Backend, wanted: Wanted, limits: Limits, verify_resume: bool) -> _Plan | Delivery:
    """What to read, or the delivery itself when there is nothing to send.

    Reading everything needs no look-up; a range must know where the end is.
    """
    if wanted.offset == 0 and wanted.limit == 0:
        return _Plan(start=0, count=0, skip=0, verified=True)
    resource = await describe(backend, wanted.digest, limits)
    _check_size(wanted, resource.size)
    if not 0 <= wanted.offset <= resource.size:
        raise OffsetOutOfRange(offset=wanted.offset, size=resource.size)
    if wanted.offset == resource.size:
        return Delivery(0, resource.size, complete=resource.size == 0)
    if wanted.limit and wanted.offset + wanted.limit < resource.size:
        return _Plan(start=wanted.offset, count=wanted.limit, skip=0, verified=False, inner=True)
    if wanted.offset == 0 or verify_resume:
        return _Plan(start=0, count=0, skip=wanted.offset, verified=True)
    return _Plan(start=wanted.offset, count=0, skip=0, verified=False)


def _check_size(wanted: Wanted, size: int) -> None:
    if wanted.size is not None and wanted.size != size:
        raise ArtifactNotFound(f"{wanted.digest} of {wanted.size} bytes")


async def _transfer(
    backend: Backend, sink: DownloadSink, wanted: Wanted, plan: _Plan, limits: Limits, held: Holding
) -> Delivery:
    was_read, hashed = Handover[Piece](limits.queued_pieces), Handover[Piece](limits.queued_pieces)
    sent = 0

    async def send_pieces() -> None:
        nonlocal sent
        try:
            while (piece := await hashed.receive()) is not None:
                await trio.lowlevel.checkpoint()  # the sink's writer has its turn before more is queued for it
                await sink.send(piece)
                sent += len(piece)
                held.let_go(len(piece))
                del piece  # let go also of itself
        finally:
            hashed.leave()

    reading = _ReadStage(backend, was_read, wanted, plan, limits, held)
    hashing = _HashStage(was_read, hashed, wanted.digest, plan, held)
    await run_stages(read=reading.run, hash=hashing.run, send=send_pieces)
    return Delivery(sent, reading.size, complete=not plan.inner)


class _ReadStage:
    """Reads what is planned, across broken connections, and ends with an empty piece.

    Without that mark the next stage could not tell the end from a failure, which ends the handover as well.
    """

    def __init__(
        self,
        backend: Backend,
        pieces: Handover[Piece],
        wanted: Wanted,
        plan: _Plan,
        limits: Limits,
        held: Holding,
    ) -> None:
        self._backend = backend
        self._pieces = pieces
        self._wanted = wanted
        self._plan = plan
        self._attempts_left = limits.resume_attempts
        self._holding = held
        self._read = 0
        self.size = 0

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._read_on()
                except (BackendUnavailable, ExceptionGroup) as error:
                    broken = isinstance(reason(error), BackendUnavailable)
                    if not broken or self._read == 0 or self._attempts_left == 0:
                        raise
                    self._attempts_left -= 1
                else:
                    await self._pieces.send(b"")
                    return
        finally:
            self._pieces.end()

    async def _read_on(self) -> None:
        """Read from the byte reached to the end of the plan, on one connection."""
        remaining = self._plan.count - self._read
        if self._plan.count and not remaining:
            return
        limit = remaining if self._plan.count else 0
        async with self._backend.read(self._wanted.digest, self._plan.start + self._read, limit) as reader:
            self.size = reader.resource.size
            _check_size(self._wanted, self.size)
            while received := await reader.receive(await self._holding.reserve()):
                self._holding.took(len(received))
                for piece in split(received):
                    await self._pieces.send(piece)
                self._read += len(received)
            self._holding.took(0)


class _HashStage:
    """Hashes what is verified and keeps the last piece back until the digest matched."""

    def __init__(
        self,
        pieces: Handover[Piece],
        verified: Handover[Piece],
        digest: Digest,
        plan: _Plan,
        held: Holding,
    ) -> None:
        self._pieces = pieces
        self._verified = verified
        self._digest = digest
        self._plan = plan
        self._sha256 = hashlib.sha256()
        self._held: Piece = b""
        self._to_skip = plan.skip
        self._holding = held

    async def run(self) -> None:
        try:
            while piece := await self._pieces.receive():
                await self._pass_on(piece)
            if piece is None:
                raise trio.EndOfChannel  # the stage before has failed, and its reason is heard
            if self._plan.verified:
                self._verify()
                if self._held:
                    await self._verified.send(self._held)
        finally:
            self._pieces.leave()
            self._verified.end()

    async def _pass_on(self, piece: Piece) -> None:
        if not self._plan.verified:
            await self._verified.send(piece)
            return
        await give_way()
        self._sha256.update(piece)
        if self._held:
            await self._verified.send(self._held)
        self._held = self._unskipped(piece)

    def _unskipped(self, piece: Piece) -> Piece:
        """The part of ``piece`` that was asked for; the bytes before it were read for the digest only."""
        if not self._to_skip:
            return piece
        skipped = min(self._to_skip, len(piece))
        self._to_skip -= skipped
        self._holding.let_go(skipped)
        return memoryview(piece)[skipped:]

    def _verify(self) -> None:
        got = self._sha256.hexdigest()
        if got != self._digest.hex:
            raise ArtifactCorrupt(got=got, want=self._digest.hex)
