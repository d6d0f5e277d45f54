"""A connection goes from one end to the other: real sockets, both ends in one process."""

from __future__ import annotations

import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from casproxy.workers.hand_over import Giver, Taker, WorkerGone, socket_pair, take_back
from casproxy.workers.messages import GRPC, HTTP
from casproxy_tests.cancellation.harness import Run, cancel_everywhere


@asynccontextmanager
async def both_ends() -> AsyncIterator[tuple[Giver, Taker]]:
    give_end, take_end = socket_pair(socket.SOCK_SEQPACKET)
    with give_end, take_end:
        taker = Taker(take_end, lambda: None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(taker.run)
                yield Giver(give_end), taker
                nursery.cancel_scope.cancel()
        finally:
            taker.close()


async def hand(giver: Giver, door: str) -> trio.SocketStream:
    """Give one end of a connection away; the other."""
    ours, theirs = trio.socket.socketpair()
    with theirs:
        await giver.give(door, theirs)
    return trio.SocketStream(ours)


async def test_a_connection_is_accepted_at_its_door_and_works() -> None:
    async with both_ends() as (giver, taker):
        for door in (GRPC, HTTP):
            async with await hand(giver, door) as client, await taker.doors[door].accept() as server:
                await client.send_all(b"ping")
                assert await server.receive_some(10) == b"ping"
                await server.send_all(b"pong")
                assert await client.receive_some(10) == b"pong"
                assert taker.doors[door].count_open() == 1
            assert taker.doors[door].count_open() == 0
            assert taker.doors[door].taken == 1


async def test_what_waits_counts_as_open_and_is_closed_with_its_door() -> None:
    async with both_ends() as (giver, taker):
        door = taker.doors[GRPC]
        async with await hand(giver, GRPC) as client:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert door.count_open() == 1
            await door.aclose()
            assert await client.receive_some(1) == b""
            with pytest.raises(trio.ClosedResourceError):
                await door.accept()


async def test_what_comes_to_a_closed_door_is_closed_and_counts_as_taken() -> None:
    async with both_ends() as (giver, taker):
        taker.doors[GRPC].close()
        async with await hand(giver, GRPC) as client:
            assert await client.receive_some(1) == b""
        assert (taker.doors[GRPC].taken, taker.doors[GRPC].count_open()) == (1, 0)


async def test_a_worker_that_is_gone_leaves_the_connection_with_its_giver() -> None:
    give_end, take_end = socket_pair(socket.SOCK_SEQPACKET)
    ours, theirs = trio.socket.socketpair()
    with give_end, ours, theirs:
        take_end.close()
        with pytest.raises(WorkerGone):
            await Giver(give_end).give(GRPC, theirs)
        await theirs.send(b"still mine")
        assert await ours.recv(20) == b"still mine"


async def test_what_a_worker_has_not_taken_is_taken_back_and_works() -> None:
    give_end, take_end = socket_pair(socket.SOCK_SEQPACKET)
    with give_end, take_end:
        clients = [await hand(Giver(give_end), door) for door in (GRPC, HTTP, HTTP)]
        give_end.shutdown(socket.SHUT_RDWR)
        untaken = take_back(take_end)
        assert [door for door, _ in untaken] == [GRPC, HTTP, HTTP]
        for client, (_, connection) in zip(clients, untaken, strict=True):
            with connection:
                connection.send(b"x")
                assert await client.receive_some(1) == b"x"
            await client.aclose()
        assert take_back(take_end) == []


async def test_who_waits_to_give_to_a_worker_that_takes_nothing_hears_that_it_is_gone() -> None:
    give_end, take_end = socket_pair(socket.SOCK_SEQPACKET)
    ours, theirs = trio.socket.socketpair()

    async def give_for_ever() -> None:
        with pytest.raises(WorkerGone):
            while True:
                await Giver(give_end).give(GRPC, theirs)

    with give_end, take_end, ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_for_ever)
            await trio.testing.wait_all_tasks_blocked(0.01)
            give_end.shutdown(socket.SHUT_RDWR)
        for _, connection in take_back(take_end):
            connection.close()


async def test_a_worker_without_a_free_descriptor_loses_one_connection_and_goes_on() -> None:
    give_end, take_end = socket_pair(socket.SOCK_SEQPACKET)
    taker, limits = Taker(take_end, lambda: None), resource.getrlimit(resource.RLIMIT_NOFILE)
    with give_end, take_end:
        lost = await hand(Giver(give_end), GRPC)
        async with trio.open_nursery() as nursery, lost:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                nursery.start_soon(taker.run)
                assert await lost.receive_some(1) == b""
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            async with await hand(Giver(give_end), GRPC) as client, await taker.doors[GRPC].accept() as server:
                await server.send_all(b"x")
                assert await client.receive_some(1) == b"x"
            assert taker.doors[GRPC].taken == 2
            nursery.cancel_scope.cancel()


async def test_cancelled_anywhere_no_connection_is_left_open() -> None:
    async def scenario() -> None:
        async with (
            both_ends() as (giver, taker),
            await hand(giver, HTTP) as client,
            await taker.doors[HTTP].accept(),
        ):
            await client.send_all(b"x")

    async def check(_run: Run[None]) -> None:
        """Nothing beyond what the harness looks at: tasks and descriptors."""

    assert await cancel_everywhere(scenario, check) > 3
