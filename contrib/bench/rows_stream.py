"""Rows 1, 2, 11, 13 and 15: one stream against hash limit and peers, many streams, growth, TLS. No registry."""

from __future__ import annotations

import math
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import trio

from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.driver import write_name
from casproxy.bench.load import ClientKind, Load, NameForm, Scenario, Target
from casproxy.bench.local import LocalServer, running_server
from casproxy.bench.runner import Sample, measure
from casproxy.client import tls_context
from casproxy.client.messages import write_request_head
from contrib.bench import limits, parties, raw_client
from contrib.bench.certificates import write_certificate
from contrib.bench.plan import MIB, Plan
from contrib.bench.table import Figure, Table

WRITE = "/google.bytestream.ByteStream/Write"


async def rows_1_and_2(plan: Plan, table: Table, server: LocalServer) -> None:
    """One stream from a grpcio client; the peers take turns with us, and the hash limit is taken each round."""
    async with parties.peer("grpcio") as grpcio, parties.peer("grpclib") as grpclib:
        ours = server.target("MEMORY")
        for row, scenario in ((1, Scenario.UPLOAD), (2, Scenario.DOWNLOAD)):
            load = Load(scenario, size=plan.big, concurrency=1, count=1, client=ClientKind.GRPCIO, names=NameForm.GOB)
            pattern = Pattern(load.size)
            rounds = []
            for _ in range(plan.rounds):
                limit = limits.sha256_rate()
                rounds.append(
                    _Round(limit, *[await measure(target, load, pattern) for target in (ours, grpcio, grpclib)])
                )
            _stream_figures(table, row, scenario, rounds)
    await _go_frames(plan, table, server)


@dataclass(frozen=True, slots=True)
class _Round:
    """What was taken in turn. ``limit``: bytes per second that one core hashes."""

    limit: float
    ours: Sample
    grpcio: Sample
    grpclib: Sample


def _stream_figures(table: Table, row: int, scenario: Scenario, rounds: list[_Round]) -> None:
    part, faster, cheaper = (0.55, 1.3, 0.7) if row == 1 else (0.45, 1.6, 0.55)
    for name in ("ours", "grpcio", "grpclib"):
        samples: list[Sample] = [getattr(one, name) for one in rounds]
        table.see(f"{scenario} {name}", median(sample.throughput for sample in samples) / 1e6, "MB/s")
        table.see(f"{scenario} {name}", median(sample.cpu_per_gb for sample in samples), "CPU s/GB")
    table.see("sha256 on one core", max(one.limit for one in rounds) / 1e6, "MB/s")
    hashed = [one.ours.throughput / one.limit for one in rounds]
    of_grpcio = [one.ours.throughput / one.grpcio.throughput for one in rounds]
    cpu = [one.ours.cpu / one.grpcio.cpu for one in rounds]
    of_grpclib = [one.ours.throughput / one.grpclib.throughput for one in rounds]
    table.add(
        Figure(row, f"{scenario}, of what one core hashes", hashed, part),
        Figure(row, f"{scenario}, of the grpcio peer", of_grpcio, faster),
        Figure(row, f"{scenario}, CPU of the grpcio peer's", cpu, cheaper, False),
        Figure(row, f"{scenario}, of the grpclib peer", of_grpclib, 3.0),
    )


async def _go_frames(plan: Plan, table: Table, server: LocalServer) -> None:
    """Row 1 with 16 KiB frames."""
    target, pattern = server.target("MEMORY"), Pattern(plan.big)
    parts = []
    for _ in range(plan.rounds):
        limit = limits.sha256_rate()
        seconds = await trio.to_thread.run_sync(partial(raw_upload, target, pattern))
        parts.append(plan.big / seconds / limit)
    table.add(Figure(1, "upload in 16 KiB frames, of what one core hashes", parts, 0.4))


def raw_upload(target: Target, pattern: Pattern) -> float:
    """Upload an artifact of three mebibytes or more in 16 KiB frames, blocking; seconds."""
    messages = raw_messages(pattern, pattern.next())
    connection = raw_client.RawConnection(target.address.host, target.address.port, WRITE, target.uploader_token)
    try:
        began = time.perf_counter()
        raw_client.upload(connection, messages)
        return time.perf_counter() - began
    finally:
        connection.close()


