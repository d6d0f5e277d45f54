"""``casproxy.sockets``: what arrives is in a buffer of its own, of its own size, and nothing is lost or mixed."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from casproxy.sockets import READ_SIZE, receive_some


@contextmanager
def pair() -> Iterator[tuple[socket.socket, trio.SocketStream]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


@pytest.mark.parametrize("size", [1, 1000, 60_000])
async def test_a_buffer_holds_what_arrived_and_no_more(size: int) -> None:
    with pair() as (peer, stream):
        peer.sendall(b"x" * size)
        received = await receive_some(stream)
    assert received == b"x" * size
    assert sys.getsizeof(received) == sys.getsizeof(b"x" * size)


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
