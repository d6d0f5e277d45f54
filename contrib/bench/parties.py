"""Starts whoever takes part in a row: our server, peers, registries, limits. Each is gone when its block ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from casproxy.bench.load import Target
from casproxy.bench.local import LocalServer, running_program
from casproxy.client.address import Address

SEED = "sink"
REPO_PREFIX = "bench"


@asynccontextmanager
async def module(name: str, *arguments: str) -> AsyncIterator[tuple[int, dict[str, str]]]:
    """``python -m contrib.bench.NAME``: its process id and the facts it prints."""
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        command = [sys.executable, "-m", f"contrib.bench.{name}", *arguments]
        async with running_program(command, Path(directory) / "log") as (process, line):
            yield process.pid, json.loads(line)


@asynccontextmanager
async def peer(name: str) -> AsyncIterator[Target]:
    """A peer as a target: ``peer_grpcio`` or ``peer_grpclib``."""
    async with module(f"peer_{name}") as (process_id, facts):
        yield Target(name=name, address=Address.parse(facts["grpc"]), process_id=process_id)


@asynccontextmanager
async def sink() -> AsyncIterator[str]:
    """The registry that forgets; its ``host:port``."""
    async with module("registry_sink", SEED) as (_, facts):
        yield facts["http"]


def registry_program() -> str | None:
    """Where docker-registry is, None when it is not installed."""
    return shutil.which("docker-registry")


@asynccontextmanager
async def docker_registry() -> AsyncIterator[str]:
    """A real registry over a directory of its own; its ``host:port``."""
    program = registry_program()
    if program is None:
        raise FileNotFoundError("docker-registry is not installed")
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        log = Path(directory) / "registry.log"
        config = Path(directory) / "config.yml"
        config.write_text(_config(directory))  # a kilobyte, before anything is measured
        environment = {"OTEL_TRACES_EXPORTER": "none", "HOME": directory}
        with log.open("wb") as file:
            process = subprocess.Popen([program, "serve", str(config)], stdout=file, stderr=file, env=environment)  # noqa: ASYNC220
        try:
            yield await trio.to_thread.run_sync(_listening, log, process)
        finally:
            process.kill()
            process.wait()


def _config(directory: str) -> str:
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": f"{directory}/data", "maxthreads": 100},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "s" * 32},
        }
    )


def _listening(log: Path, process: subprocess.Popen[bytes]) -> str:
    marker = "listening on 127.0.0.1:"
    give_up = time.monotonic() + 20
    while marker not in (text := log.read_text("utf-8", "replace")):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"docker-registry did not start: {text[-500:]}")
        time.sleep(0.02)
    port = "".join(c if c.isdigit() else " " for c in text.split(marker, 1)[1]).split()[0]
    return f"127.0.0.1:{port}"


def gauge(server: LocalServer, name: str) -> float:
    """A metric of a server, the sum over its labels."""
    with urllib.request.urlopen(f"http://{server.metrics.host}:{server.metrics.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def renamed(target: Target, name: str) -> Target:
    """The same target under another name, for a row that compares loads and not servers."""
    return replace(target, name=name)
