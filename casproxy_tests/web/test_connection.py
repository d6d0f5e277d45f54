"""Connections: who stalls whom, what a peer that leaves or creeps costs, HTTP/2's credit, drains, cancellation."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from casproxy.auth.claims import Role
from casproxy.digest import Digest
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.oci.staging import Staging
from casproxy.web.pace import Pace, PaceLimits
from casproxy.web.server import HttpSettings
from casproxy_tests.cancellation.harness import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.world import World, bearer, until, world

BIG = bytes(16 * 1024 * 1024)


def request(digest: Digest) -> bytes:
    return f"GET /download/{digest} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer()['authorization']}\r\n\r\n".encode()


@asynccontextmanager
async def deaf(server: World) -> AsyncIterator[trio.SocketStream]:
    """A connection with a tiny receive buffer, from which nobody reads."""
    raw = trio.socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await raw.connect(("127.0.0.1", server.port))
    async with trio.SocketStream(raw) as stream:
        yield stream


def received(server: World) -> int:
    return server.store.calls["receive"]


async def settled(server: World) -> int:
    """How many pieces were read from the store when nothing moves any more."""
    seen = -1
    while seen != received(server):
        seen = received(server)
        await trio.sleep(0.1)
    return seen


# -- readers -----------------------------------------------------------------------------------------


async def test_a_reader_that_stalls_stops_the_store_and_nobody_else() -> None:
    async with world() as server, deaf(server) as stalled:
        digest = await server.put(BIG)
        await stalled.send_all(request(digest))
        await until(lambda: received(server) > 0)
        read = await settled(server)
        assert read < 16  # of 16 pieces of 1 MiB and the end: the rest waits
        answer = await server.get(f"/download/{digest}", bearer())
        assert answer.content == BIG


async def test_a_reader_that_leaves_stops_the_store_at_once() -> None:
    async with world() as server:
        digest = await server.put(BIG)
        async with deaf(server) as stream:
            await stream.send_all(request(digest))
            await until(lambda: server.store.open_readers == 1)
        await until(lambda: server.store.open_readers == 0)
        assert received(server) < 16
        await until(lambda: server.metric("casproxy_http_requests_in_flight") == 0)
        labels = {"method": "GET", "route": "/download/{digest}"}
        assert server.metric("casproxy_http_requests_total", **labels, code="499") == 1


async def test_a_client_that_leaves_while_the_store_is_silent_is_noticed() -> None:
    async with world(Fault("receive", stall=True)) as server:
        digest = await server.put(b"x")
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(request(digest))
            await server.store.faults[0].reached.wait()
        await until(lambda: server.store.open_readers == 0)


async def test_a_reader_below_the_least_rate_is_ended() -> None:
    async with world(http=HttpSettings(pace=PaceLimits(idle_timeout=0.3))) as server, deaf(server) as stalled:
        digest = await server.put(BIG)
        await stalled.send_all(request(digest))
        await until(lambda: server.store.open_readers == 1)
        await until(lambda: server.store.open_readers == 0)


async def test_a_slow_reader_that_goes_on_is_waited_for() -> None:
    """It takes longer than the patience for one piece, in which each of its reads is progress."""
    pace = PaceLimits(idle_timeout=0.5)
    async with world(http=HttpSettings(pace=pace)) as server, deaf(server) as slow:
        digest = await server.put(BIG[: 2 * 1024 * 1024])
        await slow.send_all(request(digest))
        got = 0
        began = trio.current_time()
        while trio.current_time() - began < 3 * pace.idle_timeout:
            got += len(await slow.receive_some(1024))
            await trio.sleep(0.01)
        assert server.store.open_readers == 1
        while part := await slow.receive_some(65536):
            got += len(part)
            if got > len(BIG) // 8:
                break


def test_pace() -> None:
    pace = Pace(PaceLimits(idle_timeout=10, min_rate=5))
    pace.waited(9, 49)
    assert pace.left == 1 and not pace.exhausted
    pace.waited(0.5, 1)
    assert pace.left == 10
    pace.waited(10, 49)
    assert pace.exhausted


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with world(http=HttpSettings(max_connections=1)) as server, deaf(server) as first:
        await first.send_all(b"GET /infoz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await first.receive_some(100)).startswith(b"HTTP/1.1 200")
        async with deaf(server) as second:
            assert await second.receive_some(1) == b""


async def test_an_idle_connection_is_closed() -> None:
    async with world(http=HttpSettings(keep_alive_seconds=0.1)) as server, deaf(server) as idle:
        assert await idle.receive_some(1) == b""


# -- HTTP/2 ------------------------------------------------------------------------------------------


class Http2Client:
    """The other end, by hand: it gives credit when told to, and never by itself."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []

    async def start(self) -> None:
        self.state.initiate_connection()
        await self.flush()

    async def request(self, stream_id: int, path: str, method: str = "GET", role: Role = Role.DOWNLOADER) -> None:
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.state.send_headers(stream_id, [*headers, *bearer(role).items()], end_stream=method == "GET")
        await self.flush()

    async def flush(self) -> None:
        await self.stream.send_all(self.state.data_to_send())

    async def until(self, kind: type[h2.events.Event], stream_id: int) -> h2.events.Event:
        """Read until such an event of a stream."""
        with trio.fail_after(20):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and getattr(event, "stream_id", None) == stream_id:
                        self.events.remove(event)
                        return event
                data = await self.stream.receive_some(65536)
                assert data, "the connection ended"
                self.events += self.state.receive_data(data)
                await self.flush()


