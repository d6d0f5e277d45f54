"""Owns ``GET`` and ``HEAD /download/{digest}``: an artifact, or a range of it, to whoever has a downloader's token.

The last piece goes out only after the digest matched (``pipeline/download.py``), and the answer announces its length:
what is corrupt is broken off and never looks complete, not even when it was resumed. The answer begins with the first
piece, so that trouble before it is a clear error; only a corrupt artifact is begun and then broken off in any case, for
many clients store the body of an error like any other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

import trio

from casproxy.auth.claims import Role
from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt
from casproxy.observe.facts import Downloaded
from casproxy.pipeline.api import Limits
from casproxy.pipeline.download import Wanted, download
from casproxy.pipeline.holding import Account, Accounts
from casproxy.pipeline.lookup import describe
from casproxy.storage.api import Backend, Piece, Reader, Resource
from casproxy.web.access import Access
from casproxy.web.asgi import AbortResponse, Headers, error_response
from casproxy.web.exchange import Exchange
from casproxy.web.gate import Gate
from casproxy.web.headers import content_disposition, entity_tag, repr_digest
from casproxy.web.ranges import Range, Unsatisfiable, none_match, requested_range

_PIECE_BYTES = 256 * 1024


class Downloads:
    """The handlers. ``timeout`` (seconds) bounds one download from its first byte to its last."""

    def __init__(
        self,
        access: Access,
        gate: Gate,
        limits: Limits,
        accounts: Accounts,
        *,
        timeout: float,
        verify_resume: bool = True,
    ) -> None:
        self._access = access
        self._gate = gate
        self._limits = replace(limits, queued_pieces=0)  # browsers read slowly and come in numbers: little read-ahead
        self._accounts = accounts
        self._timeout = timeout
        self._verify_resume = verify_resume

    async def answer(self, exchange: Exchange) -> None:
        """Handle one GET or HEAD."""
        with self._gate.enter():
            with trio.move_on_after(self._timeout):
                await self._answer(exchange)
                return
            if exchange.started:
                raise AbortResponse
            message = f"the download did not begin within {self._timeout:g} s"
            await exchange.respond(error_response(HTTPStatus.GATEWAY_TIMEOUT, "TIMEOUT", message))

    async def _answer(self, exchange: Exchange) -> None:
        claims = await self._access.admit(exchange, Role.DOWNLOADER)
        digest = exchange.digest = Digest.parse(exchange.parameter)
        backend = await self._access.backend(claims)
        resource = await describe(backend, digest, self._limits)
        headers, tag = _headers(resource, exchange.request.query.get("filename", "")), entity_tag(digest)
        asked = exchange.request.headers
        if none_match(asked.get("if-none-match", ""), tag):
            await exchange.start(HTTPStatus.NOT_MODIFIED, headers)
            await exchange.finish()
            return
        if exchange.request.method == "HEAD":
            await exchange.start(HTTPStatus.OK, [*headers, ("content-length", str(resource.size))])
            await exchange.finish()
            return
        try:
            part = requested_range(asked.get("range", ""), asked.get("if-range", ""), tag, resource.size)
        except Unsatisfiable:
            await _refuse_range(exchange, resource.size)
            return
        account = self._accounts.account(claims.secret_id)
        await self._send(exchange, _InSmallPieces(backend), resource, part, headers, account)

    async def _send(
        self,
        exchange: Exchange,
        backend: Backend,
        resource: Resource,
        part: Range | None,
        headers: Headers,
        account: Account,
    ) -> None:
        size = resource.size
        sink = _ResponseSink(exchange, part, size, headers)
        wanted = Wanted(resource.digest, part.start if part else 0, part.length if part else 0, size)
        try:
            sent = await download(
                backend, sink, wanted, self._limits, account=account, verify_resume=self._verify_resume
            )
        except ArtifactCorrupt:
            await sink.begin()
            raise
        await sink.begin()
        await exchange.finish()
        if sent.complete:
            exchange.fact = Downloaded(resource.digest, size, resource.file_name)


class _ResponseSink:
    """A ``DownloadSink`` that begins the answer with its first piece."""

    def __init__(self, exchange: Exchange, part: Range | None, size: int, headers: Headers) -> None:
        self._exchange = exchange
        self._status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        length = size if part is None else part.length
        self._headers = [*headers, ("content-length", str(length))]
        if part is not None:
            self._headers.append(("content-range", part.content_range(size)))

    async def begin(self) -> None:
        """Begin the answer, unless it has begun."""
        if not self._exchange.started:
            await self._exchange.start(self._status, self._headers)

    async def send(self, piece: Piece) -> None:
        await self.begin()
        await self._exchange.send(piece)


class _InSmallPieces:
    """A store whose reads come in small pieces: what one slow client makes us hold is measured in pieces."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.describe = inner.describe
        self.ingest = inner.ingest
        self.check_writable = inner.check_writable

    @asynccontextmanager
    async def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AsyncIterator[Reader]:
        async with self._inner.read(digest, offset, limit) as reader:
            yield _SmallPieceReader(reader)


class _SmallPieceReader:
    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    @property
    def resource(self) -> Resource:
        return self._inner.resource

    async def receive(self, most: int = _PIECE_BYTES) -> Piece:
        return await self._inner.receive(min(most, _PIECE_BYTES))


def _headers(resource: Resource, wanted_name: str) -> list[tuple[str, str]]:
    digest = resource.digest
    return [
        ("content-type", "application/octet-stream"),
        ("content-disposition", content_disposition(wanted_name or resource.file_name, digest.hex)),
        ("etag", entity_tag(digest)),
        ("cache-control", "private, immutable"),
        ("accept-ranges", "bytes"),
        ("repr-digest", repr_digest(digest)),
        ("x-content-type-options", "nosniff"),
    ]


async def _refuse_range(exchange: Exchange, size: int) -> None:
    await exchange.respond(
        error_response(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "RANGE_NOT_SATISFIABLE",
            f"no byte of the {size} lies in the range asked for",
            headers=[("content-range", f"bytes */{size}"), ("accept-ranges", "bytes")],
        )
    )
