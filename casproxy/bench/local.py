"""Owns starting and ending the server of a run that names none. Refuses to know what that server is made of."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from casproxy.bench.load import Target
from casproxy.client.address import Address
from casproxy.errors import ConfigError

_START_SECONDS = 30.0
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server. ``tokens``: tenant -> role -> backend type -> token."""

    process_id: int
    address: Address
    metrics: Address
    control: Address
    tokens: dict[str, dict[str, dict[str, str]]]

    def target(self, backend_type: str, name: str = "casproxy", *, tenant: str = "bench") -> Target:
        """This server as the target of a run, its artifacts in one of a tenant's stores."""
        tokens = self.tokens[tenant]
        return Target(
            name=name,
            address=self.address,
            uploader_token=tokens["uploader"][backend_type],
            downloader_token=tokens["downloader"][backend_type],
            process_id=self.process_id,
            control=self.control,
        )


@asynccontextmanager
async def running_server(*options: str) -> AsyncIterator[LocalServer]:
    """``casproxy.bench.server`` with ``options`` in a directory of its own, both gone after the block.

    Raises ``ConfigError`` when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        command = [sys.executable, "-m", "casproxy.bench.server", directory, *options]
        async with running_program(command, Path(directory) / "server.log") as (process, line):
            facts = json.loads(line)
            yield LocalServer(
                process.pid,
                Address.parse(facts["grpc"]),
                Address.parse(facts["metrics"]),
                Address.parse(facts["control"]),
                facts["tokens"],
            )


@asynccontextmanager
async def running_program(command: Sequence[str], log: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """A program that prints one line when it is ready, and that line. SIGTERM ends it, SIGKILL if need be."""
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(list(command), stdout=subprocess.PIPE, stderr=errors)
    try:
        line = ""
        with trio.move_on_after(_START_SECONDS):
            line = await _first_line(process)
        if not line:
            raise ConfigError(f"the server to measure did not start: {_last_line(log)}")
        yield process, line
    finally:
        await _end(process)


async def _first_line(process: trio.Process) -> str:
    line = b""
    if process.stdout is not None:
        while not line.endswith(b"\n"):
            part = await process.stdout.receive_some()
            if not part:
                return ""
            line += part
    return line.decode()


async def _end(process: trio.Process) -> None:
    if process.stdout is not None:
        await trio.aclose_forcefully(process.stdout)
    process.terminate()
    with trio.move_on_after(_END_SECONDS, shield=True):
        await process.wait()
        return
    process.kill()


def _last_line(log: Path) -> str:
    return (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1][:500]
