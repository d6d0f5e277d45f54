"""Owns an independent peer: grpcio, unmodified, calling as Chainloop's own Go client does.

Names are gob, chunks 1 MiB, ``write_offset`` is always 0, ``finish_write`` comes in a message of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from casproxy._proto.cas.v1 import resource_pb2
from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name

CHUNK = 1024 * 1024
TIMEOUT_SECONDS = 100.0


def gob_name(digest: Digest, file_name: str = "artifact.bin") -> str:
    return encode_resource_name(file_name, digest)


def chunked(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


def write_requests(name: str, chunks: Iterable[bytes]) -> Iterator[bytestream_pb2.WriteRequest]:
    for chunk in chunks:
        yield bytestream_pb2.WriteRequest(resource_name=name, data=chunk)
    yield bytestream_pb2.WriteRequest(resource_name=name, finish_write=True)


@dataclass(frozen=True, slots=True)
class Peer:
    channel: grpc.Channel
    uploader: str
    downloader: str

    def write(self, requests: Iterable[bytestream_pb2.WriteRequest], token: str | None = None) -> int:
        call = self.channel.stream_unary(
            "/google.bytestream.ByteStream/Write",
            request_serializer=bytestream_pb2.WriteRequest.SerializeToString,
            response_deserializer=bytestream_pb2.WriteResponse.FromString,
        )
        answer = call(
            iter(requests), metadata=_bearer(self.uploader if token is None else token), timeout=TIMEOUT_SECONDS
        )
        return int(answer.committed_size)

    def read(self, name: str, token: str | None = None, read_offset: int = 0, read_limit: int = 0) -> bytes:
        call = self.channel.unary_stream(
            "/google.bytestream.ByteStream/Read",
            request_serializer=bytestream_pb2.ReadRequest.SerializeToString,
            response_deserializer=bytestream_pb2.ReadResponse.FromString,
        )
        request = bytestream_pb2.ReadRequest(resource_name=name, read_offset=read_offset, read_limit=read_limit)
        metadata = _bearer(self.downloader if token is None else token)
        return b"".join(answer.data for answer in call(request, metadata=metadata, timeout=TIMEOUT_SECONDS))

    def describe(self, digest: str, token: str | None = None) -> resource_pb2.CASResource:
        call = self.channel.unary_unary(
            "/cas.v1.ResourceService/Describe",
            request_serializer=resource_pb2.ResourceServiceDescribeRequest.SerializeToString,
            response_deserializer=resource_pb2.ResourceServiceDescribeResponse.FromString,
        )
        request = resource_pb2.ResourceServiceDescribeRequest(digest=digest)
        metadata = _bearer(self.downloader if token is None else token)
        answer: Any = call(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
        found: resource_pb2.CASResource = answer.result
        return found


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


@contextmanager
def connected(facts: dict[str, str]) -> Iterator[Peer]:
    """A peer of the server that ``dev.json`` tells of."""
    options = [("grpc.max_receive_message_length", 4 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(facts["grpc"], options) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT_SECONDS)
        yield Peer(channel, facts["uploader_token"], facts["downloader_token"])
