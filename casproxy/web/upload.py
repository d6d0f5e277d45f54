"""Owns ``PUT /upload[/{digest}]``: a body becomes an artifact. Refuses to know stores and HTTP versions.

With a digest in the path the body streams into the store through the same pipeline as a gRPC Write. Without one the
store cannot be told where the bytes will belong, so they wait in a staging file until their digest is known. A
client that names an artifact we have is told so before it sends anything if it asks (``Expect: 100-continue``).
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Protocol

from casproxy.auth.claims import Claims, Role
from casproxy.digest import Digest
from casproxy.errors import BackendBroken, SizeLimitExceeded
from casproxy.observe.facts import Uploaded
from casproxy.pipeline.api import Expected, Limits
from casproxy.pipeline.holding import Accounts, Holding, holding
from casproxy.pipeline.lookup import find
from casproxy.pipeline.upload import upload
from casproxy.storage.api import Backend, NewResource, Piece, Resource, check_file_name
from casproxy.web.access import Access
from casproxy.web.asgi import json_response
from casproxy.web.errors import DigestRequired, SizeConflict
from casproxy.web.exchange import Exchange
from casproxy.web.gate import Gate
from casproxy.web.pace import Pace, PaceLimits

_STAGE_BYTES = 1024 * 1024


class StagedFile(Protocol):
    """Bytes that wait; without a name on the disk, gone when closed."""

    @property
    def size(self) -> int:
        """Bytes so far."""

    async def append(self, piece: Piece) -> None:
        """Add bytes. ``StorageFull`` beyond the quota or the disk, ``BackendBroken``."""

    async def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``, at least 1 unless they end there."""

    def close(self) -> None:
        """Give the room back. Idempotent, never blocks."""


class StagingArea(Protocol):
    """Where bodies of unknown digest wait."""

    @property
    def available(self) -> bool:
        """There is a place for files."""

    def open(self) -> StagedFile:
        """A new, empty file; only where there is a place for it."""


