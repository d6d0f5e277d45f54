"""SIGTERM and a new process at the same ports, again and again, while clients go on working: no call fails for good.

The clients are grpcio's, unmodified. Each makes a call a second time if it ended with UNAVAILABLE, and only then: that
one waits for a connection (gRPC's wait-for-ready) and has to succeed. Long form (``CASPROXY_SOAK=1``): 100 restarts.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.dev.place import Place, prepare
from casproxy.digest import Digest
from casproxy_tests.e2e.peer import chunked, gob_name, write_requests
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS
from casproxy_tests.real.process import free_port, wait_until
from casproxy_tests.soak import LONG

T = TypeVar("T")

RESTARTS = 100 if LONG else 3
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
pytestmark = pytest.mark.timeout(3600 if LONG else 120)


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
    place: Place
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
        return int(write(requests, **self._options(self.place.uploader_token, ready)).committed_size)

    def _read(self, digest: Digest, ready: bool) -> bytes:
        read = self.channel.unary_stream(
            "/google.bytestream.ByteStream/Read",
            request_serializer=pb.ReadRequest.SerializeToString,
            response_deserializer=pb.ReadResponse.FromString,
        )
        answers = read(
            pb.ReadRequest(resource_name=gob_name(digest)), **self._options(self.place.downloader_token, ready)
        )
        return b"".join(answer.data for answer in answers)

    def _options(self, token: str, ready: bool) -> dict[str, object]:
        metadata = [("authorization", f"Bearer {token}")]
        return {"metadata": metadata, "wait_for_ready": ready, "timeout": CALL_SECONDS}


def test_restarts_under_load(tmp_path: Path) -> None:
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("grpc", "http", "http_metrics")}
    load = Load()
    with prepare(tmp_path / "place", now=time.time()) as place:
        config = write_config(tmp_path, place, ports)
        with ThreadPoolExecutor(CLIENTS) as threads, clients(ports["grpc"], place, load) as working:
            with serving(config, tmp_path / "serve.log"):
                ends = [threads.submit(client.work, seed) for seed, client in enumerate(working)]
                load.wait_for_more(ROUNDS_BETWEEN)
            for _ in range(RESTARTS):
                with serving(config, tmp_path / "serve.log"):
                    load.wait_for_more(ROUNDS_BETWEEN)
                    if load.ended:
                        break
            with serving(config, tmp_path / "serve.log"):
                load.end()
                for end in ends:
                    end.result(SLOWEST_SECONDS)
        shutil.rmtree(place.root / "store")
    print(f"{RESTARTS} restarts, {load.rounds} artifacts up and down, {load.repeated} calls made a second time")
    assert load.repeated, "no call met a restart: this proves nothing"


@contextmanager
def clients(address: str, place: Place, load: Load) -> Iterator[list[Client]]:
    """All of them; the load ends with the block, whatever happened."""
    channels = [grpc.insecure_channel(address, OPTIONS) for _ in range(CLIENTS)]
    try:
        yield [Client(channel, place, load) for channel in channels]
    finally:
        load.end()
        for channel in channels:
            channel.close()


def write_config(directory: Path, place: Place, ports: dict[str, str]) -> Path:
    path = directory / "server.yaml"
    server = {name: {"addr": address} for name, address in ports.items()}
    path.write_text(
        json.dumps(
            {
                "server": server,
                "auth": {"public_key_path": str(place.public_key)},
                "credentials_service": {"file": {"path": str(place.root / "secrets.yaml")}},
                "storage": {"fs": {"root": str(place.root / "store")}},
            }
        )
    )
    return path


@contextmanager
def serving(config: Path, log: Path) -> Iterator[None]:
    """``casproxy serve`` from when it serves to a SIGTERM at the end of the block; exit code 0."""
    with log.open("w") as out:
        process = subprocess.Popen([*PROGRAM, "serve", "--conf", str(config)], stderr=out)
    try:
        wait_until(lambda: process.poll() is not None or '"event":"serving"' in log.read_text(), log.read_text)
        assert process.poll() is None, log.read_text()
        yield
        process.terminate()
        assert process.wait(SLOWEST_SECONDS) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()