@asynccontextmanager
async def http2(server: World) -> AsyncIterator[Http2Client]:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        client = Http2Client(stream)
        await client.start()
        yield client


async def test_http2_without_credit_holds_its_own_stream_only() -> None:
    async with world() as server, http2(server) as client:
        digest = await server.put(BIG)
        await client.request(1, f"/download/{digest}")
        await client.until(h2.events.ResponseReceived, 1)
        client.state.increment_flow_control_window(1 << 20)  # of the connection, not of stream 1
        await client.flush()
        assert await settled(server) < 16, "what nobody may be sent was read all the same"
        await client.request(3, "/infoz")
        await client.until(h2.events.StreamEnded, 3)


async def test_http2_without_credit_for_too_long_loses_its_stream() -> None:
    async with world(http=HttpSettings(pace=PaceLimits(idle_timeout=0.3))) as server, http2(server) as client:
        digest = await server.put(BIG)
        await client.request(1, f"/download/{digest}")
        await client.until(h2.events.StreamReset, 1)
        await until(lambda: server.store.open_readers == 0)
        await client.request(3, "/infoz")
        await client.until(h2.events.ResponseReceived, 3)


async def test_http2_reset_by_the_client_stops_the_store() -> None:
    async with world() as server, http2(server) as client:
        digest = await server.put(BIG)
        await client.request(1, f"/download/{digest}")
        await client.until(h2.events.ResponseReceived, 1)
        client.state.reset_stream(1)
        await client.flush()
        await until(lambda: server.store.open_readers == 0)
        await client.request(3, "/infoz")
        await client.until(h2.events.StreamEnded, 3)


async def test_http2_upload_into_a_stalled_store_holds_its_own_stream_only() -> None:
    async with world(Fault("write", stall=True, after_bytes=1)) as server, http2(server) as client:
        await client.request(1, f"/upload/{Digest.of(BIG)}", "PUT", Role.UPLOADER)
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                room = min(client.state.local_flow_control_window(1), 16384)
                if not room:
                    client.events += client.state.receive_data(await client.stream.receive_some(65536))
                    continue
                client.state.send_data(1, BIG[:room])
                await client.flush()
                sent += room
        assert 0 < sent < 4 << 20  # the pipeline holds seven pieces of 256 KiB; the rest has no credit
        await client.request(3, "/infoz")
        await client.until(h2.events.ResponseReceived, 3)


async def test_http2_data_after_an_early_answer_does_no_harm() -> None:
    async with world() as server, http2(server) as client:
        await client.request(1, "/upload/nonsense", "PUT", Role.UPLOADER)
        await client.until(h2.events.StreamEnded, 1)
        for _ in range(10):
            client.state.send_data(1, bytes(1000))
            await client.flush()
        reset = await client.until(h2.events.StreamReset, 1)
        assert isinstance(reset, h2.events.StreamReset) and reset.error_code == 0
        await client.request(3, "/infoz")
        await client.until(h2.events.ResponseReceived, 3)


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "CONNECT"), (":authority", "x")],
        [(":method", "GET"), (":path", "/\u00e9"), (":scheme", "http"), (":authority", "x")],
    ],
)
async def test_http2_requests_that_cannot_be_served_lose_their_stream(headers: list[tuple[str, str]]) -> None:
    async with world() as server, http2(server) as client:
        client.state.send_headers(1, headers, end_stream=True)
        await client.flush()
        await client.until(h2.events.StreamReset, 1)
        await client.request(3, "/infoz")
        await client.until(h2.events.StreamEnded, 3)


# -- the end -----------------------------------------------------------------------------------------


async def test_a_transfer_in_flight_may_end_within_the_grace() -> None:
    async with world(http=HttpSettings(grace=lambda: 20.0)) as server:
        digest = await server.put(BIG)
        async with deaf(server) as stream:
            await stream.send_all(request(digest))
            await until(lambda: server.store.open_readers == 1)
            server.stop.set()
            got = 0
            while part := await stream.receive_some(1 << 20):
                got += len(part)
    assert got > len(BIG)


@pytest.mark.parametrize("what", ["download", "upload", "unnamed upload"])
async def test_cancelled_at_every_await_it_leaves_nothing(what: str) -> None:
    content = bytes(600_000)
    digest = Digest.of(content)

    staging: list[Staging] = []

    async def transfer() -> None:
        async with world(backend=MemoryBackend()) as server, deaf(server) as client:
            staging.append(server.staging)
            if what == "download":
                await server.put(content)
                await client.send_all(request(digest))
                wanted = len(content)
            else:
                path = "/upload" if what == "unnamed upload" else f"/upload/{digest}"
                await client.send_all(_put(path, len(content)) + content)
                wanted = len(str(digest))
            got = 0
            while got < wanted:
                got += len(await client.receive_some(1 << 20))

    async def check(_run: Run[None]) -> None:
        pass  # the harness and the world look for what is left

    async def abandoned_threads_end() -> None:
        while staging and staging[-1]._limiter.borrowed_tokens:
            await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(transfer, check, settle=abandoned_threads_end) > 30


def _put(path: str, size: int) -> bytes:
    authorization = bearer(Role.UPLOADER)["authorization"]
    return (
        f"PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\ncontent-length: {size}\r\n\r\n".encode()
    )
