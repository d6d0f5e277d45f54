"""Owns the calls of a run made with grpcio (C-core), as an independent client makes them: blocking calls in threads.

Messages are built and read by hand, as the native driver does, so that both measure the server and not protobuf.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from casproxy._proto.cas.v1 import resource_pb2
from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.driver import (
    DESCRIBE,
    READ,
    WRITE,
    CallFailed,
    Upload,
    check_described,
    read_name,
    write_name,
)
from casproxy.bench.load import Load, Target
from casproxy.client.messages import read_response_data, write_request_head
from casproxy.errors import ConfigError
from casproxy.in_thread import run_in_thread

T = TypeVar("T")

_OPTIONS = [
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # or several channels would share one connection
    ("grpc.enable_http_proxy", 0),
]


class GrpcioDriver:
    """Implements ``driver.Driver``; its contract is there."""

    def __init__(self, channel: Any, errors: type[Exception], target: Target, load: Load, pattern: Pattern) -> None:
        self._errors = errors
        self._load = load
        self._pattern = pattern
        self._write = channel.stream_unary(WRITE)
        self._read = channel.unary_stream(READ)
        self._describe = channel.unary_unary(DESCRIBE)
        self._uploader = _bearer(target.uploader_token)
        self._downloader = _bearer(target.downloader_token)
        self._threads = trio.CapacityLimiter(load.concurrency + 1)

    async def upload(self, artifact: Artifact) -> bool:
        taken = 0

        def requests() -> Iterator[bytes]:
            nonlocal taken
            for message in self._messages(artifact):
                yield message
                taken += 1

        raw = await self._call(lambda: self._write(requests(), metadata=self._uploader))
        committed = bytestream_pb2.WriteResponse.FromString(raw).committed_size
        if committed != artifact.size:
            raise CallFailed("WRONG_ANSWER", f"{committed} bytes committed of {artifact.size}")
        return taken * self._load.message_size >= artifact.size

    async def download(self, artifact: Artifact) -> None:
        request = bytestream_pb2.ReadRequest(resource_name=read_name(artifact, self._load.names)).SerializeToString()

        def receive() -> int:
            offset = 0
            for message in self._read(request, metadata=self._downloader):
                start = len(message) - len(read_response_data(message))
                offset = self._pattern.check(artifact, offset, message, start)
            return offset

        offset = await self._call(receive)
        if offset != artifact.size:
            raise CallFailed("WRONG_ANSWER", f"{offset} bytes came of {artifact.size}, with status OK")

    async def describe(self, artifact: Artifact) -> None:
        request = resource_pb2.ResourceServiceDescribeRequest(digest=str(artifact.digest)).SerializeToString()
        raw = await self._call(lambda: self._describe(request, metadata=self._downloader))
        answer = resource_pb2.ResourceServiceDescribeResponse.FromString(raw).result
        check_described(artifact, answer.digest, answer.size)

    async def hold(self, upload: Upload, sent: trio.Event, release: trio.Event) -> None:
        done = threading.Event()

        def requests() -> Iterator[bytes]:
            yield next(self._messages(upload.artifact))
            done.wait()

        call = self._write.future(requests(), metadata=self._uploader)
        try:
            sent.set()
            await release.wait()
        finally:
            upload.ended_at = time.monotonic()
            call.cancel()
            done.set()

    def _messages(self, artifact: Artifact) -> Iterator[bytes]:
        name, sent = write_name(artifact, self._load.names), 0
        for piece in self._pattern.pieces(artifact, self._load.message_size):
            sent += len(piece)
            yield b"".join((write_request_head(name, sent == artifact.size, len(piece)), piece))
            name = ""
        if not artifact.size:
            yield write_request_head(name, True, 0)

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await run_in_thread(work, limiter=self._threads)
        except self._errors as error:
            if not hasattr(error, "code"):
                raise
            code: Any = error.code()
            raise CallFailed(code.name, str(error)) from error


@asynccontextmanager
async def open_grpcio(target: Target, load: Load, pattern: Pattern) -> AsyncIterator[GrpcioDriver]:
    """A driver over one channel. ``ConfigError`` when grpcio is not installed."""
    try:
        import grpc
    except ImportError as error:
        raise ConfigError("--client grpcio needs grpcio: pip install 'casproxy[bench]'") from error
    with _channel(grpc, target) as channel:
        yield GrpcioDriver(channel, grpc.RpcError, target, load, pattern)


def _channel(grpc: Any, target: Target) -> Any:
    if target.tls is None:
        return grpc.insecure_channel(str(target.address), _OPTIONS)
    files = target.tls_files
    key = files.key or files.cert  # or it is in one file with its certificate
    roots, key_pem, chain = (None if path is None else path.read_bytes() for path in (files.ca, key, files.cert))
    return grpc.secure_channel(str(target.address), grpc.ssl_channel_credentials(roots, key_pem, chain), _OPTIONS)


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []
