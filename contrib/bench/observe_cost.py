"""Measure what observation costs a server: ``observe_cost.py [--size-mib N] [--rounds N]``.

Four servers, the same but for what watches them: none (no interceptor, no wrapper, no log line), default (as it comes),
all (traces to a collector, audit events to NATS if nats-server is installed, error reports switched on) and dead
(traces to a port where nobody listens). They are loaded by turns with the same artifact, up and down; what counts is
the processor time of the server for it, and of that the median over the rounds of each server's ratio to ``none`` in
the same round. Refuses to compare absolute figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import msgspec
import psutil
import trio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

import casproxy.app
from casproxy.client import Client, open_client
from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.config.model import NatsServer
from casproxy.config.observability import Observability, Sentry, Tracing
from casproxy.dev.place import Place, prepare
from casproxy.digest import Digest
from casproxy.observation import Observation
from casproxy.observe import log
from casproxy.ports import open_ports
from casproxy.rpc.api import Interceptor
from casproxy.secrets.api import SecretSource
from casproxy.services.readiness import Readiness
from casproxy.storage.api import BackendResolver
from casproxy.trust import TrustStore

_MIB = 1 << 20
_KINDS = ("none", "default", "all", "dead")
_START_SECONDS = 30.0
_LIMITS = {"default": 1.02, "all": 1.10, "dead": 1.10}
_NOBODY = "127.0.0.1:9"


def main() -> None:
    """Print the medians, and exit with 1 when one is over its limit."""
    parser = argparse.ArgumentParser(description="Measure what observation costs a server.")
    parser.add_argument("--size-mib", type=int, default=64, help="size of the artifact (default: %(default)s)")
    parser.add_argument("--per-round", type=int, default=4, help="transfers each way in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "PLACE", "ADDRESSES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, place, addresses = options.serve
        _serve(kind, Path(place), json.loads(addresses))
        return
    with tempfile.TemporaryDirectory(prefix="casproxy-observe-") as name, ExitStack() as stack:
        addresses = {"otlp": stack.enter_context(_collector()), "nats": stack.enter_context(_nats(Path(name)))}
        servers = {kind: stack.enter_context(_server(kind, Path(name) / kind, addresses)) for kind in _KINDS}
        ratios = trio.run(_measure, servers, options.size_mib * _MIB, options.per_round, options.rounds)
    over = [kind for kind, limit in _LIMITS.items() if statistics.median(ratios[kind]) > limit]
    for kind, found in ratios.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(f"{kind:<8} {statistics.median(found):.3f} of the processor time of none (rounds: {spread})")
    sys.exit(1 if over else 0)


# -- the measurement --------------------------------------------------------------------------------


async def _measure(
    servers: Mapping[str, tuple[psutil.Process, dict[str, str]]], size: int, per_round: int, rounds: int
) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {kind: [] for kind in _KINDS[1:]}
    for number in range(rounds + 1):
        contents = [os.urandom(size) for _ in range(per_round)]
        order = _KINDS if number % 2 else _KINDS[::-1]
        spent = {kind: await _round(*servers[kind], contents) for kind in order}
        if number:  # the first warms up
            for kind, found in ratios.items():
                found.append(spent[kind] / spent["none"])
            gigabytes = 2 * per_round * size / 1e9
            print(" ".join(f"{kind} {spent[kind] / gigabytes:.3f}" for kind in _KINDS), "CPU s/GB", flush=True)
    return ratios


async def _round(server: psutil.Process, dev: Mapping[str, str], contents: list[bytes]) -> float:
    """Processor seconds of the server for every artifact up and down."""

    async def discard(_piece: memoryview) -> None:
        pass

    before = _cpu_seconds(server)
    async with _client(dev, "uploader") as up, _client(dev, "downloader") as down:
        for content in contents:
            digest = Digest.of(content)
            await up.upload(content, digest=digest)
            await down.download(digest, discard)
    return _cpu_seconds(server) - before


@asynccontextmanager
async def _client(dev: Mapping[str, str], role: str) -> AsyncIterator[Client]:
    async with open_client(dev["grpc"], dev[role], insecure=True) as client:
        yield client


def _cpu_seconds(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


# -- the servers ------------------------------------------------------------------------------------


@contextmanager
def _server(kind: str, place: Path, addresses: Mapping[str, str]) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    place.mkdir()
    command = [sys.executable, __file__, "--serve", kind, str(place), json.dumps(addresses)]
    with (place / "log").open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            give_up, ready = time.monotonic() + _START_SECONDS, place / "ready.json"
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > give_up:
                    sys.exit(f"the server did not start:\n{(place / 'log').read_text()}")
                time.sleep(0.05)
            yield psutil.Process(process.pid), json.loads(ready.read_text())
        finally:
            process.terminate()


def _serve(kind: str, directory: Path, addresses: Mapping[str, str]) -> None:
    """One of the servers, in this process."""
    log.configure("info", "json")
    watched = nullcontext() if kind != "none" else patch.object(casproxy.app, "open_observation", _open_nothing)
    with watched, prepare(directory / "place", now=time.time()) as place:
        anywhere = "127.0.0.1:0"
        config = place.config(grpc=anywhere, http=anywhere, metrics=anywhere)
        if kind == "all":
            config = _everything(config, addresses)
        if kind == "dead":
            tracing = Tracing(enabled=True, endpoint=_NOBODY, insecure=True)
            config = msgspec.structs.replace(config, observability=Observability(tracing=tracing))
        with open_ports(config) as ports:

            async def tell() -> None:
                await trio.to_thread.run_sync(_tell, directory, place, ports.addresses()["grpc"])

            async def serve() -> None:
                await casproxy.app.run(config, ports, when_ready=tell)

            trio.run(serve)


def _tell(directory: Path, place: Place, grpc_address: str) -> None:
    told = {"grpc": grpc_address, "uploader": place.uploader_token, "downloader": place.downloader_token}
    (directory / "ready.tmp").write_text(json.dumps(told))
    (directory / "ready.tmp").rename(directory / "ready.json")


def _everything(config: Config, addresses: Mapping[str, str]) -> Config:
    return msgspec.structs.replace(
        config,
        observability=Observability(
            tracing=Tracing(enabled=True, endpoint=addresses["otlp"], insecure=True),
            sentry=Sentry(dsn=SecretStr(f"http://public@{_NOBODY}/1")),
        ),
        nats_server=NatsServer(uri=addresses["nats"]),
    )


class _Nothing(Observation):
    """Watches nothing; the metrics are there and stay as they are."""

    def interceptors(self) -> list[Interceptor]:
        """None."""
        return []

    def backends(self, resolver: BackendResolver) -> BackendResolver:
        """As they are."""
        return resolver

    @asynccontextmanager
    async def source(self, source: SecretSource) -> AsyncIterator[SecretSource]:
        """As it is."""
        yield source


@asynccontextmanager
async def _open_nothing(config: Config, readiness: Readiness, _trust: TrustStore) -> AsyncIterator[Observation]:
    yield _Nothing(config, readiness, None, None)


# -- where things go --------------------------------------------------------------------------------


class _Collector:
    def Export(self, _request: Any, _context: Any) -> Any:
        """Take spans."""
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def _collector() -> Iterator[str]:
    with futures.ThreadPoolExecutor(2) as workers:
        server = grpc.server(workers)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Collector(), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@contextmanager
def _nats(directory: Path) -> Iterator[str]:
    """The address of a server; of none, when the program is not installed: events then wait and are dropped."""
    program = shutil.which("nats-server")
    if program is None:
        print("nats-server is not installed: audit events go nowhere")
        yield "nats://127.0.0.1:9"
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory / "nats")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _create_stream(port)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.terminate()


def _create_stream(port: int) -> None:
    """What the control plane does for a real server; waits for the server to answer."""
    request = json.dumps({"name": "audit", "subjects": ["audit.>"]}).encode()
    create = b"PUB $JS.API.STREAM.CREATE.audit answers %d\r\n%b\r\n" % (len(request), request)
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=_START_SECONDS)
            break
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
    with closing(connection), connection.makefile("rwb") as stream:
        stream.write(b'CONNECT {"verbose":false}\r\nSUB answers 1\r\n' + create)
        stream.flush()
        while not stream.readline().startswith(b"MSG "):
            pass


if __name__ == "__main__":
    main()
