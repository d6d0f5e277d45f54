"""Row 16: what the memory budget is worth when stores hang and readers sleep, and what it leaves to another tenant."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import trio

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.driver import READ, WRITE, open_driver, write_name
from casproxy.bench.load import Load, NameForm, Scenario, Target
from casproxy.bench.local import running_server
from casproxy.bench.process import ProcessMeter
from casproxy.bench.runner import measure
from casproxy.bench.scenarios import KEPT, STALLED
from casproxy.client.messages import write_request_head
from contrib.bench import raw_client
from contrib.bench.parties import gauge
from contrib.bench.plan import MIB, Plan
from contrib.bench.rows_stream import raw_messages
from contrib.bench.table import Figure, Table

_BUDGET = 128 * MIB
_OVERHEAD = 64  # MiB: tasks, sockets, floors of connections
_CONNECTIONS = 40
_MANY = 2000
_ARTIFACT = 64 * MIB
_MESSAGE = 7 * MIB  # servers take 8; never sent to its end
_QUIET_SECONDS = 1.0
_HELD = "casproxy_bytes_in_flight"
_FRAME = bytes(raw_client.FRAME_SIZE)


async def row_16(plan: Plan, table: Table) -> None:
    """Memory with stalled uploads and stalled downloads, and what a second tenant gets beside them."""
    await _stalled_uploads(plan, table)
    await _stalled_downloads(plan, table)


async def _stalled_uploads(plan: Plan, table: Table) -> None:
    """One tenant fills all it can towards a store that hangs; then another does the same, and a live upload runs."""
    streams = max(1, min(_MANY, plan.stalled) // _CONNECTIONS)
    live = Load(Scenario.UPLOAD, size=_ARTIFACT, concurrency=1, duration=plan.seconds)
    async with running_server("--log-level", "warning", "--memory-budget", str(_BUDGET)) as server:
        first = server.target("MEMORY")
        second = server.target("MEMORY", "neighbour", tenant="neighbour")
        pattern = Pattern(live.size)
        await measure(second, Load(Scenario.UPLOAD, size=_ARTIFACT, concurrency=1, count=1), pattern)
        meter = ProcessMeter(server.process_id)
        before = meter.read().rss
        alone = [(await measure(second, live, pattern)).throughput for _ in range(plan.rounds)]
        with contextlib.ExitStack() as opened:
            await trio.to_thread.run_sync(partial(_fill, opened, first, streams, pattern))
            taken = gauge(server, _HELD)
            grown = (meter.read().rss - before) / MIB
            beside = [(await measure(second, live, pattern)).throughput for _ in range(plan.rounds)]
            await trio.to_thread.run_sync(partial(_fill, opened, second, streams, pattern))
            also_taken = gauge(server, _HELD) - taken
            at_most = (meter.read().peak - before) / MIB
        count = streams * _CONNECTIONS
        table.see(f"held for the first tenant, {count} uploads to a store that hangs", taken / MIB, "MiB")
        table.see("held for the second, which does the same", also_taken / MIB, "MiB")
        table.see("RSS with the first alone", grown, "MiB")
        table.add(
            Figure(16, f"{count} uploads to a store that hangs, twice: RSS", [at_most], _BUDGET / MIB + _OVERHEAD,
                   False, "MiB"),
            Figure(16, "what the second tenant may fill, of the first's", [also_taken / taken], 0.4),
            Figure(16, "speed that a live upload of the second keeps",
                   [after / first for first, after in zip(alone, beside, strict=True)], 0.8),
        )  # fmt: skip


async def _stalled_downloads(plan: Plan, table: Table) -> None:
    """Readers that open a download and take no more than its first window; then another tenant reads."""
    streams = max(1, min(_MANY, plan.stalled) // _CONNECTIONS)
    async with running_server("--log-level", "warning", "--memory-budget", str(_BUDGET)) as server:
        first = server.target("FS")
        second = server.target("FS", "neighbour", tenant="neighbour")
        pattern = Pattern(_ARTIFACT)
        kept = pattern.next(KEPT)
        async with open_driver(first, Load(Scenario.UPLOAD, size=_ARTIFACT), pattern) as driver:
            await driver.upload(kept)
        live = Load(Scenario.DOWNLOAD, size=_ARTIFACT, concurrency=1, duration=plan.seconds)
        await measure(second, live, pattern)
        meter = ProcessMeter(server.process_id)
        before = meter.read().rss
        alone = [(await measure(second, live, pattern)).throughput for _ in range(plan.rounds)]
        with contextlib.ExitStack() as opened:
            refused = await trio.to_thread.run_sync(partial(_open_readers, opened, first, streams, kept))
            at_most = (meter.read().peak - before) / MIB
            beside = [(await measure(second, live, pattern)).throughput for _ in range(plan.rounds)]
        count = streams * _CONNECTIONS
        table.see(f"refused of {count} downloads that nobody reads", refused, "calls")
        table.add(
            Figure(16, f"{count} downloads that nobody reads: RSS", [at_most], _BUDGET / MIB + _OVERHEAD, False, "MiB"),
            Figure(16, "speed that a live download of another tenant keeps",
                   [after / first for first, after in zip(alone, beside, strict=True)], 0.8),
        )  # fmt: skip


def _fill(opened: contextlib.ExitStack, target: Target, streams: int, pattern: Pattern) -> None:
    """Open uploads on many connections and send all that credit allows, until none comes any more."""
    fillers = [
        threading.Thread(target=_fill_connection, args=(connection, streams, pattern))
        for connection in _connections(opened, target, WRITE, _CONNECTIONS)
    ]
    for filler in fillers:
        filler.start()
    for filler in fillers:
        filler.join()


def _fill_connection(connection: raw_client.RawConnection, streams: int, pattern: Pattern) -> None:
    raw_client.upload(connection, raw_messages(pattern, pattern.next()))  # its windows grow with use
    live = set()
    for _ in range(streams):
        stream_id, request = connection.open_stream()
        head = write_request_head(write_name(pattern.next(STALLED), NameForm.GOB), False, _MESSAGE)
        begun = b"\0" + (len(head) + _MESSAGE).to_bytes(4, "big") + head
        if connection.window < len(begun):
            break
        connection.send(request)
        _spend(connection, stream_id, begun)
        live.add(stream_id)
    while live:
        moved = sum(_spend(connection, stream_id, _FRAME) for stream_id in live)
        if not moved and connection.quiet_after(_QUIET_SECONDS):
            return
        while not connection.quiet_after(0):
            for kind, _, stream_id, _ in connection.receive():
                if kind in (raw_client.RESET, raw_client.HEADERS):
                    live.discard(stream_id)


def _spend(connection: raw_client.RawConnection, stream_id: int, data: bytes) -> int:
    """Send as much of ``data`` as there is credit for; returns its size."""
    size = max(0, min(len(data), connection.window, connection.stream_window[stream_id]))
    if size:
        connection.send(raw_client.frame(raw_client.DATA, 0, stream_id, data[:size]))
        connection.window -= size
        connection.stream_window[stream_id] -= size
    return size


def _open_readers(opened: contextlib.ExitStack, target: Target, streams: int, artifact: Artifact) -> int:
    """Open downloads, take what comes within each first window, and nothing more; returns how many were refused."""
    request = bytestream_pb2.ReadRequest(resource_name=artifact.digest.hex).SerializeToString()
    connections: Sequence[raw_client.RawConnection] = list(_connections(opened, target, READ, _CONNECTIONS))
    for connection in connections:
        batch = []
        for _ in range(streams):
            stream_id, headers = connection.open_stream()
            body = raw_client.grpc_message(request)
            batch.append(headers + raw_client.frame(raw_client.DATA, raw_client.END_STREAM, stream_id, body))
        connection.send(b"".join(batch))
    ended = set()
    for number, connection in enumerate(connections):
        while not connection.quiet_after(_QUIET_SECONDS):
            for kind, flags, stream_id, _ in connection.receive():
                if kind == raw_client.HEADERS and flags & raw_client.END_STREAM:
                    ended.add((number, stream_id))
    return len(ended)


def _connections(
    opened: contextlib.ExitStack, target: Target, path: str, count: int
) -> Iterator[raw_client.RawConnection]:
    token = target.uploader_token if path == WRITE else target.downloader_token
    for _ in range(count):
        connection = raw_client.RawConnection(
            target.address.host, target.address.port, path, token, stream_credit=65_535
        )
        opened.callback(connection.close)
        yield connection
