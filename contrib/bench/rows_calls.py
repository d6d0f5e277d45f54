"""Rows 8 and 12: small calls against a bare h2 echo, and how soon a command answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from casproxy._proto.cas.v1 import resource_pb2
from casproxy.auth.mint import generate_keypair
from casproxy.bench.artifact import Pattern
from casproxy.bench.driver import DESCRIBE, open_driver, write_name
from casproxy.bench.load import Load, NameForm, Scenario, Target
from casproxy.bench.local import LocalServer
from casproxy.client.address import Address
from casproxy.client.messages import write_request_head
from contrib.bench import parties, raw_client
from contrib.bench.plan import Plan
from contrib.bench.rows_stream import WRITE
from contrib.bench.table import Figure, Table

_IN_FLIGHT = 64
_STARTS = 5


async def row_8(plan: Plan, table: Table, server: LocalServer) -> None:
    """Describe, and Write of what is stored, each 64 in flight on one connection, in turn with an echo on plain h2."""
    target = server.target("MEMORY")
    load = Load(Scenario.UPLOAD, size=256)
    pattern = Pattern(load.size)
    artifact = pattern.next()
    async with open_driver(target, load, pattern) as driver:
        await driver.upload(artifact)
    data = b"".join(pattern.pieces(artifact, 1024))
    describe = resource_pb2.ResourceServiceDescribeRequest(digest=str(artifact.digest)).SerializeToString()
    write = write_request_head(write_name(artifact, NameForm.GOB), True, len(data)) + data
    async with parties.module("h2_echo") as (_, facts):
        echo = Target("echo", Address.parse(facts["grpc"]), downloader_token=target.downloader_token)
        ratios: dict[str, list[float]] = {"Describe": [], "Write of a known artifact": []}
        for _ in range(plan.rounds):
            bare = await _rate(echo, DESCRIBE, echo.downloader_token, describe, plan.seconds)
            described = await _rate(target, DESCRIBE, target.downloader_token, describe, plan.seconds)
            written = await _rate(target, WRITE, target.uploader_token, write, plan.seconds)
            ratios["Describe"].append(described / bare)
            ratios["Write of a known artifact"].append(written / bare)
            table.see("h2 echo, Describe, known Write", bare, "/s")
            table.see("Describe", described, "/s")
            table.see("Write of a known artifact", written, "/s")
    for name, values in ratios.items():
        table.add(Figure(8, f"{name}, of a bare h2 echo", values, 1.5))


async def _rate(target: Target, path: str, token: str, body: bytes, seconds: float) -> float:
    def run() -> float:
        connection = raw_client.RawConnection(target.address.host, target.address.port, path, token)
        try:
            return raw_client.unary_rate(connection, body, seconds, _IN_FLIGHT)
        finally:
            connection.close()

    return await trio.to_thread.run_sync(run)


async def row_12(plan: Plan, table: Table) -> None:
    """``casproxy serve`` until its port answers, ``casproxy --help`` until it has ended; the best of five."""
    helps, serves = [], []
    for _ in range(_STARTS):
        helps.append(await trio.to_thread.run_sync(_help))
        serves.append(await trio.to_thread.run_sync(_serve))
    table.add(
        Figure(12, "casproxy serve ready, best of five", [min(serves)], 1.0, False, "s"),
        Figure(12, "casproxy --help, best of five", [min(helps)], 0.25, False, "s"),
    )


def _program() -> list[str]:
    return [str(Path(sys.executable).with_name("casproxy"))]


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([*_program(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _serve() -> float:
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        place = Path(directory)
        _, public = generate_keypair()
        (place / "public.pem").write_bytes(public)
        secrets = place / "secrets.yaml"
        secrets.write_text("{}")
        secrets.chmod(0o600)
        ports = [_free_port() for _ in range(3)]
        names = ("grpc", "http", "http_metrics")
        config = {
            "server": {name: {"addr": f"127.0.0.1:{port}"} for name, port in zip(names, ports, strict=True)},
            "auth": {"public_key_path": str(place / "public.pem")},
            "credentials_service": {"file": {"path": str(secrets)}},
        }
        (place / "config.yaml").write_text(json.dumps(config))
        began = time.perf_counter()
        with (place / "log").open("wb") as log:
            command = [*_program(), "serve", "--conf", str(place / "config.yaml")]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
        try:
            return _until_ready(process, ports[1], began, place / "log")
        finally:
            process.terminate()
            process.wait()


def _until_ready(process: subprocess.Popen[bytes], port: int, began: float, log: Path) -> float:
    while process.poll() is None and time.perf_counter() - began < 30:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"GET /statusz?readiness=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in probe.recv(100):
                    return time.perf_counter() - began
        except OSError:
            time.sleep(0.005)
    raise RuntimeError(f"casproxy serve is not ready: {log.read_text()[-500:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
