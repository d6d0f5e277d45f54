"""Owns clients that work on while their server is restarted: grpcio's, unmodified, each with a connection of its own.

Each makes a call a second time if it ended with UNAVAILABLE, and only then: that one waits for a connection (gRPC's
wait-for-ready) and has to succeed. Refuses to know what is restarted, and how.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import grpc

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.digest import Digest
from casproxy_tests.e2e.peer import chunked, gob_name, write_requests
from casproxy_tests.e2e.processes import SLOWEST_SECONDS

T = TypeVar("T")

CLIENTS = 4
ROUNDS_BETWEEN = CLIENTS
SIZES = (1000, 2_500_000)
CALL_SECONDS = 60.0
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@dataclass(slots=True)
class Load:
    """What all clients have done so far."""

    rounds: int = 0
    repeated: int = 0
    ended: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def count(self, *, rounds: int = 0, repeated: int = 0) -> None:
        with self.changed:
            self.rounds += rounds
            self.repeated += repeated
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait_for_more(self, rounds: int) -> None:
        """Return when that many rounds were made from now on, or a client has failed."""
        with self.changed:
            enough = self.rounds + rounds
            assert self.changed.wait_for(lambda: self.ended or self.rounds >= enough, SLOWEST_SECONDS)


@dataclass(frozen=True, slots=True)
class Client:
    """One client with a connection of its own."""

    channel: grpc.Channel
    uploader: str
    downloader: str
    load: Load

    def work(self, seed: int) -> None:
        """Upload and download one artifact after another until the load ends."""
        contents = random.Random(seed)
        try:
            for size in itertools.cycle(SIZES):
                if self.load.ended:
                    return
                content = contents.randbytes(size)
                digest = Digest.of(content)
                assert self._at_most_twice(partial(self._write, digest, content)) == size
                assert self._at_most_twice(partial(self._read, digest)) == content
                self.load.count(rounds=1)
        except BaseException:
            self.load.end()
            raise

    def _at_most_twice(self, call: Callable[[bool], T]) -> T:
        try:
            return call(False)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        self.load.count(repeated=1)
        return call(True)

    def _write(self, digest: Digest, content: bytes, ready: bool) -> int:
        write = self.channel.stream_unary(
            "/google.bytestream.ByteStream/Write",
            request_serializer=pb.WriteRequest.SerializeToString,
            response_deserializer=pb.WriteResponse.FromString,
        )
        requests = write_requests(gob_name(digest), chunked(content))
        return int(write(requests, **self._options(self.uploader, ready)).committed_size)

    def _read(self, digest: Digest, ready: bool) -> bytes:
        read = self.channel.unary_stream(
            "/google.bytestream.ByteStream/Read",
            request_serializer=pb.ReadRequest.SerializeToString,
            response_deserializer=pb.ReadResponse.FromString,
        )
        answers = read(pb.ReadRequest(resource_name=gob_name(digest)), **self._options(self.downloader, ready))
        return b"".join(answer.data for answer in answers)

    def _options(self, token: str, ready: bool) -> dict[str, object]:
        metadata = [("authorization", f"Bearer {token}")]
        return {"metadata": metadata, "wait_for_ready": ready, "timeout": CALL_SECONDS}


@contextmanager
def clients(address: str, uploader: str, downloader: str, load: Load, ca: bytes = b"") -> Iterator[list[Client]]:
    """All of them, with two tokens; over TLS with a ``ca``. The load ends with the block, whatever happened."""
    channels = [_channel(address, ca) for _ in range(CLIENTS)]
    try:
        yield [Client(channel, uploader, downloader, load) for channel in channels]
    finally:
        load.end()
        for channel in channels:
            channel.close()


def _channel(address: str, ca: bytes) -> grpc.Channel:
    if ca:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), OPTIONS)
    return grpc.insecure_channel(address, OPTIONS)
