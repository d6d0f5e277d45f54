"""Which connections are kept, for whom, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from casproxy.outbound.errors import ConnectionBroken
from casproxy.outbound.message import Request
from casproxy.outbound.pool import Pool, PoolSettings, open_pool
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.outbound.scripted import TIMEOUTS, Line, Script, Server, url

SETTINGS = PoolSettings()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


async def answers_for_ever(line: Line) -> None:
    while True:
        data = await line.stream.receive_some()
        if not data:
            return
        await line.say(ANSWER)


async def answers_once_and_hangs_up(line: Line) -> None:
    await line.hear(b"\r\n\r\n")
    await line.say(ANSWER)
    await line.hear(b"\r\n\r\n")
    await line.hang_up()


@asynccontextmanager
async def pool_of(*scripts: Script, settings: PoolSettings = SETTINGS) -> AsyncIterator[tuple[Pool, Server]]:
    async with trio.open_nursery() as nursery:
        server = Server(nursery, list(scripts))
        async with open_pool(server, TIMEOUTS, settings) as pool:
            yield pool, server
            assert pool.lent == 0


async def get(pool: Pool, partition: str = "") -> bytes:
    async with pool.send(Request("GET", url("/x")), partition) as response:
        return await response.read(100)


async def test_a_connection_is_used_again() -> None:
    async with pool_of(answers_for_ever) as (pool, server):
        for _ in range(3):
            assert await get(pool) == b"abc"
        assert (len(server.dialled), pool.idle) == (1, 1)


async def test_another_partition_gets_another_connection() -> None:
    async with pool_of(answers_for_ever, answers_for_ever) as (pool, server):
        await get(pool, "alice")
        await get(pool, "mallory")
        await get(pool, "alice")
        assert (len(server.dialled), pool.idle) == (2, 2)


async def test_a_connection_closed_meanwhile_costs_one_more_try() -> None:
    async with pool_of(answers_once_and_hangs_up, answers_for_ever) as (pool, server):
        await get(pool)
        assert await get(pool) == b"abc"
        assert len(server.dialled) == 2


async def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async def hangs_up(line: Line) -> None:
        await line.hear(b"\r\n\r\n")
        await line.hang_up()

    async with pool_of(hangs_up) as (pool, server):
        with pytest.raises(ConnectionBroken):
            await get(pool)
        assert (len(server.dialled), pool.idle) == (1, 0)


async def test_an_unread_small_answer_is_read_to_its_end() -> None:
    async with pool_of(answers_for_ever) as (pool, _):
        async with pool.send(Request("GET", url("/x"))):
            pass
        assert pool.idle == 1


async def test_a_block_that_fails_closes_the_connection() -> None:
    async with pool_of(answers_for_ever) as (pool, _):
        with pytest.raises(ZeroDivisionError):
            async with pool.send(Request("GET", url("/x"))):
                raise ZeroDivisionError
        assert pool.idle == 0


async def test_kept_connections_expire(autojump_clock: MockClock) -> None:
    async with pool_of(answers_for_ever, settings=PoolSettings(idle_timeout=45.0)) as (pool, _):
        await get(pool)
        await trio.sleep(44.0)
        assert pool.idle == 1
        await trio.sleep(2.0)
        assert pool.idle == 0


async def test_the_longest_unused_connection_goes_first() -> None:
    settings = PoolSettings(max_idle=2)
    async with pool_of(*[answers_for_ever] * 3, settings=settings) as (pool, server):
        for partition in ("a", "b", "c", "c", "b"):
            await get(pool, partition)
        assert (len(server.dialled), pool.idle) == (3, 2)


async def test_a_cancel_at_every_await_closes_what_is_lent() -> None:
    pools: list[Pool] = []

    async def scenario() -> None:
        async with pool_of(answers_once_and_hangs_up, answers_for_ever) as (pool, _):
            pools.append(pool)
            await get(pool)
            await get(pool)

    async def check(run: Run[None]) -> None:
        assert all(pool.lent == pool.idle == 0 for pool in pools)

    await cancel_everywhere(scenario, check)
