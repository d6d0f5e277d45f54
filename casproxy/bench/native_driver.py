"""Owns the calls of a run made with this project's own client. Refuses to know scenarios."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio
from google.protobuf.message import DecodeError

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
from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata


class NativeDriver:
    """Implements ``driver.Driver``; its contract is there."""

    def __init__(self, channel: Channel, target: Target, load: Load, pattern: Pattern) -> None:
        self._channel = channel
        self._load = load
        self._pattern = pattern
        self._uploader = _bearer(target.uploader_token)
        self._downloader = _bearer(target.downloader_token)

    async def upload(self, artifact: Artifact) -> bool:
        with _failures():
            async with self._channel.call(WRITE, metadata=self._uploader) as call:
                complete, sent, name = True, 0, write_name(artifact, self._load.names)
                for piece in self._pattern.pieces(artifact, self._load.message_size):
                    sent += len(piece)
                    head = write_request_head(name, sent == artifact.size, len(piece))
                    name = ""
                    if not await call.send_message(head, piece):
                        complete = False
                        break
                if not artifact.size:
                    await call.send_message(write_request_head(name, True, 0))
                if complete:
                    await call.half_close()
                answer = await call.receive_message()
                if answer is None or await call.receive_message() is not None:
                    raise CallFailed("WRONG_ANSWER", "the upload was not answered with exactly one message")
            committed = bytestream_pb2.WriteResponse.FromString(answer).committed_size
        if committed != artifact.size:
            raise CallFailed("WRONG_ANSWER", f"{committed} bytes committed of {artifact.size}")
        return complete

    async def download(self, artifact: Artifact) -> None:
        request = bytestream_pb2.ReadRequest(resource_name=read_name(artifact, self._load.names))
        with _failures():
            async with self._channel.call(READ, metadata=self._downloader) as call:
                await call.send_message(request.SerializeToString())
                await call.half_close()
                offset = 0
                while (message := await call.receive_message()) is not None:
                    start = len(message) - len(read_response_data(message))
                    offset = self._pattern.check(artifact, offset, message, start)
        if offset != artifact.size:
            raise CallFailed("WRONG_ANSWER", f"{offset} bytes came of {artifact.size}, with status OK")

    async def describe(self, artifact: Artifact) -> None:
        request = resource_pb2.ResourceServiceDescribeRequest(digest=str(artifact.digest))
        with _failures():
            raw = await self._channel.unary(DESCRIBE, request.SerializeToString(), metadata=self._downloader)
            answer = resource_pb2.ResourceServiceDescribeResponse.FromString(raw).result
        check_described(artifact, answer.digest, answer.size)

    async def hold(self, upload: Upload, sent: trio.Event, release: trio.Event) -> None:
        artifact = upload.artifact
        with _failures():
            async with self._channel.call(WRITE, metadata=self._uploader) as call:
                piece = next(self._pattern.pieces(artifact, min(self._load.message_size, artifact.size - 1)))
                head = write_request_head(write_name(artifact, self._load.names), False, len(piece))
                await call.send_message(head, piece)
                sent.set()
                await release.wait()
                upload.ended_at = time.monotonic()


@asynccontextmanager
async def open_native(target: Target, load: Load, pattern: Pattern) -> AsyncIterator[NativeDriver]:
    """A driver over one connection, dialled by its first call."""
    async with open_channel(target.address.host, target.address.port, tls=target.tls) as channel:
        yield NativeDriver(channel, target, load, pattern)


def _bearer(token: str) -> Metadata:
    return Metadata([("authorization", f"Bearer {token}")] if token else [])


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except RpcError as error:
        raise CallFailed(error.code.name, error.message) from error
    except DecodeError as error:
        raise CallFailed("WRONG_ANSWER", "the answer is not the protobuf message it should be") from error
