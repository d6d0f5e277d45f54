"""Owns the typed calls of a caller. Refuses to know terminals, dev.json and HTTP/2."""

from __future__ import annotations

import math
import ssl
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from casproxy._proto.cas.v1 import resource_pb2, status_pb2
from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.client.address import Address
from casproxy.client.errors import SourceChanged, UnexpectedAnswer
from casproxy.client.progress import Phase, Progress, no_progress
from casproxy.client.retry import NO_RETRY, Attempts, Retry
from casproxy.client.source import Source, UploadData, open_source
from casproxy.client.target import Target, open_target, safe_file_name
from casproxy.client.tls import tls_context
from casproxy.client.transfer import Receiver, Sink, receive_write_answer, send_artifact
from casproxy.client.worker_file import in_worker
from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt, DigestMismatch, InvalidRequest
from casproxy.gob import encode_resource_name
from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.errors import RpcError
from casproxy.storage.api import Resource as Resource  # part of the API of this package
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode

M = TypeVar("M", bound=Message)
T = TypeVar("T")

UNARY_TIMEOUT = 30.0
"""Seconds a call without a stream may take when the caller says nothing."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An artifact that is stored now. ``size`` in bytes.

    ``deduplicated``: the server had it already and said so before it had taken all bytes. An artifact that fits
    the messages in flight travels whole either way, and then this is False.
    """

    digest: Digest
    size: int
    file_name: str
    deduplicated: bool


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself. ``backends``: the types it serves, sorted; ``chart_version`` may be empty."""

    version: str
    backends: tuple[str, ...]
    chart_version: str


class Client:
    """Calls to one server with one token. Safe for concurrent use by any number of tasks. Made by ``open_client``.

    Every call raises ``RpcError`` as the server ended it, after the retries that ``open_client`` was given. Timeouts
    in seconds, of the whole call, retries and waits included. Cancelling a call resets its stream; what that leaves
    behind is said at the method, and nothing if it says nothing.
    """

    def __init__(self, channel: Channel, token: str = "", retry: Retry = NO_RETRY) -> None:
        self._channel = channel
        self._metadata = Metadata([("authorization", f"Bearer {token}")] if token else [])
        self._retry = retry

    async def upload(
        self,
        data: UploadData,
        *,
        name: str | None = None,
        digest: Digest | None = None,
        timeout: float = math.inf,
        progress: Progress = no_progress,
    ) -> Uploaded:
        """Store a file, bytes or a stream.

        ``name``: the file name to store, default the path's last segment, else the digest. ``digest``: when the
        caller knows it; it saves hashing. ``timeout``: from the first byte sent; hashing takes what it takes. Errors:
        ``OSError`` of the source, ``SourceChanged`` (a file was written to meanwhile), ``DigestMismatch`` (``digest``
        is not that of ``data``), ``InvalidRequest`` for a name that no server takes. Nothing is stored in all these
        cases.
        """
        file_name = _file_name(data, name)
        async with open_source(data, progress, digest) as source:
            resource_name = encode_resource_name(file_name, source.digest)

            async def attempt(seconds: float) -> bool:
                await source.rewind()
                return await self._write(resource_name, source, seconds, progress)

            try:
                complete = await self._retried(attempt, Attempts(self._retry, timeout), progress)
            except DigestMismatch as error:
                if digest is None:
                    raise SourceChanged(source.label) from error
                raise
            return Uploaded(source.digest, source.size, file_name or source.digest.hex, not complete)

    async def download(
        self, digest: Digest, sink: Sink, *, timeout: float = math.inf, progress: Progress = no_progress
    ) -> Resource:
        """Pass an artifact to ``sink``, verified: the last piece comes only after the digest matched.

        A retry goes on at the byte reached: ``sink`` sees each byte once. Errors: ``ArtifactCorrupt`` when the bytes
        do not match, ``UnexpectedAnswer`` from a server that cannot go on in the middle; ``sink`` then never had a
        complete artifact. Whatever ``sink`` raises.
        """
        attempts = Attempts(self._retry, timeout)
        resource = await self._described(digest, attempts, progress, UNARY_TIMEOUT)
        await self._receive(Receiver(resource, sink, progress), attempts, progress)
        return resource

    async def download_file(
        self,
        digest: Digest,
        target: Path,
        *,
        force: bool = False,
        resume: bool = False,
        timeout: float = math.inf,
        progress: Progress = no_progress,
    ) -> Path:
        """Download to a file and return its path; into a directory under the last segment of the stored name.

        The file appears whole and verified or not at all. ``resume``: whatever ends the download before, a
        cancellation included, what has arrived stays beside it as ``NAME.DIGEST.part`` (12 digits of the digest), and
        the next download with ``resume`` goes on from there. The part is hashed again with the rest; if the whole does
        not match, everything is fetched anew (``Phase.RESTART``). Errors: ``TargetExists`` unless ``force``,
        ``TargetUnusable``, ``ArtifactCorrupt`` (nothing is kept), ``OSError``.
        """
        attempts = Attempts(self._retry, timeout)
        resource = await self._described(digest, attempts, progress, UNARY_TIMEOUT)
        inside = await in_worker(target.is_dir)
        path = target / safe_file_name(resource.file_name, digest) if inside else target
        async with open_target(path, force=force, resume=digest if resume else None) as file:
            try:
                await self._receive_file(resource, file, attempts, progress)
                await file.commit()
            except ArtifactCorrupt:
                file.discard()
                raise
            except RpcError as error:
                if error.code is StatusCode.DATA_LOSS:
                    file.discard()
                raise
            finally:
                if kept := file.size_kept():
                    progress(Phase.KEPT, kept, resource.size)
        return path

    async def describe(self, digest: Digest, *, timeout: float = UNARY_TIMEOUT) -> Resource:
        """The metadata of a stored artifact. Errors: ``RpcError`` NOT_FOUND when nothing is stored under ``digest``."""
        return await self._described(digest, Attempts(self._retry, timeout), no_progress)

    async def infoz(self, *, timeout: float = UNARY_TIMEOUT) -> ServerInfo:
        """What the server says of itself; needs no token."""
        answer = await self._unary(_INFOZ, status_pb2.InfozRequest(), status_pb2.InfozResponse, timeout)
        return ServerInfo(answer.version, tuple(answer.backends), answer.chart_version)

    async def statusz(self, *, readiness: bool = False, timeout: float = UNARY_TIMEOUT) -> str:
        """Return when the server lives (``readiness``: when it takes work); raises its ``RpcError`` otherwise.

        The text says what works badly there all the same; empty when all is well, or the server does not tell.
        """
        request = status_pb2.StatuszRequest(readiness=readiness).SerializeToString()
        async with self._channel.call(_STATUSZ, metadata=self._metadata, timeout=timeout) as call:
            await call.send_message(request)
            await call.half_close()
            while await call.receive_message() is not None:
                pass  # the answer has no fields
            return call.trailing_metadata.text("casproxy-trouble")

    async def _retried(self, attempt: Callable[[float], Awaitable[T]], attempts: Attempts, progress: Progress) -> T:
        """``attempt``, given the seconds it may take, again and again as ``attempts`` allows."""
        while True:
            try:
                return await attempt(attempts.seconds_left)
            except RpcError as error:
                if not await attempts.again(error, progress):
                    raise

    async def _described(
        self, digest: Digest, attempts: Attempts, progress: Progress, longest: float = math.inf
    ) -> Resource:
        """``longest``: seconds that one attempt may take."""
        request = resource_pb2.ResourceServiceDescribeRequest(digest=str(digest))

        async def attempt(seconds: float) -> resource_pb2.ResourceServiceDescribeResponse:
            answer = resource_pb2.ResourceServiceDescribeResponse
            return await self._unary(_DESCRIBE, request, answer, min(seconds, longest))

        found = (await self._retried(attempt, attempts, progress)).result
        attempts.got_further()
        if found.digest.removeprefix("sha256:") != digest.hex:
            raise UnexpectedAnswer("the server described another artifact than the one asked for")
        return Resource(digest, found.file_name, found.size)

    async def _write(self, resource_name: str, source: Source, seconds: float, progress: Progress) -> bool:
        """One attempt at an upload; False when the server answered before it had taken everything."""
        async with self._channel.call(_WRITE, metadata=self._metadata, timeout=seconds) as call:
            complete = await send_artifact(call, resource_name, source, progress)
            committed = await receive_write_answer(call)
        if committed != source.size:
            raise UnexpectedAnswer(f"the server committed {committed} bytes of {source.size}")
        return complete

    async def _receive_file(self, resource: Resource, file: Target, attempts: Attempts, progress: Progress) -> None:
        """Everything that ``file`` has not got yet; all of it once more when what it had was wrong."""
        receiver = Receiver(resource, file.write, progress, *await file.hash_part(progress))
        try:
            await self._receive(receiver, attempts, progress)
        except (ArtifactCorrupt, UnexpectedAnswer):
            if not receiver.resumed:
                raise
            progress(Phase.RESTART, 0, resource.size)
            await file.clear()
            await self._receive(Receiver(resource, file.write, progress), attempts, progress)

    async def _receive(self, receiver: Receiver, attempts: Attempts, progress: Progress) -> None:
        async def attempt(seconds: float) -> None:
            before = receiver.offset
            request = bytestream_pb2.ReadRequest(resource_name=receiver.artifact.digest.hex, read_offset=before)
            try:
                async with self._channel.call(_READ, metadata=self._metadata, timeout=seconds) as call:
                    await call.send_message(request.SerializeToString())
                    await call.half_close()
                    await receiver.receive(call)
            finally:
                if receiver.offset > before:
                    attempts.got_further()

        if not receiver.resumed or receiver.offset < receiver.artifact.size:
            await self._retried(attempt, attempts, progress)
        await receiver.finish()

    async def _unary(self, path: str, request: Message, answer: type[M], timeout: float) -> M:
        raw = await self._channel.unary(path, request.SerializeToString(), metadata=self._metadata, timeout=timeout)
        try:
            return answer.FromString(raw)
        except DecodeError as error:
            raise UnexpectedAnswer(f"the server's answer to {path} is not a {answer.DESCRIPTOR.name}") from error


_MAX_NAME_SIZE = 1024  # bytes; servers refuse longer ones, and after the file has been hashed

_WRITE = "/google.bytestream.ByteStream/Write"
_READ = "/google.bytestream.ByteStream/Read"
_DESCRIBE = "/cas.v1.ResourceService/Describe"
_INFOZ = "/cas.v1.StatusService/Infoz"
_STATUSZ = "/cas.v1.StatusService/Statusz"


@asynccontextmanager
async def open_client(
    target: str,
    token: str = "",
    *,
    insecure: bool = False,
    tls: ssl.SSLContext | None = None,
    connect_timeout: float = 10.0,
    retry: Retry = NO_RETRY,
) -> AsyncIterator[Client]:
    """A client of the server at ``target`` (``HOST:PORT``), for the length of the block.

    TLS with the system's CAs unless ``tls`` says otherwise; ``insecure``: HTTP/2 without TLS. Connects on first use.
    ``connect_timeout`` in seconds. ``retry``: what uploads, downloads and ``describe`` do when the server is
    unavailable; ``Retry()`` is good for a server that restarts. Raises ``InvalidRequest`` for an address or token that
    cannot be one.
    """
    address = Address.parse(target)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidRequest("the token has characters no token has: is it the right text or file?")
    context = None if insecure else tls or tls_context()
    try:
        async with open_channel(address.host, address.port, tls=context, connect_timeout=connect_timeout) as channel:
            yield Client(channel, token, retry)
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        only = group.exceptions[0]  # what the block raised; the nursery around it is no business of the caller
        raise only from only.__cause__


def _file_name(data: UploadData, name: str | None) -> str:
    chosen = name if name is not None else data.name if isinstance(data, Path) else ""
    if len(chosen.encode(errors="replace")) > _MAX_NAME_SIZE or any(map(_is_unfit, chosen)):
        raise InvalidRequest(
            f"the file name has control characters, is not UTF-8 or has more than {_MAX_NAME_SIZE} bytes: "
            "give another one with --name"
        )
    return chosen


def _is_unfit(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")  # Cs: bytes that were not UTF-8 (PEP 383)
