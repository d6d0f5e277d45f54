"""``casproxy.tls`` over sockets and in memory: the same bytes in the same order, however either side cuts them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casproxy import streams
from casproxy.sockets import READ_SIZE, Buffer, Received
from casproxy.tls import FEED_SIZE, MOST_BATCHED, TlsStream
from casproxy_tests.real.certificates import client_context, server_context

MIB = 1 << 20

Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]
"""The client's and the server's."""
Transports: TypeAlias = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    return client_context(), server_context(tmp_path_factory.mktemp("tls"))


async def sockets() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ours, theirs = trio.socket.socketpair()
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.memory_stream_pair()


@pytest.fixture(params=[sockets, memory], ids=["socket", "memory"])
def transports(request: pytest.FixtureRequest) -> Transports:
    made: Transports = request.param
    return made


@asynccontextmanager
async def connected(contexts: Contexts, transports: Transports) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    ours, theirs = await transports()
    client = TlsStream(ours, contexts[0], server_hostname="localhost")
    server = TlsStream(theirs, contexts[1], server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        await server.handshake()
    try:
        yield client, server
    finally:
        await trio.aclose_forcefully(client)
        await trio.aclose_forcefully(server)


def pattern(size: int) -> bytes:
    """No two stretches of it are alike, wherever one cuts it."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


@given(
    sent=st.lists(st.one_of(st.integers(1, 300), st.integers(1, 3 * READ_SIZE // 2)), min_size=1, max_size=5),
    wanted=st.lists(st.one_of(st.integers(1, 300), st.integers(2000, READ_SIZE)), min_size=1, max_size=5),
    nowait=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_bytes_in_the_same_order(
    contexts: Contexts,
    transports: Transports,
    sent: list[int],
    wanted: list[int],
    nowait: bool,
) -> None:
    """Whatever is held on to is still right when all has come: reads share buffers, and are decrypted in place."""
    content = pattern(sum(sent))
    held: list[Received] = []

    async def receive(stream: TlsStream) -> None:
        taken = 0
        for number in range(len(content) + 1):
            most = wanted[number % len(wanted)] if taken < 2000 else READ_SIZE
            received = streams.receive_nowait(stream, most) if nowait else None
            if received is None:
                received = await streams.receive(stream, most)
            assert len(received) <= most
            if not received:
                return
            held.append(received)
            taken += len(received)

    async def run() -> None:
        async with connected(contexts, transports) as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(receive, server)
            views, start = [], 0
            for size in sent:
                views.append(memoryview(content)[start : start + size])
                start += size
            await streams.send(client, views[:2], patience=60)
            for view in views[2:]:
                await client.send_all(view)
            await client.aclose()

    trio.run(run)
    assert b"".join(held) == content


async def test_what_is_small_keeps_little_alive(contexts: Contexts) -> None:
    async with connected(contexts, sockets) as (client, server):
        await client.send_all(b"x" * 1000)
        received = await server.receive()
        assert received == b"x" * 1000
        assert isinstance(received, bytes)


async def test_openssl_keeps_no_more_than_it_was_fed(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of half a mebibyte would stay half a mebibyte of memory for the life of the connection."""
    fed: list[int] = []
    feed = TlsStream._feed

    def watched(self: TlsStream, ciphertext: Buffer) -> None:
        fed.append(len(ciphertext))
        feed(self, ciphertext)

    monkeypatch.setattr(TlsStream, "_feed", watched)
    async with connected(contexts, sockets) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(MIB))
        left = MIB
        while left:
            left -= len(await server.receive())
    assert sum(fed) > MIB
    assert max(fed) <= FEED_SIZE
    assert server._incoming.pending == 0


async def test_cancelled_nothing_is_lost(contexts: Contexts, transports: Transports) -> None:
    content = pattern(200_000)
    received = bytearray()
    async with connected(contexts, transports) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, content)
        while len(received) < len(content):
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                received += await server.receive(1000)
            received += await server.receive(1000)
    assert received == content


async def test_an_end_without_goodbye_is_an_end(contexts: Contexts, transports: Transports) -> None:
    async with connected(contexts, transports) as (client, server):
        await client.send_all(b"half of")
        assert client.receive_nowait() is None  # the server's tickets: closed with them unread, a socket is reset
        await client.transport_stream.aclose()
        assert await server.receive() == b"half of"
        assert await server.receive() == b""
        assert await server.receive() == b""


async def test_a_record_that_was_changed_is_refused(contexts: Contexts, transports: Transports) -> None:
    async with connected(contexts, transports) as (client, server):
        client._tls.write(b"secret")
        record = bytearray(client._outgoing.read())
        record[-1] ^= 1
        await client.transport_stream.send_all(record)
        with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD"):
            await server.receive()
        assert server.failure is not None
        assert server.failure.__traceback__ is None


async def test_batches_grow_while_the_peer_takes_them_and_no_longer(
    contexts: Contexts,
) -> None:
    """What is encrypted for a peer that does not read is memory that nobody counts."""
    async with connected(contexts, sockets) as (client, server):
        for _ in range(8):
            await client.send_all(bytes(FEED_SIZE))
            left = FEED_SIZE
            while left:
                left -= len(await server.receive())
        assert client._batch == MOST_BATCHED
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(16 * MIB))
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(40):
                await server.receive(FEED_SIZE)
                await trio.testing.wait_all_tasks_blocked()
            assert client._batch < MOST_BATCHED
            nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing_is_given_up(contexts: Contexts) -> None:
    async with connected(contexts, sockets) as (client, _):
        with pytest.raises(trio.TooSlowError):
            await client.send_gathered([bytes(16 * MIB)], patience=0.01)
