"""Rows 6, 9 and 10: what transfers hold, what idle ones hold, and how soon it is let go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from casproxy.bench import control
from casproxy.bench.artifact import Pattern
from casproxy.bench.driver import CallFailed, Driver, Upload, open_driver, write_name
from casproxy.bench.histogram import Histogram
from casproxy.bench.load import Load, NameForm, Scenario, Target
from casproxy.bench.local import running_server
from casproxy.bench.process import ProcessMeter
from casproxy.bench.runner import measure
from casproxy.client.messages import write_request_head
from contrib.bench import parties, raw_client
from contrib.bench.plan import MIB, Plan
from contrib.bench.rows_stream import WRITE
from contrib.bench.table import Figure, Table

_ON_ONE_CONNECTION = 900  # below the thousand that servers allow


@asynccontextmanager
async def _fresh(backend: str) -> AsyncIterator[Target]:
    """A new server, for memory once taken from the system is not always given back."""
    if backend != "OCI":
        async with running_server("--log-level", "warning") as server:
            yield server.target(backend)
        return
    async with parties.sink() as sink, running_server("--oci-repo", f"{sink}/bench") as server:
        yield server.target(backend)


async def row_6(plan: Plan, table: Table) -> None:
    """RSS above idle for one large artifact, and for 64 at once; each direction, each backend."""
    for backend in ("MEMORY", "FS", "OCI"):
        for scenario in (Scenario.UPLOAD, Scenario.DOWNLOAD):
            what = f"{backend} {scenario}"
            one = Load(scenario, size=plan.large, concurrency=1, count=1)
            many = Load(scenario, size=plan.many, concurrency=64, connections=4, count=64)
            sizes = (f"{plan.large // MIB} MiB", f"64 x {plan.many // MIB} MiB")
            table.add(Figure(6, f"{what}, {sizes[0]}", [await _growth(backend, one)], 32, False, "MiB"))
            table.add(Figure(6, f"{what}, {sizes[1]}", [await _growth(backend, many)], 160, False, "MiB"))


async def _growth(backend: str, load: Load) -> float:
    """MiB of RSS above what the process had when it had done the same with little."""
    async with _fresh(backend) as target:
        pattern = Pattern(load.size, parties.SEED.encode())
        warm = Load(load.scenario, size=MIB, concurrency=1, count=2)
        await measure(target, warm, Pattern(warm.size, parties.SEED.encode()))  # what the sink makes up
        before, after = (await measure(target, load, pattern)).server or (None, None)
        if before is None or after is None:
            raise RuntimeError("the server's memory cannot be read")
        return (after.peak - before.rss) / MIB


async def row_9(plan: Plan, table: Table) -> None:
    """Stalled uploads on one worker: RSS each, and what a live stream beside them keeps of its speed."""
    live = Load(Scenario.UPLOAD, size=64 * MIB, concurrency=1, duration=plan.seconds)
    for what, body_size, reach in (("idle", 0, 8), ("with the pipeline started", 1024, 20)):
        async with _fresh("MEMORY") as target:
            pattern = Pattern(live.size)
            alone = [(await measure(target, live, pattern)).throughput for _ in range(plan.rounds)]
            meter = ProcessMeter(target.process_id)
            before = meter.read().rss
            connections = await trio.to_thread.run_sync(partial(_stall, target, plan.stalled, body_size))
            beside = []
            with contextlib.ExitStack() as opened:
                for connection in connections:
                    opened.callback(connection.close)
                await _wait_for("open_ingests" if body_size else "tasks", plan.stalled, target)
                held = meter.read().rss - before - body_size * plan.stalled
                beside = [(await measure(target, live, pattern)).throughput for _ in range(plan.rounds)]
            table.add(
                Figure(
                    9, f"{plan.stalled} stalled, {what}: RSS each", [held / plan.stalled / 1024], reach, False, "KiB"
                )
            )
            kept = [after / first for first, after in zip(alone, beside, strict=True)]
            table.add(Figure(9, f"{plan.stalled} stalled, {what}: speed kept beside", kept, 0.9))


def _stall(target: Target, count: int, body_size: int) -> Sequence[raw_client.RawConnection]:
    pattern = Pattern(64 * MIB)
    connections = []
    for start in range(0, count, _ON_ONE_CONNECTION):
        address = target.address
        connection = raw_client.RawConnection(address.host, address.port, WRITE, target.uploader_token)
        bodies = [_first_message(pattern, body_size) for _ in range(start, min(count, start + _ON_ONE_CONNECTION))]
        raw_client.open_silent(connection, bodies)
        connections.append(connection)
    return connections


def _first_message(pattern: Pattern, body_size: int) -> bytes:
    if not body_size:
        return b""
    return write_request_head(write_name(pattern.next(), NameForm.GOB), False, body_size) + bytes(body_size)


async def _wait_for(what: str, count: int, target: Target) -> None:
    """Until the server has a task for each stalled call, or its store an open ingest."""
    assert target.control is not None  # noqa: S101  # our own server
    with trio.fail_after(60):
        while (await control.ask(target.control, "report"))[what] < count:  # noqa: ASYNC110  # another process
            await trio.sleep(0.2)
    await trio.sleep(0.5)


async def row_10(plan: Plan, table: Table) -> None:
    """A thousand live uploads, reset one after another: how long each was still held by the store."""
    count = min(1000, plan.stalled)
    async with _fresh("MEMORY") as target:
        load = Load(Scenario.CANCEL, size=64 * MIB, message_size=64 * 1024)
        pattern = Pattern(load.size)
        async with open_driver(target, load, pattern) as driver:
            uploads = await _reset_all(driver, pattern, count)
        assert target.control is not None  # noqa: S101  # our own server
        answer = await control.ask(target.control, "report")
        histogram = Histogram()
        for upload in uploads:
            histogram.record(answer["released"][upload.artifact.digest.hex] - upload.ended_at)
        table.add(
            Figure(10, f"{count} live, reset to released, p99", [histogram.percentile(99) * 1e3], 50, False, "ms")
        )
        table.add(Figure(10, "uploads still open afterwards", [answer["open_ingests"]], 0, False, "streams"))


async def _reset_all(driver: Driver, pattern: Pattern, count: int) -> list[Upload]:
    uploads = [Upload(pattern.next()) for _ in range(count)]
    releases = [trio.Event() for _ in uploads]
    async with trio.open_nursery() as nursery:
        for upload, release in zip(uploads, releases, strict=True):
            sent = trio.Event()
            nursery.start_soon(_held, driver, upload, sent, release)
            await sent.wait()
        await trio.sleep(1)  # until every pipeline has what was sent
        for release in releases:
            release.set()
            await trio.sleep(0.002)
    await trio.sleep(1)  # the last releases
    return uploads


async def _held(driver: Driver, upload: Upload, sent: trio.Event, release: trio.Event) -> None:
    try:
        await driver.hold(upload, sent, release)
    except CallFailed as error:
        raise RuntimeError("an upload ended before it was reset") from error
