"""Owns a real ``casproxy serve`` with several workers for tests: its start, what it logs, its end. Waits on log lines.

Readiness is a line that the process writes, never a time; whatever a test does, no process is left.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.dev.place import Place, prepare
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name
from casproxy.rpc.api import ClientCall
from casproxy.rpc.channel import open_channel
from casproxy.wire.metadata import Metadata
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import PROGRAM

WRITE = "/google.bytestream.ByteStream/Write"
_PORTS = ("grpc", "http", "http_metrics")


def write_config(place: Place, path: Path, **server: Any) -> Path:
    """A configuration that serves from ``place`` on free ports; ``server``: more settings of that section."""
    settings = {
        "server": {name: {"addr": "127.0.0.1:0"} for name in _PORTS} | server,
        "auth": {"public_key_path": str(place.public_key)},
        "credentials_service": {"file": {"path": str(place.root / "secrets.yaml")}},
        "storage": {"fs": {"root": str(place.root / "store")}},
    }
    path.write_text(json.dumps(settings))  # YAML is a superset of JSON
    return path


@dataclass
class Service:
    """A running service. ``lines``: what it has logged as far as that was read."""

    process: trio.Process
    place: Place
    lines: list[dict[str, Any]] = field(default_factory=list)
    _unread: bytes = b""

    async def line(self, event: str, **facts: object) -> dict[str, Any]:
        """The first log line with this event and these facts, from the start on; waits for it."""
        wanted, at = {"event": event, **facts}, 0
        while True:
            for line in self.lines[at:]:
                if wanted.items() <= line.items():
                    return line
            at = len(self.lines)
            await self._read()

    async def rest(self) -> list[dict[str, Any]]:
        """All lines, once the service and its workers have ended."""
        try:
            while True:
                await self._read()
        except EOFError:
            return self.lines

    async def _read(self) -> None:
        assert self.process.stderr is not None
        data = await self.process.stderr.receive_some()
        if not data:
            raise EOFError(f"the service has ended: {self.lines[-5:]}")
        *lines, self._unread = (self._unread + bytes(data)).split(b"\n")
        self.lines += map(_parsed, lines)

    async def address(self, port: str) -> str:
        """Where one of its ports is."""
        return str((await self.line("serving", workers=2))[port])

    async def worker_process(self, number: int, *, other_than: int = 0) -> int:
        """The process id of a worker, waiting for another one than the given."""
        pid = int((await self.line("worker started", worker=number))["pid"])
        if pid == other_than:
            pids = [
                line["pid"] for line in self.lines if line["event"] == "worker started" and line["worker"] == number
            ]
            while pids[-1] == other_than:
                await self._read()
                pids = [
                    line["pid"] for line in self.lines if line["event"] == "worker started" and line["worker"] == number
                ]
            pid = int(pids[-1])
        return pid

    async def get(self, port: str, path: str) -> httpx.Response:
        """One request on a connection of its own."""
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
            return await client.get(f"http://{await self.address(port)}{path}", timeout=30)

    async def scrape(self) -> dict[str, float]:
        """All samples, by name and labels as they are written."""
        text = (await self.get("metrics", "/metrics")).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return await self.process.wait()


def _parsed(line: bytes) -> dict[str, Any]:
    """A log line; what is none (a traceback of a program that cannot even start) is kept for who reads the failure."""
    facts: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {"event": line.decode()}
    return facts


@asynccontextmanager
async def serving(directory: Path, **server: Any) -> AsyncIterator[Service]:
    """``casproxy serve`` with two workers, both at work. Ended by SIGTERM if the test did not, and then with code 0."""
    with prepare(directory / "place", now=time.time()) as place:
        config = write_config(place, directory / "config.yaml", **{"workers": 2, **server})
        process = await trio.lowlevel.open_process(
            [*PROGRAM, "serve", "--conf", str(config)], cwd=directory, stderr=subprocess.PIPE
        )
        service = Service(process, place)
        try:
            for number in (1, 2):
                await service.worker_process(number)
            yield service
            if process.returncode is None:
                assert await service.end() == 0, service.lines
        finally:
            with trio.move_on_after(30, shield=True):
                process.kill()
                await process.wait()
                await service.rest()  # its workers hold the pipe as long as they live
            assert process.stderr is not None
            await process.stderr.aclose()


@dataclass(frozen=True, slots=True)
class HalfUpload:
    """An upload that is under way, on a connection of its own."""

    call: ClientCall
    content: bytes

    async def finish(self) -> int:
        """Send the second half; the size that the server has stored."""
        await self.call.send_message(_request("", self.content, len(self.content) // 2, finish=True))
        await self.call.half_close()
        answer = await self.call.receive_message()
        assert answer is not None
        return int(bytestream_pb2.WriteResponse.FromString(answer).committed_size)


@asynccontextmanager
async def half_upload(service: Service, content: bytes) -> AsyncIterator[HalfUpload]:
    """Half of ``content`` sent; the call ends with the block."""
    host, _, port = (await service.address("grpc")).rpartition(":")
    metadata = Metadata([("authorization", f"Bearer {service.place.uploader_token}")])
    async with open_channel(host, int(port)) as channel, channel.call(WRITE, metadata=metadata) as call:
        name = encode_resource_name("x.bin", Digest.of(content))
        await call.send_message(_request(name, content[: len(content) // 2], 0))
        yield HalfUpload(call, content)


def _request(name: str, content: bytes, offset: int, *, finish: bool = False) -> bytes:
    request = bytestream_pb2.WriteRequest(
        resource_name=name, write_offset=offset, data=content[offset:], finish_write=finish
    )
    return request.SerializeToString()


async def uploads_running(service: Service, count: int) -> Mapping[str, float]:
    """The scrape that first counts so many uploads in flight."""
    name = (
        'casproxy_streams_in_flight{grpc_method="Write",grpc_service="google.bytestream.ByteStream",'
        'grpc_type="client_stream"}'
    )
    while (scrape := await service.scrape())[name] != count:
        await trio.lowlevel.checkpoint()
    return scrape