def raw_messages(pattern: Pattern, artifact: Artifact) -> list[bytes | tuple[bytes, int]]:
    """The messages of an upload of three mebibytes or more, as ``raw_client.upload`` takes them."""
    pieces = pattern.pieces(artifact, MIB)
    middle = next(pieces)  # all are alike but the last
    *_, last = pieces
    return [
        write_request_head(write_name(artifact, NameForm.GOB), False, MIB) + bytes(middle),
        (write_request_head("", False, MIB) + bytes(middle), artifact.size // MIB - 2),
        write_request_head("", True, len(last)) + bytes(last),
    ]


async def row_11(plan: Plan, table: Table, server: LocalServer) -> None:
    """How late the event loop runs a timer while 32 streams are at full speed."""
    for scenario in (Scenario.UPLOAD, Scenario.DOWNLOAD):
        load = Load(scenario, size=16 * MIB, concurrency=32, connections=4, duration=plan.seconds)
        samples = [await measure(server.target("MEMORY"), load) for _ in range(plan.rounds)]
        table.add(Figure(11, f"loop lag, 32 {scenario}s, p99", [s.lag["p99"] for s in samples], 5.0, False, "ms"))


async def row_13(plan: Plan, table: Table, server: LocalServer) -> None:
    """CPU per GB and per call, from one stream to a thousand and from small artifacts to large ones, one at a time."""
    target = server.target("MEMORY")
    for scenario in (Scenario.UPLOAD, Scenario.DOWNLOAD):
        many = Load(scenario, size=MIB, concurrency=1000, connections=4, count=1000)
        one = Load(scenario, size=MIB, concurrency=1, count=plan.big // 4 // MIB)
        large = Load(scenario, size=plan.large, concurrency=1, count=1)
        await _growth(plan, table, target, f"{scenario}, CPU per GB, 1000 streams to 1", many, one, _per_gb)
        await _growth(
            plan, table, target, f"{scenario}, CPU per GB, 1 MiB to {plan.large // MIB} MiB", one, large, _per_gb
        )
    one = Load(Scenario.DESCRIBE, size=4096, concurrency=4, duration=plan.seconds)
    many = Load(Scenario.DESCRIBE, size=4096, concurrency=1000, connections=4, duration=plan.seconds)
    await _growth(plan, table, target, "describe, CPU per call, 1000 at once to 4", many, one, _per_call)


async def _growth(
    plan: Plan, table: Table, target: Target, what: str, much: Load, little: Load, cost: Callable[[Sample], float]
) -> None:
    ratios = [cost(await measure(target, much)) / cost(await measure(target, little)) for _ in range(plan.few)]
    table.add(Figure(13, what, [max(ratio, 1 / ratio) for ratio in ratios], 1.5, False))


def _per_gb(sample: Sample) -> float:
    return sample.cpu_per_gb


def _per_call(sample: Sample) -> float:
    return sample.cpu / sample.operations if sample.operations else math.nan


async def row_15(plan: Plan, table: Table, plain: LocalServer) -> None:
    """CPU per GB with TLS over that without."""
    async with _tls_server() as (secured, context):
        for scenario in (Scenario.UPLOAD, Scenario.DOWNLOAD):
            load = Load(scenario, size=plan.big // 2, concurrency=1, count=1)
            ratios = []
            for _ in range(plan.rounds):
                over_tls = await measure(_with_tls(secured.target("MEMORY"), context), load)
                ratios.append(over_tls.cpu_per_gb / (await measure(plain.target("MEMORY"), load)).cpu_per_gb)
            table.add(Figure(15, f"{scenario} over TLS, CPU of plaintext's", ratios, 2.0, False))


@asynccontextmanager
async def _tls_server() -> AsyncIterator[tuple[LocalServer, ssl.SSLContext]]:
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as directory:
        certificate, key = write_certificate(Path(directory))
        async with running_server("--certificate", str(certificate), "--private-key", str(key)) as server:
            yield server, tls_context(certificate)


def _with_tls(target: Target, context: ssl.SSLContext) -> Target:
    return replace(target, tls=context)
