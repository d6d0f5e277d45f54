"""A small artifact server on the real RPC stack, whose misbehaviour a test chooses. For tests of the client side only.

Owns no rule of the API: what the real services do is tested with them, and end to end.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from casproxy._proto.cas.v1 import resource_pb2, status_pb2
from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.rpc.api import Method, MethodInfo, MethodKind, ServerCall
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import Server
from casproxy.services.resource_name import parse
from casproxy.wire.status import StatusCode

READ_PIECE = 1024 * 1024


@dataclass
class ArtifactServer:
    """``stored``: digest (hex) -> (file name, bytes). The other fields are what a test can turn."""

    stored: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    writes: list[list[bytestream_pb2.WriteRequest]] = field(default_factory=list)
    bytes_received: int = 0
    corrupt: bool = False
    """Reads give other bytes than were stored, with status OK."""
    fail_read_after: int | None = None
    """Reads end with UNAVAILABLE after this many pieces."""
    failures: dict[str, int] = field(default_factory=dict)
    """Method name -> how many of the next calls end with UNAVAILABLE; a Write after its first message."""
    offsets: list[int] = field(default_factory=list)
    """The ``read_offset`` of each Read."""
    ignores_offset: bool = False
    """Reads begin at the first byte, whatever they are asked for."""
    stalling: trio.Event = field(default_factory=trio.Event)
    """Set when a call begins to stall."""
    cancelled: trio.Event = field(default_factory=trio.Event)
    """Set when a stalled call was cancelled by its caller."""
    not_ready: str = ""
    answer_size: int | None = None
    """What Write answers instead of the size."""
    refuse: RpcError | None = None
    """How every call ends."""
    refuse_read: RpcError | None = None
    """How every Read ends, before its first piece."""
    reading: trio.Event = field(default_factory=trio.Event)
    """Set when a Read has sent its first piece."""
    stall: bool = False
    """Reads stop after their first piece and Writes before their answer, until cancelled."""

    def put(self, name: str, content: bytes) -> str:
        """Store directly; returns the digest's hex digits."""
        digest = hashlib.sha256(content).hexdigest()
        self.stored[digest] = (name, content)
        return digest

    def methods(self) -> list[Method]:
        byte_stream, resource, status = "google.bytestream.ByteStream", "cas.v1.ResourceService", "cas.v1.StatusService"
        return [
            Method(MethodInfo(byte_stream, "Write", MethodKind.CLIENT_STREAM), self._write),
            Method(MethodInfo(byte_stream, "Read", MethodKind.SERVER_STREAM), self._read),
            Method(MethodInfo(resource, "Describe", MethodKind.UNARY), self._describe),
            Method(MethodInfo(status, "Infoz", MethodKind.UNARY), self._infoz),
            Method(MethodInfo(status, "Statusz", MethodKind.UNARY), self._statusz),
        ]

    def _enter(self, call: ServerCall) -> None:
        self.tokens.append(call.metadata.text("authorization"))
        if self.refuse is not None:
            raise self.refuse

    def _fail(self, call: ServerCall) -> None:
        if left := self.failures.get(call.info.name, 0):
            self.failures[call.info.name] = left - 1
            raise RpcError(StatusCode.UNAVAILABLE, "the server restarts")

    async def _stall(self) -> None:
        self.stalling.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def _write(self, call: ServerCall) -> None:
        self._enter(call)
        requests: list[bytestream_pb2.WriteRequest] = []
        self.writes.append(requests)
        state, content = hashlib.sha256(), bytearray()
        while (message := await call.receive_message()) is not None:
            request = bytestream_pb2.WriteRequest.FromString(message)
            requests.append(request)
            self.bytes_received += len(request.data)
            state.update(request.data)
            content += request.data
            self._fail(call)
            name = parse(requests[0].resource_name)
            if name.digest.hex in self.stored:
                size = len(self.stored[name.digest.hex][1])
                await self._answer(call, bytestream_pb2.WriteResponse(committed_size=size))
                return
        if self.stall:
            await self._stall()
        if state.hexdigest() != name.digest.hex:
            raise RpcError(
                StatusCode.INVALID_ARGUMENT, f"digest mismatch: got={state.hexdigest()}, want={name.digest.hex}"
            )
        self.stored[name.digest.hex] = (name.file_name, bytes(content))
        await self._answer(call, bytestream_pb2.WriteResponse(committed_size=len(content)))

    async def _answer(self, call: ServerCall, answer: bytestream_pb2.WriteResponse) -> None:
        if self.answer_size is not None:
            answer.committed_size = self.answer_size
        await call.send_message(answer.SerializeToString())

    async def _read(self, call: ServerCall) -> None:
        self._enter(call)
        request = bytestream_pb2.ReadRequest.FromString(await call.receive_message() or b"")
        self.offsets.append(request.read_offset)
        _, content = self._find(request.resource_name)
        if self.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if not self.ignores_offset:
            content = content[request.read_offset :]
        self._fail(call)
        if self.refuse_read is not None:
            raise self.refuse_read
        for number, start in enumerate(range(0, len(content), READ_PIECE)):
            if number == self.fail_read_after:
                raise RpcError(StatusCode.UNAVAILABLE, "the store went away")
            response = bytestream_pb2.ReadResponse(data=content[start : start + READ_PIECE])
            await call.send_message(response.SerializeToString())
            self.reading.set()
            if self.stall:
                await self._stall()

    async def _describe(self, call: ServerCall) -> None:
        self._enter(call)
        self._fail(call)
        request = resource_pb2.ResourceServiceDescribeRequest.FromString(await call.receive_message() or b"")
        name, content = self._find(request.digest)
        digest = request.digest.removeprefix("sha256:")
        result = resource_pb2.CASResource(file_name=name, digest=digest, size=len(content))
        await call.send_message(resource_pb2.ResourceServiceDescribeResponse(result=result).SerializeToString())

    async def _infoz(self, call: ServerCall) -> None:
        self._enter(call)
        await call.receive_message()
        answer = status_pb2.InfozResponse(version="9.9", backends=["FS", "OCI"], chart_version="")
        await call.send_message(answer.SerializeToString())

    async def _statusz(self, call: ServerCall) -> None:
        self._enter(call)
        await call.receive_message()
        if self.not_ready:
            raise RpcError(StatusCode.UNAVAILABLE, self.not_ready)
        await call.send_message(b"")

    def _find(self, text: str) -> tuple[str, bytes]:
        found = self.stored.get(text.removeprefix("sha256:"))
        if found is None:
            raise RpcError(StatusCode.NOT_FOUND, f"artifact {text} not found")
        return found


@asynccontextmanager
async def serve(artifacts: ArtifactServer, port: int = 0) -> AsyncIterator[str]:
    """Serve on loopback for the block; yields ``127.0.0.1:PORT``. What the block raises is not wrapped."""
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(Server(artifacts.methods()).serve, [listener])
            yield f"127.0.0.1:{port}"
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__
