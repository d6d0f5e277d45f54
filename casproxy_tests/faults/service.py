"""Owns the services over the real RPC stack on loopback, for a given ``BackendResolver``, and one caller of them.

Tokens are not the subject here: the caller says who it is in a header of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from casproxy._proto.cas.v1 import resource_pb2
from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.auth.claims import Claims, Role
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name
from casproxy.pipeline.api import Limits
from casproxy.rpc.api import Handler, ServerCall
from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import Server, ServerSettings
from casproxy.services import registry
from casproxy.services.errors import error_interceptor
from casproxy.services.readiness import Readiness
from casproxy.storage.api import BackendResolver
from casproxy.wire.budget import Budget
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode

CHUNK = 256 * 1024
_WHO = "x-secret-id"


@dataclass(frozen=True, slots=True)
class Got:
    """How a call ended and what it carried until then."""

    code: StatusCode
    data: bytes = b""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls as one tenant. ``served``: what the server is serving, of all tenants."""

    channel: Channel
    served: set[ServerCall]
    secret_id: str = "tenant"
    backend: str = "OCI"

    def as_tenant(self, secret_id: str) -> Caller:
        return Caller(self.channel, self.served, secret_id, self.backend)

    async def is_heard(self) -> None:
        """Return when the server has read everything this caller has sent, resets included: they come in order."""
        await self.channel.unary(registry.INFOZ.path, b"", metadata=self._metadata)

    @property
    def _metadata(self) -> Metadata:
        return Metadata([(_WHO, f"{self.backend} {self.secret_id}")])

    async def upload(self, data: bytes, name: str = "a.bin", *, digest: Digest | None = None) -> Got:
        """Write ``data``, under its digest unless another is named."""
        resource = encode_resource_name(name, digest or Digest.of(data))
        try:
            async with self.channel.call(registry.WRITE.path, metadata=self._metadata) as call:
                for start in range(0, len(data), CHUNK):
                    piece = data[start : start + CHUNK]
                    if not await call.send_message(
                        pb.WriteRequest(resource_name=resource, data=piece).SerializeToString()
                    ):
                        break
                await call.send_message(pb.WriteRequest(resource_name=resource, finish_write=True).SerializeToString())
                await call.half_close()
                answer = pb.WriteResponse.FromString(await call.receive_message() or b"")
                assert answer.committed_size == len(data) and await call.receive_message() is None
        except RpcError as error:
            return Got(error.code, message=error.message)
        return Got(StatusCode.OK)

    async def download(self, digest: Digest, offset: int = 0, limit: int = 0) -> Got:
        """Read; what came before a failure is in ``Got.data``."""
        request = pb.ReadRequest(resource_name=digest.hex, read_offset=offset, read_limit=limit)
        data = bytearray()
        try:
            async with self.channel.call(registry.READ.path, metadata=self._metadata) as call:
                await call.send_message(request.SerializeToString())
                await call.half_close()
                while (message := await call.receive_message()) is not None:
                    data += pb.ReadResponse.FromString(message).data
        except RpcError as error:
            return Got(error.code, bytes(data), error.message)
        return Got(StatusCode.OK, bytes(data))

    async def describe(self, digest: Digest) -> Got:
        """Describe; the file name is ``Got.data``."""
        request = resource_pb2.ResourceServiceDescribeRequest(digest=digest.hex)
        try:
            answer = await self.channel.unary(
                registry.DESCRIBE.path, request.SerializeToString(), metadata=self._metadata
            )
        except RpcError as error:
            return Got(error.code, message=error.message)
        found = resource_pb2.ResourceServiceDescribeResponse.FromString(answer).result
        assert found.digest == digest.hex
        return Got(StatusCode.OK, found.file_name.encode())


async def _believe(call: ServerCall, handler: Handler) -> None:
    backend, secret_id = call.metadata.text(_WHO).split()
    role = Role.UPLOADER if call.info == registry.WRITE else Role.DOWNLOADER
    call.attach(Claims(role, secret_id, backend, "00000000-0000-4000-8000-000000000000"))
    await handler(call)


@asynccontextmanager
async def serve_backends(backends: BackendResolver, limits: Limits | None = None) -> AsyncIterator[Caller]:
    """Serve for the block; what the block raises is not wrapped."""
    served: set[ServerCall] = set()

    async def note(call: ServerCall, handler: Handler) -> None:
        served.add(call)
        try:
            await handler(call)
        finally:
            served.remove(call)

    deps = registry.Dependencies(backends, limits or Limits(), Budget(1 << 28), "test", "", Readiness())
    server = Server(
        registry.methods(deps),
        interceptors=[note, error_interceptor(), _believe],
        settings=ServerSettings(drain_grace=5.0),
    )
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, [listener])
            async with open_channel("127.0.0.1", port) as channel:
                yield Caller(channel, served)
            server.start_draining()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__
