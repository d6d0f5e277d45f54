"""Owns ``google.bytestream.ByteStream``: Write, Read and QueryWriteStatus. Refuses to know HTTP/2 and concrete stores.

A Write, in order: the token (an interceptor), the name, the secret (behind ``resolve``), is it stored already, the
pipeline. Nothing of the body is taken before the step that needs it; until then the client may send its first window.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.auth.claims import Claims
from casproxy.errors import ArtifactNotFound, InvalidRequest, PeerGone, PeerTooSlow
from casproxy.observe.facts import Downloaded, Uploaded
from casproxy.pipeline.api import Expected, Limits
from casproxy.pipeline.download import Wanted, download
from casproxy.pipeline.holding import Accounts
from casproxy.pipeline.lookup import describe, find
from casproxy.pipeline.upload import upload
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import StreamGone
from casproxy.services import resource_name
from casproxy.services.messages import read_response_prefix, receive_one
from casproxy.services.resource_name import ResourceName
from casproxy.services.tenant import tenant_of
from casproxy.services.write_source import WriteSource
from casproxy.storage.api import Backend, BackendResolver, NewResource, Piece, Resource


class ByteStream:
    """The handlers; each raises what its steps raise, translated by ``services.errors``."""

    def __init__(
        self, backends: BackendResolver, limits: Limits, accounts: Accounts, *, verify_resume: bool = True
    ) -> None:
        self._backends = backends
        self._limits = limits
        self._accounts = accounts
        self._verify_resume = verify_resume

    async def write(self, call: ServerCall) -> None:
        """Store an artifact under the digest its name tells; an artifact that is stored already is answered at once."""
        claims = call.attached(Claims)
        call.charge_to(claims.secret_id)
        source = WriteSource(call)
        name = resource_name.parse(await self._first_name(source))
        call.attach(name.digest)
        backend = await self._backends.resolve(tenant_of(claims))
        stored = await find(backend, name.digest, self._limits, by=call.deadline)
        if stored is None:
            stored = await self._upload(source, backend, name, claims)
            file_name = name.file_name if source.drained else stored.file_name
            call.attach(Uploaded(name.digest, stored.size, file_name, skipped=not source.drained))
        elif name.size not in (None, stored.size):
            raise InvalidRequest(f"size mismatch: got={stored.size}, want={name.size}")
        else:
            call.attach(Uploaded(name.digest, stored.size, stored.file_name, skipped=True))
        await call.send_message(pb.WriteResponse(committed_size=stored.size).SerializeToString())

    async def read(self, call: ServerCall) -> None:
        """Send an artifact, or a range of it, in messages of at most 1 MiB."""
        request = await receive_one(call, pb.ReadRequest)
        name = resource_name.parse(request.resource_name)
        wanted = Wanted(name.digest, request.read_offset, request.read_limit, name.size)
        backend = await self._backend(call, name)
        payer = call.attached(Claims).secret_id
        call.charge_to(payer)
        sent = await download(
            backend,
            _CallSink(call),
            wanted,
            self._limits,
            account=self._accounts.account(payer),
            verify_resume=self._verify_resume,
        )
        if sent.complete:
            call.attach(Downloaded(name.digest, sent.size))

    async def query_write_status(self, call: ServerCall) -> None:
        """Whether an artifact is stored: complete, or ``ArtifactNotFound``; there is no partly written one."""
        request = await receive_one(call, pb.QueryWriteStatusRequest)
        name = resource_name.parse(request.resource_name)
        backend = await self._backend(call, name)
        resource = await describe(backend, name.digest, self._limits, by=call.deadline)
        if name.size not in (None, resource.size):
            raise ArtifactNotFound(f"{name.digest} of {name.size} bytes")
        answer = pb.QueryWriteStatusResponse(committed_size=resource.size, complete=True)
        await call.send_message(answer.SerializeToString())

    async def _first_name(self, source: WriteSource) -> str:
        if name := source.read_name_nowait():
            return name
        with trio.move_on_after(self._limits.idle_timeout):
            return await source.read_name()
        raise PeerTooSlow(f"the sender named no resource within {self._limits.idle_timeout:g} s")

    def _upload(
        self, source: WriteSource, backend: Backend, name: ResourceName, claims: Claims
    ) -> Coroutine[Any, Any, Resource]:
        return upload(
            source,
            backend,
            NewResource(name.digest, name.title, name.size),
            Expected(name.digest, name.size, claims.max_bytes),
            self._limits,
        )

    async def _backend(self, call: ServerCall, name: ResourceName) -> Backend:
        call.attach(name.digest)
        return await self._backends.resolve(tenant_of(call.attached(Claims)))


class _CallSink:
    """A ``DownloadSink`` that makes each piece one ``ReadResponse``."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    async def send(self, piece: Piece) -> None:
        try:
            await self._call.send_message(read_response_prefix(piece), piece)
        except StreamGone as error:
            raise PeerGone("the client is gone") from error
