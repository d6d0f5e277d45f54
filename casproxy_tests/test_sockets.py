"""``casproxy.sockets``: what arrives is in a buffer of its own, of its own size, and nothing is lost or mixed."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casproxy import sockets
from casproxy.sockets import (
    KEPT_BUFFERS,
    NEAR_SEND_BUFFER,
    READ_SIZE,
    make_room_for_near_peer,
    receive_nowait,
    receive_some,
)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, trio.SocketStream]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


ALLOWED = int(Path("/proc/sys/net/core/wmem_max").read_text())
"""The largest send buffer that a process may ask for."""
SMALL = 64 * 1024
"""A read that every socket's buffer has room for."""


@pytest.fixture
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "READ_SIZE", SMALL)
    monkeypatch.setattr(sockets, "_buffers", sockets._Buffers())


def fill(peer: socket.socket, data: bytes) -> None:
    """Have ``data`` wait in the socket, whole."""
    assert peer.send(data) == len(data)


@pytest.mark.parametrize("size", [1, 1000, 60_000])
async def test_a_buffer_holds_what_arrived_and_no_more(size: int) -> None:
    with pair() as (peer, stream):
        peer.sendall(b"x" * size)
        received = await receive_some(stream)
    assert received == b"x" * size
    assert sys.getsizeof(received) == sys.getsizeof(b"x" * size)


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("size", [SMALL // 2, SMALL])
async def test_what_fills_half_of_a_buffer_is_not_copied(size: int) -> None:
    with pair() as (peer, stream):
        fill(peer, b"x" * size)
        received = await receive_some(stream)
    assert isinstance(received, memoryview)
    assert isinstance(received.obj, bytearray)
    assert len(received.obj) == SMALL <= 2 * len(received)


@given(steps=st.lists(st.tuples(st.integers(1, SMALL), st.integers(0, 40)), max_size=60))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_reads")
def test_no_byte_changes_while_somebody_looks_at_it(steps: list[tuple[int, int]]) -> None:
    """Reads of all sizes, of which some are held, also by parts of them, and let go in any order."""
    held: list[tuple[memoryview, bytes]] = []
    with pair() as (peer, stream):
        for number, (size, dropped) in enumerate(steps):
            fill(peer, bytes([number]) * size)
            received = receive_nowait(stream)
            assert received is not None
            part = memoryview(received)[number % len(received) :]
            held.append((part, bytes([number]) * len(part)))
            del received, part
            if dropped < len(held):
                del held[dropped]
            assert all(view == sent for view, sent in held)


@pytest.mark.usefixtures("small_reads")
async def test_a_buffer_that_nobody_looks_at_is_used_again() -> None:
    seen = set()
    with pair() as (peer, stream):
        for _ in range(3 * KEPT_BUFFERS):
            fill(peer, bytes(SMALL))
            received = await receive_some(stream)
            assert isinstance(received, memoryview)
            seen.add(id(received.obj))
            del received
    assert len(seen) <= 2


async def test_no_more_is_taken_than_was_asked_for() -> None:
    with pair() as (peer, stream):
        peer.sendall(b"abcdef")
        assert await receive_some(stream, 4) == b"abcd"
        assert await receive_some(stream, 4) == b"ef"
        peer.close()
        assert await receive_some(stream) == b""


async def test_streams_do_not_see_each_others_bytes() -> None:
    received: dict[bytes, bytearray] = {}

    async def drain(stream: trio.SocketStream, mark: bytes) -> None:
        taken = received[mark] = bytearray()
        while data := await receive_some(stream):
            taken += data

    async def feed(peer: socket.socket, mark: bytes) -> None:
        end = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        for _ in range(50):
            await end.send_all(mark * 1000)
        await end.aclose()

    with pair() as (first, one), pair() as (second, two):
        async with trio.open_nursery() as nursery:
            for peer, stream, mark in ((first, one, b"1"), (second, two, b"2")):
                nursery.start_soon(drain, stream, mark)
                nursery.start_soon(feed, peer, mark)
    assert received == {b"1": b"1" * 50_000, b"2": b"2" * 50_000}


async def test_cancelled_before_or_while_waiting_it_has_taken_nothing() -> None:
    with pair() as (peer, stream):
        with trio.CancelScope() as waiting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_some, stream)
                await trio.testing.wait_all_tasks_blocked()
                waiting.cancel()
        assert waiting.cancelled_caught
        peer.sendall(b"later")
        with trio.CancelScope() as before:
            before.cancel()
            await receive_some(stream)
        assert before.cancelled_caught
        assert await receive_some(stream) == b"later"


async def test_a_socket_closed_here_while_it_is_waited_for_or_before() -> None:
    with pair() as (_, stream):

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive_some(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        await wait()


async def test_a_reset_is_a_broken_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with accepted:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        with pytest.raises(trio.BrokenResourceError):
            await receive_some(stream)


async def test_another_kind_of_stream_is_asked_itself() -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(b"x" * (READ_SIZE + 1))
    assert len(await receive_some(near)) == READ_SIZE
    assert await receive_some(near, 10) == b"x"


@contextmanager
def over_tcp() -> Iterator[trio.SocketStream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with peer, accepted:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


def send_buffer(stream: trio.SocketStream) -> int:
    size = stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert isinstance(size, int)
    return size


async def test_a_near_peers_socket_has_room_for_half_a_mebibyte() -> None:
    with over_tcp() as stream:
        make_room_for_near_peer(stream)
        assert send_buffer(stream) == 2 * min(NEAR_SEND_BUFFER, ALLOWED)


async def test_what_is_far_or_no_network_or_closed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with over_tcp() as far, pair() as (_, local), over_tcp() as closed:
        closed.socket.close()
        make_room_for_near_peer(closed)
        monkeypatch.setattr(sockets, "NEAR_SECONDS", 0)
        for stream in (far, local):
            before = send_buffer(stream)
            make_room_for_near_peer(stream)
            assert send_buffer(stream) == before
