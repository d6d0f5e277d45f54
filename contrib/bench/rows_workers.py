"""Row 14: what a second worker on a second core is worth, of what a second core is worth to sha256 alone.

Twice the server, the cores and the clients: one worker, two clients and one core against two workers, four clients and
two cores. So a client costs the same share of what there is on both sides, and the limit is a core and not the client.
The single worker is the server without a supervisor; that the other side pays for one is part of the figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import trio

from casproxy.bench.local import running_program
from contrib.bench.plan import Plan
from contrib.bench.table import Figure, Table

_CLIENTS = 2
"""Of each worker: while one waits for credit, the other sends."""


async def row_14(plan: Plan, table: Table) -> None:
    """Uploads per second with one and two workers, and sha256 in one and two processes, in turn."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RuntimeError("needs two cores")
    ratios, seen = [], []
    async with _server(cores[:1], 1) as one, _server(cores, 2) as two:
        for _ in range(plan.rounds):
            hashed = await _rate(plan, cores[:1], 1)
            moved = await _rate(plan, cores[:1], _CLIENTS, one)
            moved_by_two = await _rate(plan, cores, 2 * _CLIENTS, two)
            hashed_twice = await _rate(plan, cores, 2)
            seen.append((hashed, hashed_twice, moved, moved_by_two))
            ratios.append(moved_by_two / moved / (hashed_twice / hashed))
    for what, values in zip(("sha256", "sha256 twice", "1 worker", "2 workers"), zip(*seen, strict=True), strict=True):
        table.see(f"row 14: {what}", median(values) / 1e6, "MB/s")
    table.add(Figure(14, "from 1 worker to 2, of what sha256 gains from a second core", ratios, 0.8))


@asynccontextmanager
async def _server(cores: Sequence[int], workers: int) -> AsyncIterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        command = [*_on(cores), "casproxy.bench.server", directory, "--workers", str(workers)]
        async with running_program(command, Path(directory) / "server.log") as (_, line):
            yield json.loads(line)


async def _rate(plan: Plan, cores: Sequence[int], processes: int, server: Mapping[str, Any] | None = None) -> float:
    """Bytes per second of all processes together, side by side on ``cores``: hashed, or uploaded to ``server``."""
    async with AsyncExitStack() as opened:
        loads = [await opened.enter_async_context(_load(plan, cores, server)) for _ in range(processes)]
        for load in loads:
            await _line(load)
        for load in loads:
            assert load.stdin is not None  # noqa: S101 - a pipe
            await load.stdin.send_all(b"\n")
        return sum([float(await _line(load)) for load in loads])


@asynccontextmanager
async def _load(plan: Plan, cores: Sequence[int], server: Mapping[str, Any] | None) -> AsyncIterator[trio.Process]:
    command, environment = [*_on(cores), "contrib.bench.load_process", str(plan.seconds)], dict(os.environ)
    if server is not None:
        command.append(server["grpc"])
        environment["CASPROXY_TOKEN"] = server["tokens"]["bench"]["uploader"]["MEMORY"]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        with trio.move_on_after(10, shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


async def _line(process: trio.Process) -> str:
    line = b""
    while not line.endswith(b"\n") and process.stdout is not None:
        part = await process.stdout.receive_some()
        if not part:
            raise RuntimeError("a load ended before it was done")
        line += part
    return line.decode()


def _on(cores: Sequence[int]) -> list[str]:
    """A Python program on these cores; the module's name follows."""
    return [sys.executable, "-m", "contrib.bench.pinned", ",".join(map(str, cores)), sys.executable, "-m"]