class Uploads:
    """The handler."""

    def __init__(self, access: Access, gate: Gate, limits: Limits, accounts: Accounts, staging: StagingArea) -> None:
        self._access = access
        self._gate = gate
        self._limits = limits
        self._pace = PaceLimits(limits.idle_timeout, limits.min_rate)
        self._accounts = accounts
        self._staging = staging

    async def answer(self, exchange: Exchange) -> None:
        """Handle one PUT: 201 when the artifact is new, 200 when it was stored already."""
        with self._gate.enter():
            claims = await self._access.admit(exchange, Role.UPLOADER)
            name = check_file_name(exchange.request.query.get("filename", ""))
            announced = exchange.content_length
            if claims.max_bytes and announced is not None and announced > claims.max_bytes:
                raise SizeLimitExceeded(want=announced, max_bytes=claims.max_bytes)
            digest = Digest.parse(exchange.parameter) if exchange.parameter else None
            backend = await self._access.backend(claims)
            if digest is None:
                await self._upload_unnamed(exchange, backend, name, claims)
            else:
                await self._upload_named(exchange, backend, digest, name, claims)

    async def _upload_named(
        self, exchange: Exchange, backend: Backend, digest: Digest, name: str, claims: Claims
    ) -> None:
        exchange.digest = digest
        stored = await find(backend, digest, self._limits)
        announced = exchange.content_length
        if stored is not None:
            if announced not in (None, stored.size):
                raise SizeConflict(f"{digest} is stored with {stored.size} bytes, not {announced}")
            exchange.fact = Uploaded(digest, stored.size, stored.file_name, skipped=True)
            await exchange.discard_body(self._pace)
            await _tell(exchange, stored, HTTPStatus.OK)
            return
        resource = NewResource(digest, name or digest.hex, announced)
        expected = Expected(digest, announced, claims.max_bytes)
        with holding(self._accounts.account(claims.secret_id)) as held:
            source = _BodySource(exchange, held)
            stored = await upload(source, backend, resource, expected, self._limits)
        exchange.fact = Uploaded(digest, stored.size, name, skipped=not source.ended)
        if not source.ended:  # another upload of the same artifact was faster
            await exchange.discard_body(self._pace)
        await _tell(exchange, stored, HTTPStatus.CREATED if source.ended else HTTPStatus.OK)

    async def _upload_unnamed(self, exchange: Exchange, backend: Backend, name: str, claims: Claims) -> None:
        if not self._staging.available:
            raise DigestRequired(
                "this server has no place (staging.dir) for a body whose digest it must find out; "
                "name the digest: PUT /upload/sha256:…"
            )
        with holding(self._accounts.account(claims.secret_id)) as held:
            staged = self._staging.open()
            try:
                digest = exchange.digest = await self._stage(exchange, staged, claims.max_bytes, held)
                expected = Expected(digest, staged.size, claims.max_bytes)
                stored, exchange.fact = await self._store(_StagedSource(staged, held), backend, name, expected)
            finally:
                staged.close()
        await _tell(exchange, stored, HTTPStatus.OK if exchange.fact.skipped else HTTPStatus.CREATED)

    async def _store(
        self, source: _StagedSource, backend: Backend, name: str, expected: Expected
    ) -> tuple[Resource, Uploaded]:
        """What is stored in the end, and whether it was there before."""
        digest = expected.digest
        stored = await find(backend, digest, self._limits)
        if stored is not None:
            return stored, Uploaded(digest, stored.size, stored.file_name, skipped=True)
        resource = NewResource(digest, name or digest.hex, expected.size)
        stored = await upload(source, backend, resource, expected, self._limits)
        return stored, Uploaded(digest, stored.size, name, skipped=False)

    async def _stage(self, exchange: Exchange, staged: StagedFile, max_bytes: int, books: Holding) -> Digest:
        """Take the whole body into ``staged``; returns its digest."""
        sha256, parts, held, pace = hashlib.sha256(), list[bytes](), 0, Pace(self._pace)
        while (part := await exchange.receive_within(pace)) is not None:
            sha256.update(part)
            parts.append(part)
            held += len(part)
            books.took(len(part))
            if max_bytes and staged.size + held > max_bytes:
                raise SizeLimitExceeded(want=staged.size + held, max_bytes=max_bytes)
            if held >= _STAGE_BYTES or not books.may_take:
                await staged.append(b"".join(parts))
                books.let_go(held)
                parts, held = [], 0
        if parts:
            await staged.append(b"".join(parts))
            books.let_go(held)
        return Digest(sha256.hexdigest())


class _BodySource:
    """An ``UploadSource`` over a request's body, which has no credit of its own: it is read as there is room."""

    def __init__(self, exchange: Exchange, held: Holding) -> None:
        self._exchange = exchange
        self._holding = held
        self.ended = False
        """True once the whole body has been received."""

    async def receive(self) -> list[Piece]:
        await self._holding.wait()
        part = await self._exchange.receive()
        self.ended = part is None
        if part is None:
            return []
        self._holding.took(len(part))
        return [part]

    def receive_nowait(self) -> list[Piece] | None:
        return None

    def hand_on(self, size: int) -> None:
        self._holding.let_go(size)

    def starved(self) -> bool:
        return not self._holding.may_take


class _StagedSource:
    """An ``UploadSource`` over a staged file, read as there is room."""

    def __init__(self, staged: StagedFile, held: Holding) -> None:
        self._staged = staged
        self._holding = held
        self._offset = 0

    async def receive(self) -> list[Piece]:
        left = self._staged.size - self._offset
        if not left:
            return []
        piece = await self._staged.read(self._offset, min(left, await self._holding.reserve()))
        if not piece:
            raise BackendBroken("a staged body ends early")
        self._offset += len(piece)
        self._holding.took(len(piece))
        return [piece]

    def receive_nowait(self) -> list[Piece] | None:
        return None

    def hand_on(self, size: int) -> None:
        self._holding.let_go(size)

    def starved(self) -> bool:
        return not self._holding.may_take


async def _tell(exchange: Exchange, stored: Resource, status: HTTPStatus) -> None:
    facts = {"digest": str(stored.digest), "size": stored.size, "fileName": stored.file_name}
    await exchange.respond(json_response(status, facts, [("location", f"/download/{stored.digest}")]))
